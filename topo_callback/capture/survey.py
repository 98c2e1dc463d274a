"""Looking at one prompt alone: which calls of blocks a forward pass makes, and where its tokens are in their states."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topo_callback.capture.batches import TokenisedPrompts
from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.calls import Traversal, first_tensor, listening
from topo_callback.capture.forward import decoder_start, run_forward, takes
from topo_callback.capture.layout import StateLayout
from topo_callback.capture.model_facts import model_device
from topo_callback.errors import USERS_OWN, UnsupportedModelError

Together = Callable[[Callable[[], None]], None]
"""Does something on every rank, so that all ranks fail alike; see `Turns`."""


def alone(work: Callable[[], None]) -> None:
    """Together, in one process."""
    work()


def out_of_memory(error: BaseException) -> bool:
    """Whether this, or what it says of another rank, is an error for want of memory."""
    return isinstance(error, torch.OutOfMemoryError) or getattr(error, "code", None) == 1


@dataclass
class Seen:
    """One forward pass: the shape of each layer's state, the state that the first block was given, and the calls."""

    shapes: dict[int, torch.Size]
    first: Tensor
    calls: tuple[int, ...]


def surveyed_prompt(probe: TokenisedPrompts) -> tuple[int, ...]:
    """The prompt to look at: the shortest of three tokens or more, else the longest."""
    lengths = {point: len(ids) for point, ids in enumerate(probe.token_ids)}
    long = [point for point, length in lengths.items() if length >= 3]
    return probe.token_ids[min(long, key=lengths.__getitem__) if long else max(lengths, key=lengths.__getitem__)]


def survey(
    model: nn.Module,
    stack: BlockStack,
    token_ids: tuple[int, ...],
    *,
    device: torch.device | None = None,
    together: Together = alone,
) -> Traversal:
    """Find the calls of the blocks and the layout of their states, from `model(input_ids=...)`.

    Two passes where the state is [1, tokens, width], else three: the prompt with another last token shows where a token
    is, and the prompt twice shows which axis has the rows. To be called inside `quiet(model)`.

    Args:
        model, stack: as in `read_batch`.
        token_ids: one prompt.
        device: where the inputs go; by default what `model_device` says.
        together: runs each pass; all ranks survey together.

    Raises:
        UnsupportedModelError: blocks that were not reached, or states in which a token cannot be found.
    """
    where = model_device(model) if device is None else device
    thrifty = {"use_cache": False, "logits_to_keep": 1}
    options: dict[str, Any] = {name: value for name, value in thrifty.items() if takes(model, name)}

    def look(ids: tuple[int, ...], *, rows: int = 1, another: bool = False) -> Seen:
        inputs = {"input_ids": torch.tensor([ids] * rows, device=where), **options}
        inputs |= decoder_start(model, rows, where, another=another)
        found: list[Seen] = []
        together(lambda: found.append(_look(model, stack, inputs)))
        return found[0]

    seen = look(token_ids)
    if not seen.calls:
        raise UnsupportedModelError(
            f"a forward pass of {type(find_language_model(model)).__name__} calls no block of {stack.path}; "
            f"{_called_instead(model, lambda: look(token_ids))}"
        )
    decoder = stack.kind == "encoder-decoder"
    tokens = 1 if decoder else len(token_ids)
    shape = tuple(seen.first.shape)
    layout = StateLayout()
    if len(shape) > 2 and seen.first.device.type != "meta":
        changed = look(token_ids, another=True) if decoder else look((*token_ids[:-1], _another(token_ids)))
        if shape[:-1] != (1, tokens) or tokens in (1, shape[-1]):
            twice = look(token_ids, rows=2)
            layout = _layout(seen.first, twice.first, changed.first, tokens, stack)
        elif shape == tuple(changed.first.shape):
            moved = _moved(seen.first, changed.first, 1)
            if not moved:  # perhaps the two tokens are one to the embedding
                moved = _moved(seen.first, look((*token_ids[:-1], max(0, token_ids[-1] - 1))).first, 1)
            _check_order(moved, tokens, stack)
    width = layout.arranged(seen.first, 1, tokens).shape[2]
    _check_widths(seen, layout, width, stack)
    return Traversal(layout, seen.calls, width)


def _check_new(before: Tensor, state: Tensor, given: Any, layer: int, stack: BlockStack) -> None:
    """See that what comes first of what a block gives is not what it was given.

    Raises:
        UnsupportedModelError: it is, and there is another state beside it.
    """
    parts = given if isinstance(given, tuple) else ()
    others = [each for each in parts if isinstance(each, Tensor) and each.shape == state.shape and each is not state]
    if others and state.device.type != "meta" and torch.equal(before, state):
        raise UnsupportedModelError(
            f"layer {layer} of {stack.path}: the block gives several states, and the first one is what it was given; "
            "accepted: blocks that give their new states first; name another stack with blocks='...'"
        )


