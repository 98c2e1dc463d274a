"""Velocity for the page: displacement between samples over what the weights' path predicts."""

from __future__ import annotations

import numpy as np

from topo_callback.dynamics.clock import choose_clock
from topo_callback.dynamics.velocity import log_layer_velocities
from topo_callback.records.trajectory import Trajectory

DISPLACEMENT = "wasserstein_h1.previous"
CLOCK_UNITS = {"path_length": "path length of the weights", "learning_rate_sum": "sum of learning rates"}


def clock(trajectory: Trajectory) -> tuple[str, np.ndarray] | None:
    """The unit of the run's clock and its reading at every sample; None where not every sample has one."""
    readings: dict[str, list[float | None]] = {
        name: [fact(trajectory, step, name) for step in trajectory.steps] for name in CLOCK_UNITS
    }
    name, values = choose_clock(trajectory.steps, readings)
    return (CLOCK_UNITS[name], values) if name in CLOCK_UNITS else None


def fact(trajectory: Trajectory, step: int, name: str) -> float | None:
    """A fact of one sample; None where it is missing or no finite number."""
    facts = trajectory.overview(step).provenance.get("facts")
    value = facts.get(name) if isinstance(facts, dict) else None
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable and value is not None else None


def velocities(trajectory: Trajectory) -> dict[int, list[float | None]]:
    """For each layer its velocity at every sample, 1: as the weights' path predicts; None where there is none.

    The path is that since the sample which the layer was compared with: the newest in which it was ok. The rest is
    `dynamics.velocity.log_layer_velocities`. Empty without a clock: never over step count.
    """
    timed = clock(trajectory)
    if timed is None:
        return {}
    reading: dict[int | None, float] = dict(zip(trajectory.steps, timed[1].tolist(), strict=True))
    path = np.full((len(trajectory.steps), len(trajectory.layers)), np.nan)
    for row, step in zip(path, trajectory.steps, strict=True):
        compared = [trajectory.overview(step).compared_with("previous", layer) for layer in trajectory.layers]
        row[:] = [reading[step] - reading.get(previous, np.nan) for previous in compared]
    moved = trajectory.array(DISPLACEMENT)
    speeds = np.exp(log_layer_velocities(np.log(np.where(moved > 0, moved, np.nan)), path))
    return {
        layer: [None if np.isnan(value) else value for value in column.tolist()]
        for layer, column in zip(trajectory.layers, speeds.T, strict=True)
        if np.isfinite(column).any()
    }
