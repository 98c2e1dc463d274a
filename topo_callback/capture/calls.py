"""The calls of a model's blocks in one forward pass, in their order, and where inside a block a layer is read.

Call i gives layer i, whichever block it is of.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from topo_callback.capture.blocks import BlockStack, bare
from topo_callback.capture.layout import StateLayout
from topo_callback.errors import ConfigurationError, UnsupportedModelError

_HIDDEN = ("hidden_states", "hidden_state", "last_hidden_state")


@dataclass(frozen=True)
class Traversal:
    """How a forward pass goes through the blocks, as far as it is known beforehand.

    Attributes:
        layout: of the states between blocks.
        calls: of which block of the stack each call is; a block that is shared by several layers, or used again and
            again, has several calls.
        width: length of the vectors between blocks, all streams together.
    """

    layout: StateLayout
    calls: tuple[int, ...]
    width: int

    @property
    def depth(self) -> int:
        """Number of calls, the L of the layer numbers 0..L."""
        return len(self.calls)

    @property
    def plain(self) -> bool:
        """Whether each block runs once, in the order of the stack, and gives [rows, tokens, width]."""
        return self.layout.plain and self.calls == tuple(range(self.depth))


def static_traversal(stack: BlockStack, layout: StateLayout) -> Traversal:
    """What the stack says by itself: every entry of it is called once, in its order."""
    return Traversal(layout, tuple(range(len(stack.blocks))), stack.width)


def distinct_blocks(stack: BlockStack) -> dict[nn.Module, int]:
    """The different blocks of a stack, each with the first place where it stands."""
    found: dict[nn.Module, int] = {}
    for place, block in enumerate(stack.blocks):
        found.setdefault(bare(block), place)
    return found


@dataclass
class Calls:
    """The calls made so far in a forward pass: the place of each one's block in the stack."""

    made: list[int] = field(default_factory=list)


@contextlib.contextmanager
def listening(
    stack: BlockStack, layers: Collection[int] | None, tap: str, take: Callable[[int, Any], None]
) -> Iterator[Calls]:
    """Have `take` called with the number and the state of each of these layers (None: of all) while this lasts.

    Layer 0 is the input of the first call. The hooks change nothing.
    """
    calls = Calls()

    def before(place: int) -> Callable[..., None]:
        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.made.append(place)
            if len(calls.made) == 1 and (layers is None or 0 in layers):
                take(0, _block_input(args, kwargs))

        return begin

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        layer = len(calls.made)
        if layers is None or layer in layers:
            take(layer, output)

    with contextlib.ExitStack() as hooks:
        for block, place in distinct_blocks(stack).items():
            hooks.callback(block.register_forward_pre_hook(before(place), with_kwargs=True).remove)
            hooks.callback(_tapped(block, tap, layers, place).register_forward_hook(after).remove)
        yield calls


def check_calls(made: tuple[int, ...], expected: Traversal, stack: BlockStack) -> None:
    """See that a forward pass went through the blocks as it did before.

    Raises:
        UnsupportedModelError: other blocks were called, or as many in another order.
    """
    if made == expected.calls:
        return
    if len(made) != expected.depth:
        what = f"called the blocks of {stack.path} {len(made)} times, and {expected.depth} times before"
    else:
        call = next(i for i, (one, other) in enumerate(zip(made, expected.calls, strict=True)) if one != other)
        what = (
            f"called block {made[call]} of {stack.path} as number {call + 1}, where it called block "
            f"{expected.calls[call]} before"
        )
    raise UnsupportedModelError(
        f"the forward pass {what}; a model whose depth depends on the prompt or on chance cannot be read layer by "
        "layer: name a stack that is always passed through with blocks='...'"
    )


def _tapped(block: nn.Module, tap: str, layers: Collection[int] | None, place: int) -> nn.Module:
    """The module of a block that is listened to; the block itself where no layer of it is wanted."""
    try:
        return tap_module(block, tap)
    except UnsupportedModelError:
        if layers is not None and not any(layer > 0 for layer in layers):
            return block
        raise


