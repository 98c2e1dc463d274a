"""WeightPath: how far the trained weights have moved, step by step and layer by layer, on a fixed random subset."""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from topo_callback.devices import HostCopies, sent, widest
from topo_callback.measures.layer_significance import parameter_change

ENTRIES = 1 << 16
TENSORS = 256


class WeightPath:
    """The length of the path that the trained weights take: the sum over optimizer steps of |w(t) - w(t-1)|.

    It is estimated on a fixed subset of the weights that require a gradient: up to 256 tensors, drawn in proportion
    to their size where there are more, and up to 65,536 of their entries, so that each weight is as likely as any
    other; the norm of their change, times the root of the inverse of their share, estimates that of all. With LoRA
    these are the adapter's weights. Of a sharded model the weights on this process stand for all of them.

    Reading costs one small gather for each tensor and never waits for the device; no random state is touched, and
    nothing of the model is kept but references to its parameters and what the followed entries were at the start.
    An entry that is not finite at a step counts again once it is, from its last finite value: one bad step does not
    cost the path of the steps after it.

    Args:
        model: the model in training.
        seed: which weights are followed.
        start: length of the path before, in a run that is resumed.
        entries: how many are followed at most.
        blocks: dotted path of the block stack, for the change of each layer; without it there is none.

    Attributes:
        choice: SHA-256 over which entries are followed, hexadecimal; equal where two runs follow the same ones.
        first: float32 [entries], what the followed entries were when this object was made. Set it to what they were
            earlier, in a run that is resumed, or to None where that is not known.
        moved: length of the newest step, as a tensor on the model's device; None before the first, and where no
            weight is followed.
    """

    def __init__(
        self, model: nn.Module, *, seed: int, start: float = 0.0, entries: int = ENTRIES, blocks: str | None = None
    ) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and p.is_floating_point()]
        parameters = [p for _, p in named]
        sizes = np.array([_local(p).numel() for p in parameters], dtype=np.int64)
        self.choice = ""
        self.first: Float32[np.ndarray, " entries"] | None = None
        self._scale = 0.0
        self._chosen: list[tuple[nn.Parameter, Tensor]] = []
        self._names: list[str] = []
        self._block = re.compile(re.escape(blocks) + r"\.(\d+)\.") if blocks is not None else None
        self._sizes: dict[int, int] = {}
        for (name, _), size in zip(named, sizes.tolist(), strict=True):
            layer = self._layer_of(name)
            if layer is not None:
                self._sizes[layer] = self._sizes.get(layer, 0) + size
        self._last: Tensor | None = None  # the last finite values
        self._newest: Tensor | None = None
        self._seen: tuple[np.ndarray, float] | None = None  # since the last `step_ended`
        self._length: Tensor | None = None
        self.moved: Tensor | None = None
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
        choice = hashlib.sha256()
        for tensor, expected in zip(tensors.tolist(), wanted.tolist(), strict=True):
            # rounded up or down at random, so that small tensors are followed in proportion, too
            number = min(int(expected) + int(generator.random() < expected % 1), int(sizes[tensor]))
            if number > 0:
                places = np.sort(generator.choice(int(sizes[tensor]), size=number, replace=False))
                device = _local(parameters[tensor]).device
                self._chosen.append((parameters[tensor], sent(torch.from_numpy(places), device)))
                self._names.append(named[tensor][0])
                choice.update(f"{named[tensor][0]} {int(sizes[tensor])}\n".encode())
                choice.update(places.astype("<i8").tobytes())
                count += number
        if count:
            self._scale = math.sqrt(total / count)
            self.choice = choice.hexdigest()
            self._last = self._read()
            self._newest = self._last
            self.first = self._last.cpu().numpy().copy()
            wide = widest(self._last.device)
            self._length = torch.tensor(start, dtype=wide, device=self._last.device)

    def step_ended(self) -> None:
        """Add the newest step."""
        if self._last is None or self._length is None:
            return
        self._seen = None
        now = self._newest = self._read()
        moved = now - self._last
        moved = torch.where(moved.isfinite(), moved, 0.0)
        self.moved = torch.linalg.vector_norm(moved, dtype=self._length.dtype) * self._scale
        self._length += self.moved
        self._last = torch.where(now.isfinite(), now, self._last)

    @torch.no_grad()
    def gradient_norm(self) -> Float[Tensor, ""] | None:
        """The norm of the gradients there are now, estimated as a step is, as a tensor on the model's device.

        Weights without a gradient count as 0. None where no weight that is followed has one.
        """
        held = [(p.grad, places) for p, places in self._chosen if p.grad is not None]
        if not held or self._length is None:
            return None
        entries = [_local(gradient).reshape(-1)[places] for gradient, places in held]
        device, wide = self._length.device, self._length.dtype
        norm: Tensor = torch.linalg.vector_norm(torch.cat([each.to(device, wide) for each in entries]))
        return norm * self._scale

    def length(self) -> float | None:
        """The path since step 0, in the units of the weights; None when none is trained, or none of them is finite now.

        Waits for the device.
        """
        found = self._arrived()
        return None if found is None or not np.isfinite(found[0]).any() else found[1]

    def layer_changes(self) -> dict[int, tuple[float, float]] | None:
        """How far the trained weights of each layer are from where they were at the start, as norms.

        |w_now - w_first| over all trained weights of block i, layer i, estimated from those of them that are followed
        (times the root of the inverse of their share), as they were at the last `step_ended`. Weights outside the
        blocks belong to no layer. Waits for the device, and copies the followed entries from it.

        Returns:
            layer -> (norm of the change, in the units of the weights; that norm / norm at the start, NaN where that
            is 0), ascending; layers of which no entry is followed are left out. None where the start is not known, or
            the blocks are not.
        """
        found = self._arrived()
        if found is None or self.first is None or self._block is None:
            return None
        ends = np.cumsum([len(places) for _, places in self._chosen])[:-1]
        first, now = (
            dict(zip(self._names, np.split(entries, ends), strict=True)) for entries in (self.first, found[0])
        )
        followed: dict[int, int] = {}
        for name, values in first.items():
            layer = self._layer_of(name)
            if layer is not None:
                followed[layer] = followed.get(layer, 0) + len(values)
        return {
            layer: (change * math.sqrt(self._sizes[layer] / followed[layer]), relative)
            for layer, (change, relative) in parameter_change(first, now, self._layer_of).items()
        }

    def _arrived(self) -> tuple[Float32[np.ndarray, " entries"], float] | None:
        """What the followed entries were at the last `step_ended`, and the path up to there; one wait in a step."""
        if self._newest is None or self._length is None:
            return None
        if self._seen is None:
            entries, length, copies = np.empty(len(self._newest), dtype=np.float32), np.empty(()), HostCopies()
            copies.into(entries, self._newest)
            copies.into(length, self._length)
            copies.wait()
            self._seen = entries, float(length)
        return self._seen

    def _layer_of(self, name: str) -> int | None:
        """The layer of a parameter by its name; None outside the blocks."""
        found = None if self._block is None else self._block.match(name)
        return None if found is None else int(found.group(1)) + 1

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
