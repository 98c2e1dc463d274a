"""Run the probe through a model that is being trained, and leave no trace in it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.batches import ProbeBatch
from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.devices import model_device
from topo_callback.capture.next_token import NextTokens
from topo_callback.capture.pooling import Pooling
from topo_callback.capture.quantised import left_open
from topo_callback.capture.sharded import is_sharded, reshard, to_the_end
from topo_callback.capture.taps import tap_module
from topo_callback.capture.token_cloud import TokenCloud
from topo_callback.errors import USERS_OWN, TopologyError, UnsupportedModelError


def read_clouds(
    model: nn.Module,
    stack: BlockStack,
    batches: Sequence[ProbeBatch],
    *,
    layers: tuple[int, ...],
    tap: str = "block",
    device: torch.device | None = None,
    dtypes: dict[int, torch.dtype] | None = None,
) -> Float[Tensor, "layers points width"]:
    """Read the whole probe in this process: one cloud per layer, points in probe order.

    The result is float32 and takes 4 x layers x points x width bytes on the model's device; beside it there is never
    more than one batch. Arguments and errors are those of `read_batch`; the model is made quiet here.
    """
    points = sum(len(batch) for batch in batches)
    clouds: Tensor | None = None
    with quiet(model):
        for batch in batches:
            rows = read_batch(model, stack, batch, layers=layers, tap=tap, device=device, dtypes=dtypes)
            if clouds is None:
                clouds = rows.new_empty((len(layers), points, rows.shape[2]))
            clouds[:, batch.points.to(rows.device)] = rows
    if clouds is None:
        raise TopologyError("no batches to read")
    return clouds


def read_batch(
    model: nn.Module,
    stack: BlockStack,
    batch: ProbeBatch,
    *,
    layers: tuple[int, ...],
    tap: str = "block",
    device: torch.device | None = None,
    dtypes: dict[int, torch.dtype] | None = None,
    token_measures: Sequence[str] = (),
    next_tokens: NextTokens | None = None,
    token_cloud: TokenCloud | None = None,
) -> Float[Tensor, "layers rows columns"]:
    """One forward pass of one batch: the point of each row at each layer. To be called inside `quiet(model)`.

    Tokens become points inside the hooks, so at no time is more than one layer's [rows, tokens, width] alive on our
    account. Layer 0 is the input of the first block, layer i the output of block i, before any final norm. Of an
    encoder-decoder the probe goes to the encoder, the decoder gets its start token only, and that position is the
    point of the decoder's layers.

    Args:
        model: the model as the trainer's events give it; the forward pass starts at its root, as training does.
        stack: from `find_blocks(model)`.
        batch: from `make_batches`, whose pooling it carries.
        layers: layer numbers, from `resolve_layers`.
        tap: "block", or "post_attention_norm" for the output of the norm after attention in each block (layer 0
            stays the embedding).
        device: where the inputs go; by default what `model_device` says.
        dtypes: when given, filled with the type in which the model computed each layer.
        token_measures: numbers of each row's tokens, taken in the hooks too, by their names in `token_numbers`.
        next_tokens: when given, left with the next-token distributions of this batch, or with why there are none.
        token_cloud: when given, left with the states of its tokens in this batch.

    Returns:
        float32 [layers, rows, width + token measures] on `device`: the points (exact for a bfloat16 or float16 model;
        means over tokens are taken in float32), then the token measures in their order, NaN where undefined.

    Raises:
        TopologyError: called outside `quiet`.
        UnsupportedModelError: a block that does not give [rows, tokens, width], or was not reached.

    What goes wrong in a hook, and in the blocks of a sharded model, is raised after the forward pass: other ranks may
    be in it as well.
    """
    if torch.is_grad_enabled() or model.training:
        raise TopologyError("read_batch must run inside quiet(model): this would be a training pass")
    if device is None:
        device = model_device(model)
    head = None if next_tokens is None else next_tokens.head(model, stack)
    inputs = _inputs(model, batch, device, all_to_head=head is not None)
    pooling = Pooling(stack, batch)
    points: dict[int, Tensor] = {}
    failures: list[BaseException] = []

    def take(layer: int, hidden: Any) -> None:
        if failures:
            return
        try:
            hidden = _first_tensor(hidden)
            if dtypes is not None:
                dtypes[layer] = hidden.dtype
            point = pooling.points(hidden)
            if token_measures:
                point = torch.cat([point, pooling.token_numbers(hidden, token_measures)], dim=1)
            if token_cloud is not None:
                pooling.take_tokens(layer, hidden, token_cloud)
            points[layer] = point.to(device)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - raised below, when the pass that other ranks may share is over
            failures.append(error)

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hooks.callback(_hook(stack, layer, tap, take).remove)
        if next_tokens is not None and head is not None:
            hooks.enter_context(next_tokens.listening(model, stack, head, batch, failures))
        if is_sharded(model):
            hooks.callback(reshard, model)
            hooks.enter_context(to_the_end(stack.blocks, failures))
        hooks.enter_context(_without_compiled_code(model))
        try:
            entry(model)(**inputs)
        except USERS_OWN:
            raise
        except BaseException:
            if not failures:  # else this is what came of it
                raise
    if failures:
        raise failures[0]
    missing = [layer for layer in layers if layer not in points]
    if missing:
        raise UnsupportedModelError(f"the forward pass did not reach layer {missing[0]} of {stack.path}")
    return torch.stack([points[layer] for layer in layers])


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, after which everything is as it was.

    Restored exactly, also after an error: each module's training flag, the random states of python, numpy, the CPU
    and the model's own devices, what quantised layers settle, and the gradient mode. Flags are set one by one:
    `model.eval()` would run whatever a module does in its own `train`. Nothing is created in inference mode, so no
    tensor that the model caches can break a later backward pass.
    """
    flags = [(module, module.training) for module in model.modules()]
    states = _random_states({p.device for p in model.parameters()})
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad(), left_open(model):
            yield
    finally:
        for module, training in flags:
            module.training = training
        # inside somebody's autocast, older torch would let training reuse weights that were cast without gradients
        torch.clear_autocast_cache()
        for restore, state in states:
            restore(state)


