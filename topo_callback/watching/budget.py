"""The overhead budget: how many of the later samples a run can afford, and what it says about that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from topo_callback.terminal import say
from topo_callback.watching.schedule import Schedule


@dataclass
class OverheadBudget:
    """Keeps the time spent on the training thread below a share of the run by thinning later samples evenly.

    A later sample is taken when the time spent, with it, is at most `share` of the run's time so far: the allowance
    grows as the run goes on, so the samples that remain are evenly spread. The early samples and the last are always
    taken; what the early ones cost is paid for by later ones. So the share of the whole run is exceeded by no more
    than one sample, or, in a run too short to pay for them, by the early ones.

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

    def allows(self) -> bool:
        """Whether one more later sample keeps the run, as long as it is now, within the share."""
        if self.share is None:
            return True
        training = self.clock() - self._started - self.spent
        after = self.spent + self.last_cost
        allowed = after <= self.share * (training + after)
        if not allowed:
            self.thinned += 1
        return allowed


def announce_cost(budget: OverheadBudget, schedule: Schedule, now: int) -> None:
    """What the first sample cost, and what the rest will at most; nothing when none was taken, as in a resumed run."""
    if budget.last_cost == 0:
        return
    later = sum(step > now for step in schedule.planned())
    limit = "" if budget.share is None else f", or as many as fit into {budget.share:.0%} of the run (max_overhead)"
    say(
        f"a sample takes {budget.last_cost:.2g} s of training time; {later} more planned, about "
        f"{budget.last_cost * later:.2g} s{limit}"
    )


def announce_thinned(budget: OverheadBudget) -> None:
    """How many planned samples the budget left out, if any."""
    if budget.thinned:
        left_out = f"{budget.thinned} planned samples were" if budget.thinned > 1 else "a planned sample was"
        say(f"{left_out} left out to stay below max_overhead={budget.share:g} of the run")
