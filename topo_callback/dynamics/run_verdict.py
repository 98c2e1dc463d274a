"""The verdict on a run, from its record."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.course import ANSWERS, LOSS, STRUCTURE, Course
from topo_callback.dynamics.events import events_of_run
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

_LEVEL = 0.05  # of naming some layer in a run all of whose layers moved alike


def verdict_of(trajectory: Trajectory, events: Sequence[Event] | None = None) -> Verdict:
    """The verdict on a run so far, finished or not. A pure function of its record.

    Args:
        events: of the run, where they are known already, from `events_of_run`.
    """
    training = trajectory.run.get("training")
    last = training.get("max_steps") if isinstance(training, dict) else None
    max_steps = last if isinstance(last, int) and last > 0 else None
    if not trajectory.steps:
        waiting = _waiting(trajectory)
        return Verdict(trajectory.state, 0, None, None, max_steps, layers=trajectory.layers, waiting=waiting)
    newest = trajectory.overview(trajectory.steps[-1])
    found = events_of_run(trajectory) if events is None else events
    kept = Measured.of(newest, STRUCTURE)
    points, neighbours = trajectory.snapshot(newest.step).neighbours.shape[1:]
    moved, moved_kept = _moved_layers(newest, kept)
    answers = Measured.of(newest, ANSWERS)
    answered = Course.of_prompts(trajectory, ANSWERS)
    course = Course.of_structure(trajectory) if answered is None else answered
    at_rest = None if course is None else course.at_rest()
    waiting = _waiting(trajectory)
    whole = not waiting and (trajectory.state == "finished" or newest.step == max_steps)
    return Verdict(
        trajectory.state,
        len(trajectory.steps),
        trajectory.steps[0],
        newest.step,
        max_steps,
        answers_moved=answers,
        answers_kl=Measured.of(newest, "next_token_kl.first"),
        general_text_moved=Measured.of(newest, "general_text_tv.first"),
        general_text_loss_change=Measured.of(newest, LOSS),
        structure_kept=kept,
        neighbours=None if kept is None else int(neighbours),
        by_chance=None if kept is None or points < 2 else float(neighbours / (points - 1)),
        rtd=Measured.of(newest, "rtd.first"),
        layers=trajectory.layers,
        moved_layers=moved,
        moved_layers_kept=moved_kept,
        events=tuple(event for event in found if event.measured),
        waiting=waiting,
        training_steps=_training_steps(trajectory),
        missing="" if answers is not None else newest.missing.get(ANSWERS, {}).get(None, ""),
        course=None if course is None else "structure" if answered is None else "answers",
        course_last=None if course is None else course.steps[-1],
        half_way=None if course is None else course.half_way(),
        settled=None if course is None else course.settled(),
        at_rest=at_rest,
        over=at_rest if whole or at_rest is False else None,
        moved=course.clear if course is not None and course.is_current else None,
    )


def verdict_of_folder(folder: Path) -> Verdict | None:
    """The verdict on the newest run below a folder; None where there is no record of one."""
    try:
        return verdict_of(Trajectory.load(folder))
    except RecordError:
        return None


def _moved_layers(newest: Snapshot, kept: Measured | None) -> tuple[tuple[int, ...], float | None]:
    """The layers that kept clearly fewer neighbours than the median layer, and the median of what they kept.

    Each is compared with the median at 5 % over the number of layers. Errors are taken as independent though the
    prompts are the same, so that rather too few layers are named.
    """
    values, errors = newest.numbers.get(STRUCTURE, {}), newest.errors.get(STRUCTURE, {})
    if kept is None or kept.error is None or not kept.differs(1.0) or len(values) < 2:
        return (), None
    wide = statistics.NormalDist().inv_cdf(1 - _LEVEL / (2 * len(values)))
    named = tuple(
        layer
        for layer, value in values.items()
        if layer is not None and layer in errors and kept.value - value > wide * np.hypot(errors[layer], kept.error)
    )
    return named, float(np.median([values[layer] for layer in named])) if named else None


def _waiting(trajectory: Trajectory) -> int:
    folder = TrajectoryFolder(trajectory.folder)
    try:
        return len(set(folder.steps(folder.spool)) - set(trajectory.steps))
    except (RecordError, OSError):
        return 0


def _training_steps(trajectory: Trajectory) -> int:
    try:
        return len(trajectory.training_steps())
    except (RecordError, OSError):
        return 0
