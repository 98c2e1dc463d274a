"""What the hooks of one forward pass take of its layers: the points of the rows, and what goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import first_tensor
from topo_callback.capture.pooling import Pooling
from topo_callback.capture.token_cloud import TokenCloud
from topo_callback.errors import USERS_OWN, UnsupportedModelError


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
    ) -> None:
        """
        Args:
            pooling: of the batch.
            device: where the points go.
            failures: what goes wrong is put here, for `run_forward` to raise when the pass is over.
            dtypes, token_measures, token_cloud: as in `read_batch`.
        """
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
                point = torch.cat([point, self._pooling.token_numbers(state, self._token_measures)], dim=1)
            if self._token_cloud is not None:
                self._pooling.take_tokens(layer, state, self._token_cloud)
            self._points[layer] = point.to(self._device)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - raised when the pass that other ranks may share is over
            self._failures.append(error)

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
