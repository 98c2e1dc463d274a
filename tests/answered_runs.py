"""Recorded runs whose answers, forgetting and neighbours move as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from trajectories import make_snapshots, write_trajectory

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.course import ANSWERS, LOSS, MOVES, STRUCTURE
from topo_callback.measures.uncertainty import error_of
from topo_callback.records.record import write_record
from topo_callback.records.training_steps import COLUMNS, StepsWriter
from topo_callback.records.trajectory import Trajectory

STEPS = tuple(range(0, 96, 8))
CONFIG = TopologyConfig(measures=("scale",), zigzag_engine="off")
Shape = Callable[[float], float]


def answered_run(
    root: Path,
    answers: Shape | None,
    forgot: Shape | None = None,
    kept: Shape | None = None,
    *,
    steps: tuple[int, ...] = STEPS,
    layers: tuple[int, ...] = (1,),
    noise: float = 0.002,
    kept_error: float = 0.01,
    until: Mapping[str, int] | None = None,
    jumps: Mapping[int, float] | None = None,
) -> Trajectory:
    """A run whose answers and loss on general text move by these means, the same for all prompts but for a factor.

    Args:
        kept: share of the neighbours that are those of the start, alike in all layers; None: not recorded.
        kept_error: its error, as it is recorded.
        until: a number's name -> the last step whose sample has it; without, all have.
        jumps: step -> how far the answers were from those of the sample before.
    """
    folder = write_trajectory(root, steps, layers=layers, points=20, config=CONFIG)
    last = dict.fromkeys((ANSWERS, LOSS, STRUCTURE), steps[-1]) | dict(until or {})
    draw = np.random.default_rng(0)
    of_prompts = {ANSWERS: np.exp(0.3 * draw.normal(size=20)), LOSS: 1 + 0.3 * draw.normal(size=20)}
    for snapshot in make_snapshots(steps, layers=layers, points=20, config=CONFIG):
        values = {
            name: shape(snapshot.step) * of_prompts[name] + noise * draw.normal(size=20)
            for name, shape in ((ANSWERS, answers), (LOSS, forgot))
            if shape is not None and 0 < snapshot.step <= last[name]
        }
        numbers = {**snapshot.numbers, **{name: {None: float(each.mean())} for name, each in values.items()}}
        errors = {name: {None: error_of(float(each.std(ddof=1)) / 20**0.5, 20) or 0.0} for name, each in values.items()}
        if kept is not None and 0 < snapshot.step <= last[STRUCTURE]:
            numbers[STRUCTURE] = dict.fromkeys(layers, kept(snapshot.step))
            errors[STRUCTURE] = dict.fromkeys((*layers, None), kept_error)
        if snapshot.step in (jumps or {}):
            numbers[MOVES[ANSWERS]] = {None: (jumps or {})[snapshot.step]}
            errors[MOVES[ANSWERS]] = {None: 0.005}
        told = replace(snapshot, numbers=numbers, errors=errors, by_prompt=values)
        write_record(folder.step_file(folder.samples, snapshot.step), *told.to_record(), compress=True)
    rows = [(step + 1.0, 1.0, *[None] * (len(COLUMNS) - 2)) for step in range(steps[-1])]
    if rows:
        StepsWriter(folder.training_steps).append(rows)
    return Trajectory.load(folder.path)


def plateau(step: float) -> float:
    """Rises evenly until step 40."""
    return min(step, 40) / 40
