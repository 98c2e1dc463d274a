"""The clock of a run: how far its weights moved between two samples.

Displacement is compared with the weights' path, never with the number of steps: a sample taken later, or at a higher
learning rate, has moved further without anything having happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

CLOCKS = ("path_length", "learning_rate_sum", "steps")  # in order of preference
_NEGLIGIBLE = 0.02


def choose_clock(steps: Sequence[int], readings: Mapping[str, Sequence[float | None]]) -> tuple[str, np.ndarray]:
    """The best clock that every sample has, and its reading at every sample.

    Args:
        steps: of the samples.
        readings: cumulative path length of the weights and cumulative learning rate, None where a sample lacks it.

    Returns:
        The name (`path_length`, else `learning_rate_sum`, else `steps`) and float64 [samples], never falling.
    """
    for name in CLOCKS[:-1]:
        values = readings.get(name, ())
        if len(values) == len(steps) and all(value is not None and np.isfinite(value) for value in values):
            reading = np.array(values, dtype=np.float64)
            if (np.diff(reading) >= 0).all():
                return name, reading
    return "steps", np.array(steps, dtype=np.float64)


def comparable(path: Float64[np.ndarray, " intervals"]) -> Bool[np.ndarray, " intervals"]:
    """Intervals long enough to be compared with others: at least 2 % of the median path, and not 0.

    The quotient of two tiny numbers says nothing: a fixed probe in a model that did not move is displaced by exactly 0.
    """
    moved = path[path > 0]
    enough: np.ndarray = path >= (_NEGLIGIBLE * np.median(moved) if moved.size else np.inf)
    return enough
