"""Findings: what the worker says of the run so far when a sample has been measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import HEADLINE, References, Series, depth_velocity, find_events, layer_velocities
from topo_callback.dynamics.group_series import needed
from topo_callback.dynamics.identity import identity_of
from topo_callback.dynamics.onsets import SIGNALS
from topo_callback.dynamics.series import ANSWERS, FACTS, SIZES
from topo_callback.errors import RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import say

_ALWAYS = 64  # samples up to which the run is looked at after each


def find_in_run(folder: TrajectoryFolder, step: int, config: TopologyConfig) -> dict[str, Any]:
    """The events known after the sample of a step, and the newest velocity; nothing when this is no time to look.

    A run is looked at after each of its first 64 samples, then at every thirty-second part of their number, so that
    the work grows with the samples and not with their square; and after the last step.

    Returns:
        JSON values: `events` and `notes` of `Findings.to_dict`, and `velocity`, the median over layers of displacement
        over what the weights' path predicts, in the newest interval.

    Raises:
        RecordError: run.json or the references are damaged. ReferencesError: the references are of other runs.
    """
    steps = folder.steps(folder.samples)
    if not steps or step != steps[-1]:
        return {}
    count = len(steps)
    last = folder.read_run().get("training", {}).get("max_steps")
    if count > _ALWAYS and count % (count // 32) != 0 and step != last:
        return {}
    run = folder.read_run()
    series = Series.of_snapshots(_slim_snapshots(folder, steps), run, tuple(run["layers"]))
    series = series.beside(folder)
    found = find_events(series, _references(config.references)).to_dict()
    velocity = _newest_velocity(series) if series.steps[-1:] == (step,) else None
    return found if velocity is None else {**found, "velocity": velocity}


def _slim_snapshots(folder: TrajectoryFolder, steps: list[int]) -> list[Snapshot]:
    """The readable snapshots without their arrays, some kilobytes each; each file is read once."""
    found = []
    for step in steps:
        path = folder.step_file(folder.samples, step)
        try:
            found.append(_slim(str(path), path.stat().st_mtime_ns))
        except (RecordError, OSError):
            continue
    return found


@lru_cache(maxsize=1 << 16)
def _slim(path: str, written: int) -> Snapshot:
    """What a series needs of one record; `written` tells a record from one done anew."""
    snapshot = Snapshot.from_record(*read_record(Path(path)))
    names = (*(f"{name}.previous" for name in (HEADLINE, *SIGNALS)), ANSWERS, *SIZES)
    facts = snapshot.provenance.get("facts", {})
    return replace(
        snapshot.without_arrays(),
        numbers={name: by_layer for name, by_layer in snapshot.numbers.items() if name in names or needed(name)},
        missing={},
        errors={},
        provenance={"facts": {name: facts[name] for name in FACTS if name in facts}},
    )


def _newest_velocity(series: Series) -> float | None:
    if HEADLINE not in series.displacement or len(series.path) == 0:
        return None
    newest = float(depth_velocity(layer_velocities(series))[-1])
    return newest if math.isfinite(newest) else None


@lru_cache(maxsize=1)
def _references(path: str | None) -> References | None:
    return None if path is None else References.load(path)


def check_references(path: str, run: Mapping[str, Any]) -> None:
    """Refuse references that the run described by run.json cannot be compared with.

    Raises:
        TopologyError: the file is damaged, or the references are of another model, probe, schedule, reading or other
            layers; both values are named. OSError: it cannot be read.
    """
    references = References.load(path)
    empty = np.empty(0, dtype=np.float64)
    clock = references.runs[0].clock  # the run's own is known only when it has samples
    identity = identity_of(run)
    references.check(Series((), tuple(run["layers"]), {}, empty, clock, identity=identity))
    unsaid = references.unsaid(identity)
    if unsaid:
        say(f"the references do not say their {', '.join(unsaid)}, so no alert or stop follows from them")