def _check_widths(seen: Seen, layout: StateLayout, width: int, stack: BlockStack) -> None:
    """See that what blocks give is of the kind of what they are given, and not, say, weights of attention.

    Raises:
        UnsupportedModelError: it has other axes, or vectors that are neither as long nor as the configuration says.
    """
    given = tuple(seen.first.shape)
    for layer, shape in seen.shapes.items():
        if len(shape) == 2:
            found = shape[1]
        else:
            found = math.prod(size for axis, size in enumerate(shape) if axis not in (layout.rows, layout.tokens))
        if len(shape) not in (2, len(given)) or (found != width and found % stack.width):
            raise UnsupportedModelError(
                f"a block of {stack.path} is given {given} and gives {tuple(shape)} at layer {layer}: these are not "
                "hidden states; accepted: blocks that give a tensor, or a tuple that begins with them; name another "
                "stack with blocks='...'"
            )


def _check_order(moved: list[int], tokens: int, stack: BlockStack) -> None:
    """See that another last token is another last state; `moved` are the places where states differ then.

    Raises:
        UnsupportedModelError: it is a state elsewhere, or none, so that states are not in the order of their tokens.
    """
    if tokens - 1 not in moved:
        where = f"has state {moved[0]}, counted from 0," if moved else "has no state"
        raise UnsupportedModelError(
            f"the last of {tokens} tokens {where} of those that the first block of {stack.path} is given: the states "
            "are not in the order of the tokens; name a stack that keeps the order with blocks='...'"
        )


def _called_instead(model: nn.Module, run: Callable[[], object]) -> str:
    """What can be passed where no block of a stack is called: the lists whose modules a forward pass does call."""
    lists = {name: each for name, each in model.named_modules() if isinstance(each, (nn.ModuleList, nn.Sequential))}
    called: dict[str, str] = {}
    with contextlib.ExitStack() as hooks:
        for name, each in lists.items():
            for block in each if len(each) > 1 and name else ():

                def note(module: nn.Module, args: Any, name: str = name) -> None:
                    called[name] = type(module).__name__

                hooks.callback(bare(block).register_forward_pre_hook(note).remove)
        run()
    if not called:
        return "accepted: models that call their blocks as modules, block(...) and not block.forward(...)"
    paths = ", ".join(f"{name} ({len(lists[name])} x {kind})" for name, kind in called.items())
    return f"pass one of these paths as TopologyConfig(blocks=...): {paths}"


def _look(model: nn.Module, stack: BlockStack, inputs: dict[str, Any]) -> Seen:
    shapes: dict[int, torch.Size] = {}
    failures: list[BaseException] = []
    first: list[Tensor] = []

    def take(layer: int, hidden: Any) -> None:
        with _kept(failures):
            state = first_tensor(hidden)
            shapes[layer] = state.shape
            if first:
                _check_new(first[-1], state, hidden, layer, stack)
            first[1:] = [state.detach().clone()]

    with listening(stack, None, "block", take) as calls:
        run_forward(model, stack, inputs, failures)
    return Seen(shapes, first[0] if first else torch.empty(0), tuple(calls.made))


@contextlib.contextmanager
def _kept(failures: list[BaseException]) -> Any:
    """Keep what is raised inside until the pass that other ranks may share is over."""
    try:
        yield
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - raised by `run_forward`
        failures.append(error)


def _layout(one: Tensor, twice: Tensor, changed: Tensor, tokens: int, stack: BlockStack) -> StateLayout:
    """The layout, from what the first block is given for a prompt, for it twice, and for it with another last token."""
    axes = range(one.ndim)
    rows = [axis for axis in axes if twice.ndim == one.ndim and (one.shape[axis], twice.shape[axis]) == (1, 2)]
    if len(rows) == 1 and one.shape == changed.shape:
        moved = {axis: _moved(one, changed, axis) for axis in axes if axis not in rows and one.shape[axis] >= tokens}
        found = [(axis, places[0] - (tokens - 1)) for axis, places in moved.items() if len(places) == 1]
        exact = [axis for axis in moved if one.shape[axis] == tokens]
        longer = [(axis, front) for axis, front in found if one.shape[axis] > 1 and front >= 0]
        if len(longer) == 1:
            return StateLayout(rows[0], *longer[0])
        if len(exact) == 1:  # one token alone, or an embedding in which neighbours see each other
            return StateLayout(rows[0], exact[0])
    raise UnsupportedModelError(
        f"the first block of {stack.path} is given {tuple(one.shape)} for one row of {tokens} tokens and "
        f"{tuple(twice.shape)} for two, and which state is of which token cannot be told; name a stack with one state "
        "for each token with blocks='...'"
    )


def _moved(one: Tensor, changed: Tensor, axis: int) -> list[int]:
    """Where along an axis two states differ."""
    return (one != changed).movedim(axis, 0).flatten(1).any(dim=1).nonzero().flatten().tolist()


def _another(token_ids: tuple[int, ...]) -> int:
    """A token that is not the last one: one of the prompt, else a neighbour."""
    last = token_ids[-1]
    return next((token for token in token_ids if token != last), last - 1 if last > 0 else last + 1)
