"""WeightPath: how far the trained weights have moved, step by step, on a fixed random subset of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

ENTRIES = 1 << 16
TENSORS = 256


class WeightPath:
    """The length of the path that the trained weights take: the sum over optimizer steps of |w(t) - w(t-1)|.

    It is estimated on a fixed subset of the weights that require a gradient: up to 256 tensors, drawn in proportion
    to their size where there are more, and up to 65,536 of their entries, so that each weight is as likely as any
    other; the norm of their change, times the root of the inverse of their share, estimates that of all. With LoRA
    these are the adapter's weights. Of a sharded model the weights on this process stand for all of them.

    Reading costs one small gather for each tensor and never waits for the device; no random state is touched, and
    nothing of the model is kept but references to its parameters.

    Args:
        model: the model in training.
        seed: which weights are followed.
        start: length of the path before, in a run that is resumed.
        entries: how many are followed at most.
    """

    def __init__(self, model: nn.Module, *, seed: int, start: float = 0.0, entries: int = ENTRIES) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
        sizes = np.array([_local(p).numel() for p in parameters], dtype=np.int64)
        self._scale = 0.0
        self._chosen: list[tuple[nn.Parameter, Tensor]] = []
        self._last: Tensor | None = None
        self._length: Tensor | None = None
        total = int(sizes.sum()) if len(sizes) else 0
        if total == 0:
            return
        generator = np.random.default_rng(seed)
        tensors = np.flatnonzero(sizes)
        if len(tensors) > TENSORS:
            share = sizes[tensors] / total
            tensors = np.sort(generator.choice(tensors, size=TENSORS, replace=False, p=share))
        wanted = sizes[tensors] * min(1.0, entries / int(sizes[tensors].sum()))
        count = 0
        for tensor, expected in zip(tensors.tolist(), wanted.tolist(), strict=True):
            # rounded up or down at random, so that small tensors are followed in proportion, too
            number = min(int(expected) + int(generator.random() < expected % 1), int(sizes[tensor]))
            if number > 0:
                places = np.sort(generator.choice(int(sizes[tensor]), size=number, replace=False))
                device = _local(parameters[tensor]).device
                self._chosen.append((parameters[tensor], torch.from_numpy(places).to(device)))
                count += number
        if count:
            self._scale = math.sqrt(total / count)
            self._last = self._read()
            wide = torch.float32 if self._last.device.type == "mps" else torch.float64
            self._length = torch.tensor(start, dtype=wide, device=self._last.device)

    def step_ended(self) -> None:
        """Add the newest step."""
        if self._last is None or self._length is None:
            return
        now = self._read()
        self._length += torch.linalg.vector_norm(now - self._last, dtype=self._length.dtype) * self._scale
        self._last = now

    def length(self) -> float | None:
        """The path since step 0, in the units of the weights; None when none is trained. Waits for the device."""
        return None if self._length is None else float(self._length.item())

    @torch.no_grad()
    def _read(self) -> Float[Tensor, " entries"]:
        device = self._chosen[0][1].device
        return torch.cat([_local(p).reshape(-1)[places].to(device, torch.float32) for p, places in self._chosen])


def _local(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process holds: of FSDP2's DTensor, of a ZeRO-3 partition, else all of it."""
    partition = getattr(parameter, "ds_tensor", None)
    if isinstance(partition, Tensor):
        return partition.detach()
    local = getattr(parameter, "to_local", None)
    held: Tensor = local() if callable(local) else parameter
    return held.detach()
