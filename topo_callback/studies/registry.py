"""The register of studies: numbers that need further forward passes, of two kinds.

A study is off unless `TopologyConfig.studies` names it, because it costs the training thread forward passes. What it
raises becomes the reason why its numbers are missing; the sample and the training go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from topo_callback.config import STUDIES
from topo_callback.measures.missing import Number
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.views import ModelContext, Reading, StudyContext

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