def entry(model: nn.Module) -> nn.Module:
    """The module whose forward pass takes token ids: the root where it does, else the transformers model inside."""
    model = bare(model)
    names = inspect.signature(type(model).forward).parameters
    wrapper = hasattr(model, "peft_config") or hasattr(model, "_fsdp_wrapped_module")
    return model if wrapper or "input_ids" in names else find_language_model(model)


def _random_states(devices: set[torch.device]) -> list[tuple[Callable[[Any], None], Any]]:
    states: list[tuple[Callable[[Any], None], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002 - the global state is what must be kept
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    for device in devices:
        if device.type == "cuda":
            states.append(
                (functools.partial(torch.cuda.set_rng_state, device=device), torch.cuda.get_rng_state(device))
            )
        elif device.type == "mps":
            states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return states


def _inputs(model: nn.Module, batch: ProbeBatch, device: torch.device, *, all_to_head: bool) -> dict[str, Any]:
    """The arguments of the forward pass, of those that the model's signature has.

    With `all_to_head` the head is given every token, because the input is cut in front of it.
    """
    language_model = find_language_model(model)
    config = language_model.config
    names = inspect.signature(type(language_model).forward).parameters
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.to(device),
    }
    if "position_ids" in names and _counts_from_zero(model):
        inputs["position_ids"] = batch.position_ids.to(device)
    if "use_cache" in names:
        inputs["use_cache"] = False
    if "logits_to_keep" in names and not all_to_head:
        inputs["logits_to_keep"] = 1
    if "decoder_input_ids" in names:
        start = next(
            (
                token
                for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id")
                if isinstance(token := getattr(config, name, None), int)
            ),
            0,
        )
        inputs["decoder_input_ids"] = torch.full((len(batch), 1), start, device=device)
    return inputs


def _counts_from_zero(model: nn.Module) -> bool:
    """Whether explicit positions 0, 1, 2, ... are the model's own.

    RoBERTa and its kin count from their padding index on; under PEFT's prompt learning the virtual tokens come first
    and given positions are ignored with a warning.
    """
    learned = getattr(getattr(bare(model), "active_peft_config", None), "is_prompt_learning", False)
    classes = {type(module) for module in model.modules()}
    return not learned and not any(name.startswith("create_position_ids") for cls in classes for name in dir(cls))


def _hook(stack: BlockStack, layer: int, tap: str, take: Callable[[int, Any], None]) -> Any:
    """Attach one hook that changes nothing; the handle removes it."""
    if layer == 0:

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            take(0, args[0] if args else kwargs["hidden_states"])

        return bare(stack.blocks[0]).register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        take(layer, output)

    return tap_module(bare(stack.blocks[layer - 1]), tap).register_forward_hook(after)


def _first_tensor(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if isinstance(output, Tensor):
        return output
    raise UnsupportedModelError(f"a block gives {type(output).__name__} instead of hidden states")


def _without_compiled_code(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules as plain python: compiled code skips new hooks, and new shapes would recompile it."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
