"""What a study is given: readings of the probe and of its variants, and for some the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import BlockStack, ProbeBatch
from topo_callback.probe import Probe


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model makes of a probe, or of a variant of it, at one step.

    Attributes:
        clouds: float32 [layers, points, width], finite; of the probe on the model's device, of a variant on the CPU.
        points: the places in the probe of the rows of a cloud.
        tokens: numbers of each prompt's tokens that were asked for, name -> float32 [layers, points] on the CPU; NaN
            where undefined.
    """

    clouds: Float[Tensor, "layers points width"]
    points: tuple[int, ...]
    tokens: Mapping[str, Float[Tensor, "layers points"]] = field(default_factory=dict)

    def cloud(self, row: int, device: torch.device) -> Float[Tensor, "points width"]:
        """The points of the row-th layer on a device, in float64 (float32 on one that has no float64)."""
        return self.clouds[row].to(device).to(torch.float32 if device.type == "mps" else torch.float64)


@dataclass(frozen=True, eq=False)
class StudyContext:
    """What holds for all numbers of a study at one step.

    Attributes:
        probe: the fixed prompts, in tokens.
        layers: numbers of the layers, in the order of the rows of every reading. Layers with a value that is not
            finite are not among them.
        step: optimizer steps done.
        seed: for random numbers of a study, drawn from a generator of its own.
        device: where to compute: that of the model.
        neighbours: k of the nearest-neighbour graphs.
        pooling: how a prompt becomes one point.
    """

    probe: Probe
    layers: tuple[int, ...]
    step: int
    seed: int
    device: torch.device
    neighbours: int
    pooling: str


@dataclass(frozen=True, eq=False)
class ModelContext(StudyContext):
    """What a study of the model itself is given beside that. It runs inside `quiet(model)`.

    Attributes:
        model: the model as the trainer's events give it; whole in this process. Left exactly as it was.
        stack: its blocks.
        batches: the probe, as it was read.
        tap: where in a block a layer is read.
        reading: the reading of the probe.
        memory: what the study wants to keep between the samples of one process; empty when a run is resumed.
    """

    model: nn.Module
    stack: BlockStack
    batches: tuple[ProbeBatch, ...]
    tap: str
    reading: Reading
    memory: dict[str, Any]
