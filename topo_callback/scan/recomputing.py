"""Recomputing: the sample of one recorded step, measured again from a checkpoint, and what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.libraries import versions
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.scan.checkpoint import CheckpointSeries
from topo_callback.scan.finding import find_series
from topo_callback.scan.opening import check_device
from topo_callback.scan.prompts import Prompts
from topo_callback.scan.scanning import Manner, scan
from topo_callback.scan.training_left import AS_TRAINED, NONE

TOLERANCES = {"float32": 1e-3, "float64": 1e-3}
SHORTER = 5e-2  # of bfloat16 and float16
_SHOWN = 5
_PACKAGES = ("topo_callback", "torch", "transformers", "numpy", "scipy", "numba")


@dataclass(frozen=True)
class Recomputed:
    """What came of reading a checkpoint again.

    Attributes:
        step: of the sample.
        checkpoint: its label.
        compared: numbers of the sample alone that both have; those that compare with earlier samples are left out.
        equal: how many of them are equal to the last bit.
        largest: largest difference, relative to the largest number of that measure over the layers.
        tolerance: of that difference.
        differing: measure, layer (None: the whole depth), recorded and recomputed; the worst first.
        conditions: what was otherwise than in the run, and can round otherwise, in words.
    """

    step: int
    checkpoint: str
    compared: int
    equal: int
    largest: float
    tolerance: float
    differing: tuple[tuple[str, int | None, float, float], ...]
    conditions: tuple[str, ...]

    def in_words(self) -> Iterator[str]:
        """For people."""
        yield (
            f"{self.checkpoint} against the sample of step {self.step}: {self.compared} numbers, {self.equal} equal to "
            f"the last bit, largest relative difference {self.largest:.2g} (tolerance {self.tolerance:g})"
        )
        for each in self.conditions:
            yield f"otherwise than in the run: {each}"
        for measure, layer, recorded, now in self.differing[:_SHOWN]:
            where = "" if layer is None else f" of layer {layer}"
            yield f"NOT as recorded: {measure}{where} is {recorded:.6g} in the record, {now:.6g} now"
        if len(self.differing) > _SHOWN:
            yield f"and {len(self.differing) - _SHOWN} numbers more"


def recompute(
    folder: TrajectoryFolder, name: str, prompts: Prompts, *, device: str = "cpu", tolerance: float | None = None
) -> Recomputed:
    """Read a checkpoint as the run read it, measure it, and compare with the sample of its step. Nothing is kept.

    Args:
        folder: of the run.
        name: of the checkpoint, as `scan` takes it; its step is that of its folder or trainer_state.json, else 0.
        prompts: those of the probe.
        device: where it is read.
        tolerance: largest relative difference; None: 0.001 where the weights are float32, 0.05 for shorter types.

    Raises:
        ConfigurationError: other prompts, a step without a sample, or no single checkpoint. ProbeError: no prompts.
        RecordError: the sample is damaged, or the checkpoint cannot be read.
    """
    check_device(device)
    run = folder.read_run()
    found = find_series([name])
    if len(found) != 1 or len(found[0].checkpoints) != 1:
        raise ConfigurationError(f"{name} is more than one checkpoint; name one of them")
    (checkpoint,) = found[0].checkpoints
    recorded = _recorded(folder, checkpoint.step)
    reading, model = run["reading"], run["model"]
    config = replace(
        TopologyConfig.from_dict(run["config"]),
        probe_batch=reading["probe_batch"], layers=tuple(run["layers"]), blocks=model.get("blocks"),
        pictures=0, page=False, keep_prompts=False, drift_words=0, folder=None,
    )  # fmt: skip
    conditions: dict[str, Any] = {
        "dtype": str(model["dtype"]),
        "autocast": reading.get("autocast") or NONE,
        "attention": reading.get("attention") or AS_TRAINED,
    }
    with tempfile.TemporaryDirectory(prefix="topo-callback-verify-") as scratch:
        series = CheckpointSeries("again", found[0].identity, (checkpoint,))
        (result,) = scan([series], prompts, Path(scratch), config, manner=Manner(devices=(device,)), **conditions)
        if result.skipped:
            raise RecordError(f"{checkpoint.label}: {result.skipped[checkpoint.step][1]}")
        again = Trajectory.load(scratch)
        _refuse_other_prompts(run, again.run)
        now = again.snapshot(checkpoint.step)
    if tolerance is None:
        types = {conditions["dtype"], conditions["autocast"]} - {NONE}
        tolerance = max(TOLERANCES.get(each, SHORTER) for each in types)
    return _compared(recorded, now, checkpoint.label, tolerance, tuple(_otherwise(run, recorded, again.run, device)))


def _recorded(folder: TrajectoryFolder, step: int) -> Snapshot:
    try:
        return Snapshot.from_record(*read_record(folder.step_file(folder.samples, step)))
    except FileNotFoundError:
        if step in folder.steps(folder.spool):
            raise ConfigurationError(
                f"the sample of step {step} still waits to be measured; `topo-callback finish {folder.path}` does it"
            ) from None
        steps = ", ".join(map(str, folder.steps(folder.samples))) or "none"
        raise ConfigurationError(f"{folder.path} has no sample of step {step}; sampled steps: {steps}") from None


def _refuse_other_prompts(run: dict[str, Any], again: dict[str, Any]) -> None:
    there, here = run["probe"]["hash"], again["probe"]["hash"]
    if there != here:
        raise ConfigurationError(
            f"the run read the probe {there[:16]}, these prompts are {here[:16]}; give the file that its probe was "
            "made of, with --prompts, or a run that kept them, with --prompts-of"
        )


def _compared(
    recorded: Snapshot, now: Snapshot, label: str, tolerance: float, conditions: tuple[str, ...]
) -> Recomputed:
    compared = equal = 0
    largest = 0.0
    differing: list[tuple[float, tuple[str, int | None, float, float]]] = []
    for measure in sorted(recorded.numbers.keys() & now.numbers.keys()):
        before, after = recorded.numbers[measure], now.numbers[measure]
        scale = max((abs(each) for each in before.values() if isfinite(each)), default=0.0)
        for layer in before.keys() & after.keys():
            one, other = before[layer], after[layer]
            compared += 1
            if one == other or (isnan(one) and isnan(other)):
                equal += 1
                continue
            away = abs(one - other) / scale if scale else np.inf
            largest = max(largest, float(away))
            if not away <= tolerance:
                differing.append((float(away), (measure, layer, one, other)))
    if not compared:
        raise RecordError(f"step {recorded.step}: {label} has none of the numbers of its sample; nothing is compared")
    differing.sort(key=lambda each: -each[0] if isfinite(each[0]) else -inf)
    return Recomputed(
        recorded.step, label, compared, equal, largest, tolerance, tuple(each for _, each in differing), conditions
    )


def _otherwise(run: dict[str, Any], recorded: Snapshot, again: dict[str, Any], device: str) -> Iterator[str]:
    there = run["model"].get("device")
    if there is None:
        yield f"the run does not say on which device it read, it is {device} here"
    elif there != device.partition(":")[0]:
        yield f"device {there}, now {device}"
    for name in ("dtype", "class", "kind"):
        if run["model"].get(name) != again["model"].get(name):
            yield f"{name} {run['model'].get(name)}, now {again['model'].get(name)}"
    for name in ("attention", "autocast", "rows"):
        if run["reading"].get(name) != again["reading"].get(name):
            yield f"{name} {run['reading'].get(name)}, now {again['reading'].get(name)}"
    said = {**run.get("versions", {}), **recorded.provenance.get("versions", {})}
    for package, version in versions(_PACKAGES).items():
        if said.get(package) not in (None, version):
            yield f"{package} {said[package]}, now {version}"
