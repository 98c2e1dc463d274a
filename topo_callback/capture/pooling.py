"""From the tokens of a prompt to its point, inside a hook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.capture.batches import ProbeBatch
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.token_cloud import TokenCloud
from topo_callback.capture.token_numbers import token_numbers
from topo_callback.errors import UnsupportedModelError


class Pooling:
    """Turns what a block gives into the points of a batch, and into numbers of their tokens."""

    def __init__(self, stack: BlockStack, batch: ProbeBatch) -> None:
        self._stack = stack
        self._batch = batch
        first, end = batch.spans.unbind(1)
        self._single = bool((end - first == 1).all())

    def points(self, hidden: Tensor) -> Float[Tensor, "rows width"]:
        """The point of each row, float32: one token's vector, or the mean of those in the row's span.

        Raises:
            UnsupportedModelError: not the hidden states of the whole batch.
        """
        hidden = self._rows(hidden)
        if self._stack.kind == "encoder-decoder":
            return hidden[:, -1].float()
        batch, shift, where = self._batch, self._shift(hidden), hidden.device
        first, end = batch.spans.unbind(1)
        if self._single:
            return hidden[torch.arange(len(batch)).to(where), (end - 1 + shift).to(where)].float()
        place = torch.arange(-shift, batch.input_ids.shape[1])
        inside = ((place >= first[:, None]) & (place < end[:, None])).to(where)
        # not a product with the mask: 0 * NaN in the padding would spoil the row
        total = torch.where(inside[:, :, None], hidden, 0).sum(1, dtype=torch.float32)
        return total / (end - first).to(where)[:, None]

    def token_numbers(self, hidden: Tensor, names: Sequence[str]) -> Float[Tensor, "rows measures"]:
        """Numbers of each row's tokens, from the first up to and with the last one of its span; see `token_numbers`.

        NaN for the decoder of an encoder-decoder, which is given one token.
        """
        hidden = self._rows(hidden)
        if self._stack.kind == "encoder-decoder":
            return torch.full((len(hidden), len(names)), torch.nan, dtype=torch.float32, device=hidden.device)
        return token_numbers(hidden[:, self._shift(hidden) :], self._batch.spans[:, 1], names)

    def take_tokens(self, layer: int, hidden: Tensor, cloud: TokenCloud) -> None:
        """Have a token cloud take the states of its tokens at this layer."""
        hidden = self._rows(hidden)
        cloud.take(layer, hidden, self._shift(hidden), self._batch)

    def _shift(self, hidden: Tensor) -> int:
        """How many virtual tokens of prompt tuning come first."""
        return hidden.shape[1] - self._batch.input_ids.shape[1]

    def _rows(self, hidden: Tensor) -> Float[Tensor, "rows tokens width"]:
        batch = self._batch
        if hidden.ndim == 2 and len(hidden) % len(batch) == 0 and len(hidden) >= batch.input_ids.numel():
            # OPT runs its feed-forward on all tokens in one row
            hidden = hidden.reshape(len(batch), -1, hidden.shape[1])
        if hidden.ndim != 3 or hidden.shape[0] != len(batch):
            raise UnsupportedModelError(
                f"a block of {self._stack.path} gives {tuple(hidden.shape)} instead of [rows, tokens, width]; if the "
                "model removes padding, load it with attn_implementation='sdpa'"
            )
        return hidden
