"""What a run says on the terminal about its cost."""

from __future__ import annotations

from topo_callback.terminal import say
from topo_callback.watching.budget import OverheadBudget
from topo_callback.watching.schedule import Schedule


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
