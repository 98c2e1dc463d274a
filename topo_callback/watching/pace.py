"""Pace: whether an adaptive schedule samples more or less often, from what is known of the run so far."""

from __future__ import annotations

import statistics

_FASTER = 1.5  # times the usual velocity
_FEWEST = 3


class Pace:
    """Follows the velocities of a run, in the order in which they become known."""

    def __init__(self) -> None:
        self._velocities: list[float] = []

    def observe(self, velocity: float | None) -> None:
        """Take the velocity of the newest interval; None where it is not defined."""
        if velocity is not None:
            self._velocities.append(velocity)

    @property
    def faster(self) -> bool:
        """Whether the model now moves at least one and a half times as fast as it usually did."""
        if len(self._velocities) < _FEWEST:
            return False
        return self._velocities[-1] >= _FASTER * statistics.median(self._velocities[:-1])
