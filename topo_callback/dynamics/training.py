"""What training itself shows at every optimizer step, as events: changes of its course, and losses not finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from topo_callback.dynamics.changes import RULES, Change, ChangeDetector, signals_of
from topo_callback.dynamics.divergence import DivergenceWatch
from topo_callback.dynamics.reference_course import CourseDetector, ReferenceCourse
from topo_callback.dynamics.reorganisation import Event
from topo_callback.records.training_steps import TrainingSteps
from topo_callback.wording import rounded

SEQUENTIAL, CALIBRATED = "sequential", "calibrated"
OF_TRAINING = ("change", "divergence", "not_finite")  # kinds of events that are known by training steps, not by samples
_SIGNALS = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "step_over_plan": "step of the weights per scheduled learning rate",
}
_NAMED = 0.2  # of what is needed for an alarm, from which a signal is named
_OFF_SCHEDULE = 1.01  # a rate that is this many times the scheduled one was set by somebody
_PLANNED_JUMP = 1.5
_RECENT = 64  # steps that are remembered: more than the widest window has
_SAME = 8  # steps behind a change of one level in which one of another level begins that is the same


class TrainingWatch:
    """Says what the newest steps show, whatever number of them it is given at once.

    Only how far a stretch of losses that are not finite had come when it was told depends on that.

    Args:
        course: of reference runs; without it changes are decided on the run alone.
        measured: whether the references are known to have been trained as this run is.
    """

    def __init__(self, course: ReferenceCourse | None = None, *, measured: bool = True) -> None:
        self._detector = ChangeDetector()
        self._course, self._measured = course, measured
        self._by_references = None if course is None else CourseDetector(course)
        self._recent = TrainingSteps.of([])
        self._has_plan: bool | None = None  # as the first step has it, so that the unit never changes
        self._told: Event | None = None  # the newest change
        self._divergence = DivergenceWatch()

    def take(self, steps: TrainingSteps) -> list[Event]:
        """The events of steps that are later than those before: changes, divergences, losses that are not finite."""
        training = self._recent.followed_by(steps)
        if self._has_plan is None and len(steps.step):
            self._has_plan = has_plan(steps)
        planned = bool(self._has_plan)
        found = self._detector.take(steps.step, signals_in(steps, planned=planned))
        alone = [_event(training, change, planned=planned) for change in found]
        changes = list(alone)
        if self._course is not None and self._by_references is not None:
            # the same unit as theirs; a step that cannot be had in it is not judged
            beside = signals_in(steps, planned=self._course.planned)
            if self._course.planned and not self._has_plan:
                del beside["step_over_plan"]
            changes += [
                _by_references(training, change, p_value, self._course, self._measured)
                for change, p_value in self._by_references.take(steps.step, beside)
            ]
        begun = len(self._recent.step)
        events = [each for each in _not_finite(training) if begun == 0 or each.first_step > training.step[begun - 1]]
        self._recent = training.last(_RECENT)
        told = self._once(changes)
        # on the changes that the run alone shows: for these it is known how often a quiet run is told one
        diverged = self._divergence.take(steps, alone)
        return sorted([*events, *told, *diverged], key=lambda event: event.known_at)

    def _once(self, changes: Sequence[Event]) -> Iterator[Event]:
        """One of the changes that two levels find at the same time: the one that is known first.

        One whose error rate is not known does not stand for one whose rate is.
        """
        for event in sorted(changes, key=lambda event: (event.known_at, event.level)):
            told = self._told
            if told is None or event.first_step > told.known_at + _SAME or (event.measured and not told.measured):
                self._told = event
                yield event


def training_events(
    training: TrainingSteps, course: ReferenceCourse | None = None, *, measured: bool = True
) -> list[Event]:
    """Everything that the steps of a run show, in the order in which it was known; arguments as of `TrainingWatch`."""
    return TrainingWatch(course, measured=measured).take(training)


def has_plan(training: TrainingSteps) -> bool:
    """Whether the scheduled learning rate of the first step is known."""
    return len(training.step) > 0 and bool(np.isfinite(training.column("planned")[0]))


def signals_in(training: TrainingSteps, *, planned: bool) -> dict[str, np.ndarray]:
    """The logarithms that changes are looked for in.

    Args:
        planned: the weights' step is taken over the scheduled learning rate, not as it is.
    """
    loss, grad_norm, moved, rate = map(training.column, ("loss", "grad_norm", "moved", "planned"))
    return signals_of(loss, grad_norm, moved, rate if planned else None)


def course_of(runs: Sequence[TrainingSteps]) -> ReferenceCourse | None:
    """What these runs did at every step; None of fewer than two."""
    if len(runs) < 2:
        return None
    planned = all(map(has_plan, runs))
    return ReferenceCourse.of([(run.step, signals_in(run, planned=planned)) for run in runs], planned=planned)


def _event(training: TrainingSteps, change: Change, *, planned: bool) -> Event:
    words = f"{_moved(change, planned=planned)} what it was before, {_when(training, change)}"
    factor = max(change.parts.values(), key=lambda part: part.share).factor
    first, last = change.first_step, change.known_at
    return Event("change", SEQUENTIAL, first, last, last, (), factor, None, words)


def _by_references(
    training: TrainingSteps, change: Change, p_value: float, course: ReferenceCourse, measured: bool
) -> Event:
    found = _event(training, change, planned=course.planned)
    moved = _moved(change, planned=course.planned)
    words = (
        f"beside {len(course.scores)} reference runs, {moved} what it was before, {_when(training, change)}; "
        f"calibrated p = {p_value:.2g}"
    )
    return replace(found, level=CALIBRATED, p_value=p_value, explanation=words, measured=measured)


def unsaid(training: TrainingSteps) -> list[str]:
    """The signals that no step has, in words: nothing can be found by them."""
    columns = {"loss": ("loss",), "grad_norm": ("grad_norm",), "step_over_plan": ("moved",)}
    return [
        _SIGNALS[name]
        for name in RULES
        if len(training.step) and not any(np.isfinite(training.column(each)).any() for each in columns[name])
    ]


def _moved(change: Change, *, planned: bool) -> str:
    ordered = sorted(change.parts.items(), key=lambda item: -item[1].share)
    named = [(name, part) for place, (name, part) in enumerate(ordered) if place == 0 or part.share >= _NAMED]
    signals = _SIGNALS if planned else {**_SIGNALS, "step_over_plan": "step of the weights"}
    said = [f"{signals[name]} {rounded(part.factor)}x" for name, part in named]
    return " and ".join([", ".join(said[:-1]), said[-1]] if said[1:] else said)


def _span(first: int, last: int) -> str:
    return f"at step {last}" if first == last else f"in steps {first}-{last}"


def _when(training: TrainingSteps, change: Change) -> str:
    return f"{_span(change.first_step, change.known_at)}{_circumstances(training, change)}"


def _circumstances(training: TrainingSteps, change: Change) -> str:
    """What the plan did at that time: a rate that was set by hand, a jump of the schedule, an epoch, a skipped step."""
    last = int(np.searchsorted(training.step, change.known_at))
    first = int(np.searchsorted(training.step, change.first_step))
    window, before = slice(first, last + 1), max(0, first - 1)
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):
        set_to = training.column("learning_rate")[window] / training.column("planned")[window]
        planned = training.column("planned")[before : last + 1]
        jump = planned[1:] / planned[:-1]
    off = set_to[np.isfinite(set_to)]
    off = off[np.maximum(off, 1 / np.maximum(off, 1e-300)) > _OFF_SCHEDULE]
    if off.size:
        found.append(f"the optimizer's learning rate was {rounded(float(off[-1]))}x the scheduled one")
    jumped = jump[np.isfinite(jump) & (np.maximum(jump, 1 / np.maximum(jump, 1e-300)) >= _PLANNED_JUMP)]
    if jumped.size:
        found.append(f"the schedule made the learning rate {rounded(float(jumped[0]))}x what it was")
    epochs = training.column("epoch")[before : last + 1]
    if np.isfinite(epochs).all() and len(epochs) > 1:
        # an epoch ends with the step that makes its number whole
        begun = np.flatnonzero(np.floor(epochs[1:] - 1e-9) > np.floor(epochs[:-1] - 1e-9))
        if begun.size:
            found.append(f"an epoch began at step {training.step[before + 1 + int(begun[0])]}")
    if (training.column("skipped")[window] == 1).any():
        found.append("the optimizer skipped a step")
    return f"; {', '.join(found)}" if found else ""


def _not_finite(training: TrainingSteps) -> Iterator[Event]:
    loss = training.column("loss")
    bad = training.known[:, 0] & ~np.isfinite(loss)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(np.int8)))
    for start, end in zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True):
        first, last = int(training.step[start]), int(training.step[end])
        words = f"the loss is not finite {_span(first, last)}"
        yield Event("not_finite", "observed", first, last, first, (), None, None, words)
