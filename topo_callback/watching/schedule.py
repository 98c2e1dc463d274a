"""When samples are taken: the steps, the same on every rank; the pace of a run; and how many it can afford."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from topo_callback.config import TopologyConfig
from topo_callback.terminal import say
from topo_callback.wording import duration, plain_percent

_DENSER = 4  # samples of an adaptive schedule in one regular interval
LEAST = 8  # samples that a short run has, evenly spread, where all of them cost less than so many seconds
LEAST_SECONDS = 30.0


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

    def least_from(self, step: int) -> int:
        """How many of the samples that a short run has at least are from this step on; 0 if it is none of them."""
        planned = self.planned()
        if not planned:
            return 0
        ends = planned[0], planned[-1]
        wanted = [ends[0] + place * (ends[1] - ends[0]) / (LEAST - 1) for place in range(LEAST)]
        least = sorted({min(planned, key=lambda each: abs(each - near)) for near in wanted})
        return sum(each >= step for each in least) if step in least else 0

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


@dataclass
class OverheadBudget:
    """Keeps the time spent on the training thread below a share of the run by thinning later samples evenly.

    A later sample is taken when the time spent, with it, is at most `share` of the run's time so far: the allowance
    grows as the run goes on, so the samples that remain are evenly spread. The early samples and the last are always
    taken; what the early ones cost is paid for by later ones. So the share of the whole run is exceeded by no more
    than one sample, or, in a run too short to pay for them, by the early ones, or by eight evenly spread ones where all
    that is spent stays below 30 s. A share of 0 leaves these out.

    Attributes:
        share: largest share of the run, 0 to 1; None: no limit.
        clock: seconds, monotonic.
    """

    share: float | None
    clock: Callable[[], float] = time.perf_counter
    spent: float = 0.0
    last_cost: float = 0.0
    thinned: int = 0
    _started: float = field(default=0.0, repr=False)

    def begin(self) -> None:
        """The run starts, or is resumed."""
        self._started = self.clock()

    def spend(self, seconds: float) -> None:
        """Count time on the training thread."""
        self.spent += seconds

    def sampled(self, seconds: float) -> None:
        """The cost of the newest sample, counted by `spend` too, predicts that of the next."""
        self.last_cost = seconds

    def overhead(self) -> float:
        """Share of the run so far that was spent, 0 to 1."""
        elapsed = self.clock() - self._started
        return self.spent / elapsed if elapsed > 0 else 0.0

    def allows(self, least: int = 0) -> bool:
        """Whether one more later sample keeps the run, as long as it is now, within the share.

        Args:
            least: how many of the samples that a short run has at least are still to be taken, this one among them.
        """
        if self.share is None:
            return True
        training = self.clock() - self._started - self.spent
        after = self.spent + self.last_cost
        allowed = after <= self.share * (training + after) or (
            least > 0 and self.share > 0 and self.spent + least * self.last_cost <= LEAST_SECONDS
        )
        if not allowed:
            self.thinned += 1
        return allowed


def announce_cost(budget: OverheadBudget, schedule: Schedule, now: int) -> None:
    """What the first sample cost, and what the rest will at most; nothing when none was taken, as in a resumed run."""
    if budget.last_cost == 0:
        return
    later = sum(step > now for step in schedule.planned())
    limit = ""
    if budget.share is not None:
        limit = f", or as many as fit into {plain_percent(budget.share)} of the run (max_overhead)"
    if budget.share and budget.last_cost * LEAST <= LEAST_SECONDS and later > LEAST:
        limit += f", but {LEAST} at least"
    say(
        f"a sample takes {duration(budget.last_cost)} of training time; {later} more planned, about "
        f"{duration(budget.last_cost * later)}{limit}"
    )


def announce_thinned(budget: OverheadBudget) -> None:
    """How many planned samples the budget left out, if any."""
    if budget.thinned:
        left_out = f"{budget.thinned} planned samples were" if budget.thinned > 1 else "a planned sample was"
        say(f"{left_out} left out to stay below max_overhead={budget.share:g} of the run; max_overhead=None takes all")
