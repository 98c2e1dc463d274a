"""Velocity for the page: displacement between samples over what the weights' path predicts."""

from __future__ import annotations

import numpy as np

from topo_callback.dynamics.clock import choose_clock, comparable
from topo_callback.dynamics.response import log_velocity
from topo_callback.records.trajectory import Trajectory

DISPLACEMENT = "wasserstein_h1.previous"
FEWEST = 6
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

    The response of displacement to the path is fitted for each layer on its own (see `dynamics.response`), from six
    intervals on, in which the weights moved enough to be compared. Empty without a clock: never over step count.
    """
    timed = clock(trajectory)
    if timed is None:
        return {}
    _, reading = timed
    place = {step: sample for sample, step in enumerate(trajectory.steps)}
    found: dict[int, list[float | None]] = {}
    for layer in trajectory.layers:
        # since the sample that the layer was compared with: the newest in which it was ok
        path = np.full(len(trajectory.steps), np.nan)
        for sample, step in enumerate(trajectory.steps):
            previous = trajectory.overview(step).compared_with("previous", layer)
            if previous in place:
                path[sample] = reading[sample] - reading[place[previous]]
        long_enough = comparable(np.nan_to_num(path, nan=0.0)) & (np.nan_to_num(path, nan=0.0) > 0)
        moved = np.array(
            [trajectory.overview(step).numbers.get(DISPLACEMENT, {}).get(layer, np.nan) for step in trajectory.steps],
            dtype=np.float64,
        )
        used = np.flatnonzero(long_enough & np.isfinite(moved) & (np.nan_to_num(moved, nan=0.0) > 0))
        if len(used) < FEWEST:
            continue
        speed = np.exp(log_velocity(np.log(moved[used])[None], np.log(path[used])))[0]
        row: list[float | None] = [None] * len(trajectory.steps)
        for sample, value in zip(used.tolist(), speed.tolist(), strict=True):
            row[sample] = value
        found[layer] = row
    return found