# The norm that follows attention, by architecture. Where it normalises the attention's output before that joins the
# residual stream (Gemma, OLMo 2), it is still the module of this name, as in published code.
POST_ATTENTION_NORMS = (
    "post_attention_layernorm",  # llama, qwen, mistral, mixtral, gemma, olmo2, phi3, gpt_oss, gpt_neox, bloom, falcon
    "ln_2",  # gpt2, gpt_neo
    "norm_2",  # mpt
    "mlp_norm",  # modernbert
    "attention.output.LayerNorm",  # bert, roberta, deberta
    "sa_layer_norm",  # distilbert
)


def tap_module(block: nn.Module, tap: str) -> nn.Module:
    """The module of `block` whose output is the layer.

    Args:
        block: one block, without wrappers.
        tap: "block", or "post_attention_norm".

    Raises:
        ConfigurationError: another tap.
        UnsupportedModelError: the block has no norm after attention under a known name; the message lists its norms.
    """
    if tap == "block":
        return block
    if tap != "post_attention_norm":
        raise ConfigurationError(f"unknown tap {tap!r}; accepted: block, post_attention_norm")
    modules = dict(block.named_modules())
    name = next((name for name in POST_ATTENTION_NORMS if name in modules), None)
    if name is None:
        name = _special_name(block, modules)
    if name is not None:
        return block.get_submodule(name)
    norms = [name for name, module in modules.items() if "norm" in type(module).__name__.lower()]
    raise UnsupportedModelError(
        f"tap='post_attention_norm': {type(block).__name__} has no norm after attention under a known name; its norms: "
        f"{', '.join(norms) or 'none'}; use tap='block'"
    )


def _special_name(block: nn.Module, modules: dict[str, nn.Module]) -> str | None:
    """Norms whose name means another place in another architecture: OPT's final_layer_norm, T5's last one."""
    if type(block).__name__.startswith("OPT"):
        before = getattr(block, "do_layer_norm_before", True)
        return "final_layer_norm" if before else "self_attn_layer_norm"
    layer = modules.get("layer")
    if isinstance(layer, nn.ModuleList) and f"layer.{len(layer) - 1}.layer_norm" in modules:
        return f"layer.{len(layer) - 1}.layer_norm"
    return None


def _block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states that a block is given."""
    given = (*args, kwargs.get("hidden_states"), *kwargs.values())
    states = (each for each in given if isinstance(each, Tensor) and each.is_floating_point() and each.ndim >= 2)
    state = next(states, None)
    if state is None:
        raise UnsupportedModelError("the first block is given no hidden states, so there is no layer 0; leave it out")
    return state


def first_tensor(output: Any) -> Tensor:
    """The hidden states among what a block gives: those of that name where parts have names, else what comes first.

    Raises:
        UnsupportedModelError: none are found, or it cannot be told which they are.
    """
    while not isinstance(output, Tensor):
        parts = _named_parts(output)
        named = next((parts[name] for name in _HIDDEN if parts.get(name) is not None), None)
        if named is not None:
            output = named
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        else:
            break
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    names = ", ".join(map(str, _named_parts(output)))
    what = f"{type(output).__name__} of {names}" if names else type(output).__name__
    raise UnsupportedModelError(
        f"a block gives {what} instead of hidden states; accepted: a tensor, a tuple that begins with them, or an "
        f"object that has them as {' or '.join(_HIDDEN)}; name another stack with blocks='...'"
    )


def _named_parts(output: Any) -> dict[Any, Any]:
    """The parts of a dictionary, a dataclass or a tuple whose places have names."""
    if isinstance(output, dict):
        return dict(output)
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {part.name: getattr(output, part.name) for part in dataclasses.fields(output)}
    return {}
