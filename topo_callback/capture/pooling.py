"""What the hooks of one forward pass take of its layers: the point of each prompt, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.capture.batches import ProbeBatch
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import first_tensor
from topo_callback.capture.layout import StateLayout
from topo_callback.capture.tokens import TokenCloud, token_numbers
from topo_callback.devices import sent
from topo_callback.errors import USERS_OWN, UnsupportedModelError


class Pooling:
    """Turns what a block gives into the points of a batch, and into numbers of their tokens."""

    def __init__(self, stack: BlockStack, batch: ProbeBatch, layout: StateLayout) -> None:
        self._decoder = stack.kind == "encoder-decoder"  # given its start token only
        self._batch = batch
        self._layout = layout
        self._tokens = 1 if self._decoder else batch.input_ids.shape[1]
        first, end = batch.spans.unbind(1)
        self._single = bool((end - first == 1).all())
        self._sent: dict[tuple[str, torch.device], Tensor] = {}  # once in a pass, not in each layer

    def points(self, hidden: Tensor) -> Float[Tensor, "rows width"]:
        """The point of each row, float32: one token's vector, or the mean of those in the row's span.

        Raises:
            UnsupportedModelError: not the hidden states of the whole batch.
        """
        hidden = self.arranged(hidden)
        batch, front, where = self._batch, self._front(hidden), hidden.device
        if self._decoder:
            return hidden[:, front].float()
        first, end = batch.spans.unbind(1)
        if self._single:
            rows = torch.arange(len(batch), device=where)
            return hidden[rows, self._on("end", end, where) - 1 + front].float()
        place = torch.arange(hidden.shape[1], device=where) - front
        first, end = self._on("first", first, where)[:, None], self._on("end", end, where)[:, None]
        inside = (place >= first) & (place < end)
        # not a product with the mask: 0 * NaN in the padding would spoil the row
        total = torch.where(inside[:, :, None], hidden, 0).sum(1, dtype=torch.float32)
        return total / (end - first)

    def token_numbers(self, hidden: Tensor, names: Sequence[str]) -> Float[Tensor, "rows measures"]:
        """Numbers of each row's tokens, from the first up to and with the last one of its span; see `token_numbers`.

        NaN for the decoder of an encoder-decoder, which is given one token.
        """
        hidden = self.arranged(hidden)
        if self._decoder:
            return torch.full((len(hidden), len(names)), torch.nan, dtype=torch.float32, device=hidden.device)
        front = self._front(hidden)
        counts = self._on("end", self._batch.spans[:, 1], hidden.device)
        return token_numbers(hidden[:, front : front + self._tokens], counts, names)

    def take_tokens(self, layer: int, hidden: Tensor, cloud: TokenCloud) -> None:
        """Have a token cloud take the states of its tokens at this layer."""
        hidden = self.arranged(hidden)
        cloud.take(layer, hidden, self._front(hidden), self._batch)

    def _on(self, name: str, values: Tensor, device: torch.device) -> Tensor:
        """Values of the batch on a device."""
        if (name, device) not in self._sent:
            self._sent[name, device] = sent(values, device)
        return self._sent[name, device]

    def _front(self, hidden: Tensor) -> int:
        return self._layout.first(hidden.shape[1], self._tokens)

    def arranged(self, hidden: Tensor) -> Float[Tensor, "rows positions width"]:
        """The states of the batch with rows first and positions next."""
        return self._layout.arranged(hidden, len(self._batch), self._tokens)


class Taking:
    """Called with the number and the state of each layer; turns tokens into points at once and keeps no state."""

    def __init__(
        self,
        pooling: Pooling,
        device: torch.device,
        failures: list[BaseException],
        dtypes: dict[int, torch.dtype] | None = None,
        token_measures: Sequence[str] = (),
        token_cloud: TokenCloud | None = None,
        *,
        whole: Pooling | None = None,
        before: Mapping[int, Tensor] | None = None,
    ) -> None:
        """
        Args:
            pooling: of the batch, or of what comes behind its shared beginning.
            device: where the points go.
            failures: what goes wrong is put here, for `run_forward` to raise when the pass is over.
            dtypes, token_measures, token_cloud: as in `read_batch`.
            whole: of the batch with its shared beginning; None: it has none.
            before: the states of that beginning by layer, where those of all tokens are wanted.
        """
        self._whole, self._before = whole or pooling, before or {}
        self._pooling, self._device, self._failures = pooling, device, failures
        self._dtypes, self._token_measures, self._token_cloud = dtypes, token_measures, token_cloud
        self._points: dict[int, Tensor] = {}

    def __call__(self, layer: int, hidden: Any) -> None:
        if self._failures:
            return
        try:
            state = first_tensor(hidden)
            if self._dtypes is not None:
                self._dtypes[layer] = state.dtype
            point = self._pooling.points(state)
            if self._token_measures:
                point = torch.cat(
                    [point, self._whole.token_numbers(self._all(layer, state), self._token_measures)], dim=1
                )
            if self._token_cloud is not None:
                self._whole.take_tokens(layer, self._all(layer, state), self._token_cloud)
            self._points[layer] = point.to(self._device)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - raised when the pass that other ranks may share is over
            self._failures.append(error)

    def _all(self, layer: int, state: Tensor) -> Tensor:
        """The states of all tokens, also of the shared beginning."""
        if layer not in self._before:
            return state
        rest, before = self._pooling.arranged(state), self._before[layer]
        return torch.cat([before.to(rest.device).expand(len(rest), -1, -1), rest], dim=1)

    def columns(self, layers: tuple[int, ...], stack: BlockStack) -> Float[Tensor, "layers rows columns"]:
        """What was taken of these layers, in their order.

        Raises:
            UnsupportedModelError: the forward pass did not come to one of them.
        """
        missing = [layer for layer in layers if layer not in self._points]
        if missing:
            raise UnsupportedModelError(
                f"the forward pass did not reach layer {missing[0]} of {stack.path}; leave it out of layers=..., or "
                "name another stack with blocks='...'"
            )
        return torch.stack([self._points[layer] for layer in layers])
