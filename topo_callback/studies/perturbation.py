"""Next-token distributions of a prompt whose last token is pushed at one layer, and how far they move."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import BlockStack, make_batches, padding_id, read_batch
from topo_callback.capture.blocks import bare, find_language_model
from topo_callback.errors import UnsupportedModelError


@dataclass(frozen=True)
class _Sequences:
    """One prompt, repeated: what `make_batches` needs of a probe."""

    token_ids: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


def divergences(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, " others"]:
    """KL(p_0 || p_i) of the distributions that rows of logits stand for, against the first row, in nats, at least 0.

    In float64 (float32 on a device without); NaN where a logit of either row is NaN.
    """
    wide = logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
    log_p = torch.log_softmax(wide, dim=1)
    terms = torch.where(log_p[0] == -torch.inf, 0.0, log_p[0].exp() * (log_p[0] - log_p[1:]))  # 0 log 0 = 0
    return terms.sum(dim=1).clamp(min=0.0)


def perturbed_logits(
    model: nn.Module,
    stack: BlockStack,
    layer: int,
    token_ids: tuple[int, ...],
    shifts: Float[Tensor, "rows width"],
    *,
    batch_rows: int,
) -> Float[Tensor, "rows_and_one vocabulary"]:
    """Next-token logits after one prompt, as it is and with each shift added to its last token at a layer.

    To be called inside `quiet(model)`. Every forward pass holds at least two rows of equal length, one of them left as
    it is, so that no row is padded and rounding is alike; ceil(rows / (batch_rows - 1)) passes of the prompt's tokens.

    Args:
        layer: 0 for the embedding, i for the output of block i.
        token_ids: the tokens of the prompt.
        shifts: in activation units, on the model's device.
        batch_rows: rows of a forward pass, at least 2.

    Raises:
        UnsupportedModelError: the model gives no logits [rows, tokens, vocabulary].
    """
    found: list[Tensor] = []
    for part in torch.split(shifts, max(1, batch_rows - 1)):
        rows = len(part) + 1
        sequences = _Sequences((token_ids,) * rows, (len(token_ids),) * rows)
        (batch,) = make_batches(sequences, rows, "last_token", pad_id=padding_id(model))
        given: list[Tensor] = []
        with _shifted(stack, layer, torch.cat([torch.zeros_like(part[:1]), part])), _logits(model, given):
            read_batch(model, stack, batch, layers=(layer,))
        if len(given) != 1 or given[0].ndim != 3 or len(given[0]) != rows:
            raise UnsupportedModelError("the model gives no logits [rows, tokens, vocabulary]")
        last = given[0][:, -1].float()
        found += [last[:1]] * (not found) + [last[1:]]
    return torch.cat(found)


@contextlib.contextmanager
def _shifted(stack: BlockStack, layer: int, shifts: Float[Tensor, "rows width"]) -> Iterator[None]:
    """Add a shift to the last token of every row at a layer, out of place, while this lasts."""

    def add(hidden: Any) -> Any:
        if isinstance(hidden, (tuple, list)):
            return type(hidden)([add(hidden[0]), *hidden[1:]])
        moved = hidden.clone()
        moved[:, -1] = (hidden[:, -1].to(shifts.dtype) + shifts.to(hidden.device)).to(hidden.dtype)
        return moved

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (add(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": add(kwargs["hidden_states"])}

    if layer == 0:
        handle = bare(stack.blocks[0]).register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = bare(stack.blocks[layer - 1]).register_forward_hook(lambda module, args, output: add(output))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _logits(model: nn.Module, given: list[Tensor]) -> Iterator[None]:
    """Collect the logits of the forward passes while this lasts."""

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor):
            given.append(logits)

    handle = find_language_model(model).register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()
