"""Vectors of the residual stream read through a model's own end: what follows its last block, up to the logits.

The end is never taken apart. A forward pass of one token is made as always, and what the last block gives is replaced
by the vectors; so norm, head, scales and caps are the model's own, wherever an architecture or a wrapper keeps them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.calls import first_tensor
from topo_callback.capture.forward import decoder_start, run_forward, takes
from topo_callback.capture.model_facts import model_device
from topo_callback.devices import sent
from topo_callback.errors import USERS_OWN, UnsupportedModelError

_TOKEN = 1  # of the pass; no state of it is left where the vectors take over
_SAME = 0.05  # of the spread of logits: bfloat16 rounds otherwise in a batch of another size


def logits_of_vectors(
    model: nn.Module, stack: BlockStack, vectors: Float[Tensor, "rows width"], *, wide: bool = False
) -> Float[Tensor, "rows vocabulary"]:
    """Next-token logits, float32, of vectors that take the place of what the last block gives.

    To be called inside `quiet(model)`. One forward pass of one token, with norm and head on as many rows as there are
    vectors, in the model's own dtype and on its devices.

    Args:
        wide: all of the pass has so many rows, for a model that goes by the number of its inputs; from `check_lens`.

    Raises:
        UnsupportedModelError: the model gives no logits [rows, 1, vocabulary] of them.
    """
    logits = _pass(model, stack, vectors, rows=len(vectors) if wide else 1)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != (len(vectors), 1):
        raise UnsupportedModelError("the model gives no logits [rows, tokens, vocabulary] of them")
    return logits[:, 0].float()


def check_lens(model: nn.Module, stack: BlockStack) -> bool:
    """Make sure of `logits_of_vectors`: the last block's own state must give the model's own logits, others others.

    Two to four passes of one token, inside `quiet(model)`.

    Returns:
        Whether the passes have to be `wide`.

    Raises:
        UnsupportedModelError: the vectors are not read; the message is the reason.
    """
    own: list[Tensor] = []
    logits = _pass(model, stack, None, own=own)
    if logits is None or logits.ndim != 3 or not own or own[0].ndim != 3:
        raise UnsupportedModelError("the model gives no logits [rows, tokens, vocabulary]")
    state = own[0][:, -1].float()
    others = torch.cat([state, -state, state.roll(1, dims=1)])
    try:
        _check(logits_of_vectors(model, stack, others), logits[0, -1].float())
    except (*USERS_OWN, torch.OutOfMemoryError):
        raise
    except BaseException:  # noqa: BLE001 - of a model's own code, which may count its inputs
        _check(logits_of_vectors(model, stack, others, wide=True), logits[0, -1].float())
        return True
    return False


def _check(found: Float[Tensor, "rows vocabulary"], own: Float[Tensor, " vocabulary"]) -> None:
    if not bool(found.isfinite().all()):
        raise UnsupportedModelError("its logits of them are not finite")
    spread = float(found[0].max() - found[0].min())
    apart = [float((found[0] - each.to(found)).abs().max()) for each in (own, *found[1:])]
    if apart[0] > _SAME * spread or min(apart[1:]) <= apart[0]:
        raise UnsupportedModelError("its logits do not follow from what its last block gives")


def _pass(
    model: nn.Module, stack: BlockStack, vectors: Tensor | None, *, rows: int = 1, own: list[Tensor] | None = None
) -> Float[Tensor, "rows tokens vocabulary"] | None:
    """The logits of a pass of one token; None where there are none. What the last block gave is put into `own`."""
    device = model_device(model)
    inputs: dict[str, Any] = {"input_ids": torch.full((rows, 1), _TOKEN, device=device)}
    inputs |= decoder_start(model, rows, device)
    inputs |= {name: value for name, value in {"use_cache": False, "logits_to_keep": 1}.items() if takes(model, name)}
    given: list[Tensor] = []
    failures: list[BaseException] = []
    with _last_block(stack, vectors, own), logits_given(model, given):
        run_forward(model, stack, inputs, failures)
    return given[-1] if given else None


@contextlib.contextmanager
def _last_block(stack: BlockStack, vectors: Tensor | None, own: list[Tensor] | None) -> Iterator[None]:
    def replaced(hidden: Any) -> Any:
        if isinstance(hidden, (tuple, list)):
            return type(hidden)([replaced(hidden[0]), *hidden[1:]])
        assert vectors is not None
        return sent(vectors[:, None], hidden.device).to(hidden.dtype)

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if own is not None:
            own.append(first_tensor(output).detach().clone())
        return None if vectors is None else replaced(output)

    handle = bare(stack.blocks[-1]).register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def logits_given(model: nn.Module, given: list[Tensor]) -> Iterator[None]:
    """Collect the logits of the forward passes while this lasts."""

    def after(module: nn.Module, args: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor):
            given.append(logits.detach())

    handle = find_language_model(model).register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()
