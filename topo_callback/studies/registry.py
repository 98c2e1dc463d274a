"""The register of studies: numbers that need further forward passes, of two kinds, and what they are given.

A study is off unless `TopologyConfig.studies` names it, because it costs the training thread forward passes. What it
raises becomes the reason why its numbers are missing; the sample and the training go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import BlockStack, ProbeBatch
from topo_callback.config import STUDIES
from topo_callback.devices import sent, widest
from topo_callback.measures.missing import Number
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant


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
        return sent(self.clouds[row], device).to(widest(device))


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


StudyNumbers = Mapping[str, Mapping[int | None, Number]]
"""Measure -> layer, None for the whole depth -> the number, or `Missing` with the reason why there is none."""


class NoStudyError(Exception):
    """A study cannot be made of this probe; the message is the reason that its numbers get."""


@dataclass(frozen=True)
class ProbeStudy:
    """A study of variants of the probe, which are read as the probe itself is: same batches, ranks and taps.

    Attributes:
        name: one of `STUDIES`.
        measures: names of its numbers that a layer has.
        probes: from the probe and a seed to the variants to read; equal on every rank, after a resume too. Raises
            NoStudyError when there is no way to make them. A variant that several studies ask for is read once.
        numbers: from the context, the reading of the probe and those of the variants, in their order, to the numbers,
            on the first rank. Runs inside `quiet(model)` with autocast off.
        token_measures: the numbers of each prompt's tokens that the readings shall hold.
        whole: names of its numbers that only the whole depth has.
    """

    name: str
    measures: tuple[str, ...]
    probes: Callable[[Probe, int], tuple[ProbeVariant, ...]]
    numbers: Callable[[StudyContext, Reading, tuple[Reading, ...]], StudyNumbers]
    token_measures: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelStudy:
    """A study that runs the model by itself, on the first rank, when one process holds the whole of it.

    Attributes:
        name: one of `STUDIES`.
        measures: names of its numbers that a layer has.
        run: from the context to the numbers, inside `quiet(model)` with autocast off. Leaves the model, its hooks and
            its buffers exactly as they were, also when it raises.
        whole: names of its numbers that only the whole depth has.
    """

    name: str
    measures: tuple[str, ...]
    run: Callable[[ModelContext], StudyNumbers]
    whole: tuple[str, ...] = ()


Study = ProbeStudy | ModelStudy
studies: dict[str, Study] = {}


def register(study: Study) -> None:
    """Make a study known under its name.

    Raises:
        ValueError: the name is taken, or is not in `STUDIES`, or a number of it is another study's.
    """
    if study.name in studies or study.name not in STUDIES:
        raise ValueError(f"a study named {study.name!r} is registered already, or is not in `STUDIES` of config.py")
    taken = {name for other in studies.values() for name in (*other.measures, *other.whole)}
    if taken & {*study.measures, *study.whole}:
        raise ValueError(f"the study {study.name!r} has a number of the name of another study's")
    studies[study.name] = study


def by_layer(
    context: StudyContext, function: Callable[[int], Mapping[str, Number]]
) -> dict[str, dict[int | None, Number]]:
    """Measure -> layer -> number, from a function of a layer's row in the readings that returns {measure: number}."""
    found: dict[str, dict[int | None, Number]] = {}
    for row, layer in enumerate(context.layers):
        for name, value in function(row).items():
            found.setdefault(name, {})[layer] = value
    return found
