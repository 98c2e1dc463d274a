"""Which steps are sampled: a pure function of the step and the configuration, the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass

from topo_callback.config import TopologyConfig


@dataclass(frozen=True)
class Schedule:
    """Steps 0, 1, 2, 4, ... up to the regular interval, then every `interval` steps, and the last step.

    Attributes:
        max_steps: optimizer steps of the run.
        interval: distance of regular samples, max_steps / samples rounded up.
        steps: exactly these steps instead; None for the default schedule.
    """

    max_steps: int
    interval: int
    steps: frozenset[int] | None = None

    @classmethod
    def of(cls, max_steps: int, config: TopologyConfig) -> Schedule:
        interval = max(1, -(-max_steps // config.samples))
        return cls(max_steps, interval, None if config.steps is None else frozenset(config.steps))

    def is_early(self, step: int) -> bool:
        """Whether a step is one of the early ones: 0 and the powers of two below the interval."""
        if self.steps is not None:
            return step in self.steps and step < self.interval
        return step < self.interval and step & (step - 1) == 0

    def never_thinned(self, step: int) -> bool:
        """Whether a step is sampled whatever it costs: the early ones and the last."""
        return self.is_early(step) or step == self.max_steps

    def __contains__(self, step: int) -> bool:
        """Whether a step is sampled."""
        if self.steps is not None:
            return step in self.steps
        return self.is_early(step) or step % self.interval == 0 or step == self.max_steps

    def planned(self) -> list[int]:
        """All sampled steps of the run, ascending."""
        if self.steps is not None:
            return sorted(step for step in self.steps if step <= self.max_steps)
        early = [step for step in (0, *(1 << power for power in range(self.interval.bit_length()))) if step in self]
        regular = range(0, self.max_steps + 1, self.interval)
        return sorted({*early, *regular, self.max_steps})
