"""Which steps are sampled: a pure function of step and configuration, the same on every rank; and the pace of a run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from topo_callback.config import TopologyConfig

_DENSER = 4  # samples of an adaptive schedule in one regular interval


@dataclass(frozen=True)
class Schedule:
    """Steps 0, 1, 2, 4, ... up to the regular interval, then every `interval` steps, and the last step.

    Attributes:
        max_steps: optimizer steps of the run.
        interval: distance of regular samples, max_steps / samples rounded up.
        steps: exactly these steps instead; None for the default schedule.
        dense: distance of the steps at which an adaptive schedule may sample; None for a fixed one.
    """

    max_steps: int
    interval: int
    steps: frozenset[int] | None = None
    dense: int | None = None

    @classmethod
    def of(cls, max_steps: int, config: TopologyConfig) -> Schedule:
        interval = max(1, -(-max_steps // config.samples))
        steps = None if config.steps is None else frozenset(config.steps)
        adaptive = config.adaptive and steps is None
        return cls(max_steps, interval, steps, max(1, interval // _DENSER) if adaptive else None)

    def is_early(self, step: int) -> bool:
        """Whether a step is one of the early ones: 0 and the powers of two below the interval."""
        if self.steps is not None:
            return step in self.steps and step < self.interval
        return step < self.interval and step & (step - 1) == 0

    def never_thinned(self, step: int) -> bool:
        """Whether a step is sampled whatever it costs: the early ones and the last."""
        return self.is_early(step) or step == self.max_steps

    def __contains__(self, step: int) -> bool:
        """Whether a step is sampled, or may be by an adaptive schedule: all ranks come together there."""
        if self.steps is not None:
            return step in self.steps
        return self.is_fixed(step) or (self.dense is not None and step % self.dense == 0)

    def is_fixed(self, step: int) -> bool:
        """Whether a step is sampled by a schedule that is not adaptive; others only while the model moves fast."""
        return self.is_early(step) or step % self.interval == 0 or step == self.max_steps

    def is_spare(self, step: int) -> bool:
        """Whether an adaptive schedule leaves a step out once the model has settled: every second regular one."""
        return self.dense is not None and not self.never_thinned(step) and step // self.interval % 2 == 1

    def meetings(self) -> frozenset[int]:
        """All steps of the run that are sampled, or may be by an adaptive schedule."""
        between = () if self.dense is None else range(0, self.max_steps + 1, self.dense)
        return frozenset({*self.planned(), *between})

    def planned(self) -> list[int]:
        """All steps that are sampled whatever the model does, ascending."""
        if self.steps is not None:
            return sorted(step for step in self.steps if step <= self.max_steps)
        early = [
            step for step in (0, *(1 << power for power in range(self.interval.bit_length()))) if self.is_early(step)
        ]
        regular = range(0, self.max_steps + 1, self.interval)
        return sorted({*early, *regular, self.max_steps})


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
