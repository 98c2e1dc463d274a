"""What is done at a step where ranks meet: decided by the first rank, agreed on in one number, the same everywhere."""

from __future__ import annotations

from topo_callback.distributed.ranks import Ranks
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.schedule import OverheadBudget, Schedule

SKIP, TAKE, END = 0, 1, 2
_ACTIONS = 4  # combinations of what actions ask for


def agree(ranks: Ranks, decision: int, asked: int) -> tuple[int, int]:
    """What holds for all ranks: the largest of their decisions, and what the actions of that rank ask for.

    All ranks call this together; it is the one collective of an event.
    """
    return divmod(ranks.worst(_ACTIONS * decision + asked), _ACTIONS)


def decide(recorder: Recorder, schedule: Schedule, budget: OverheadBudget, step: int, must: bool | None) -> int:
    """What the first rank decides.

    Args:
        must: the sample is taken whatever it costs; None: as the schedule says.
    """
    if recorder.stopped is not None:
        return END
    if recorder.has(step):
        return SKIP
    if schedule.never_thinned(step) if must is None else must:
        return TAKE
    if _adapted_away(recorder, schedule, step):
        return SKIP
    if budget.allows():
        return TAKE
    recorder.note("thinned", step=step, cause=f"overhead {budget.overhead():.4f}")
    return SKIP


def _adapted_away(recorder: Recorder, schedule: Schedule, step: int) -> bool:
    """Whether an adaptive schedule leaves a step out: one in between unless the model moves fast, and every second
    regular one when it has settled."""
    if schedule.dense is None:
        return False
    if not schedule.is_fixed(step):
        return not recorder.pace.faster
    return recorder.actions.settled and not recorder.pace.faster and schedule.is_spare(step)
