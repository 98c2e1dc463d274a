"""Events: what happened in a run, as a pure function of its series and of reference runs.

Seen without a test are layers that are not finite, a fact, and rank or persistence that is lost, a note.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo_callback.dynamics.calibrated import FEWEST_REFERENCES, AlignedReferences, is_look
from topo_callback.dynamics.departures import BASE
from topo_callback.dynamics.explanation import explanations
from topo_callback.dynamics.groups import group_events
from topo_callback.dynamics.onsets import (
    AGREEMENT,
    FEWEST_SAMPLES,
    Onset,
    find_onsets,
    plan_of,
    samples_that_came_back,
    signals_of,
)
from topo_callback.dynamics.reference_course import ReferenceCourse
from topo_callback.dynamics.references import References
from topo_callback.dynamics.reorganisation import Alarm, Event, layers_in_words, reorganisation
from topo_callback.dynamics.rules import rule_events, rules_of
from topo_callback.dynamics.series import HEADLINE, Series
from topo_callback.dynamics.summaries import summarise
from topo_callback.dynamics.training import CALIBRATED, SEQUENTIAL, has_plan, training_events, unsaid
from topo_callback.records.training_steps import TrainingSteps
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import plain_percent

COLLAPSED = 0.25  # share of its first value below which, in two samples in a row, a size has collapsed
_NAMES = {"effective_rank": "effective rank", "h1_total_persistence_scaled": "total persistence of H1"}
_BESIDE = {
    "planned": "what they did before, for the planned learning rate",
    "learning_rate_sum": "what they did before, for the learning rate",
    "steps": "what they did before, for the steps",
    "references": "what the reference runs did",
}
LEVEL = 0.05


def invalid_layers(series: Series) -> Iterator[Event]:
    """One event for every stretch of samples in which the same layers are invalid."""
    stretch: list[tuple[int, Mapping[int, str]]] = []
    bad: tuple[int, ...] = ()
    for step, status in [*series.every_status(), (-1, {})]:
        now = tuple(layer for layer in series.layers if status.get(layer, "ok").startswith("invalid"))
        if now != bad and bad:
            steps = stretch[0][0], stretch[-1][0]
            reason = stretch[0][1][bad[0]].removeprefix("invalid: ")
            where = f"at step {steps[0]}" if steps[0] == steps[1] else f"in steps {steps[0]}-{steps[1]}"
            words = f"{layers_in_words(bad, series.layers)} invalid {where}: {reason}"
            yield Event("invalid_layers", "observed", *steps, steps[0], bad, None, None, words)
        if now != bad:
            stretch = []
        stretch.append((step, status))
        bad = now


def collapses(series: Series) -> Iterator[Event]:
    """One note for every size whose median over layers fell below a quarter of its first value, and stayed there.

    A rule without an error rate: it came true in 4 of 4 healthy runs with a probe of 24 to 36 templated prompts.
    """
    for name, values in series.sizes.items():
        ratio = _ratio_to_first(values)
        median = np.full(len(ratio), np.nan)
        present = np.isfinite(ratio).any(axis=1)
        median[present] = np.nanmedian(ratio[present], axis=1)
        found = np.flatnonzero((median[:-1] < COLLAPSED) & (median[1:] < COLLAPSED))
        if found.size:
            first = int(found[0])
            later = ratio[first + 1]
            layers = tuple(layer for layer, left in zip(series.layers, later.tolist(), strict=True) if left < COLLAPSED)
            share = float(median[first + 1])
            words = (
                f"{_NAMES.get(name, name)} is {plain_percent(share)} of its first value (median over layers) at step "
                f"{series.steps[first + 1]}, lowest in {layers_in_words(layers, series.layers)}"
            )
            steps = series.steps[first], series.steps[first + 1]
            yield Event("collapse", "noted", *steps, steps[1], layers, share, None, words, measured=False)


def _ratio_to_first(values: np.ndarray) -> np.ndarray:
    """Values over the first one that each layer has; NaN where that is missing or 0."""
    ratio = np.full_like(values, np.nan)
    for layer, column in enumerate(values.T):
        present = np.flatnonzero(np.isfinite(column))
        if present.size and column[present[0]] > 0:
            ratio[:, layer] = column / column[present[0]]
    return ratio


@dataclass(frozen=True)
class Findings:
    """What was found in the samples so far.

    Attributes:
        events: in the order of the steps at which they were first known.
        notes: what could not be said, and why.
    """

    events: tuple[Event, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"events": [dataclasses.asdict(event) for event in self.events], "notes": list(self.notes)}


def find_events(series: Series, references: References | None = None, *, measure: str = HEADLINE) -> Findings:
    """The events of a run so far.

    Level "sequential" is a decision on the run alone, by nothing but its own past, and may come again: at every
    optimizer step on loss, gradient norm and the weights' steps (`dynamics.changes`), at every sample on the
    displacements of all layers (`dynamics.onsets`), and on groups of the prompts, against random labels
    (`dynamics.groups`). Their error rates are from real runs and simulated ones. Level
    "calibrated" is one decision on a displacement over all layers, samples and looks against at least 19 reference
    runs, with a probability of at most 5 % to alarm in a run exchangeable with them. Level "observed" is a fact: layers
    or losses that are not finite. Level "noted" is a rule without an error rate: rank or persistence that is lost. An
    event is `measured` where its error rate is known. It is not for notes, for onsets of runs whose learning rates or
    neighbours are unknown, and for calibrated ones by references that do not say how they were trained.

    Deterministic, and a function of the past: samples that are added never take an alarm back.

    Args:
        measure: the displacement that is compared with that of references.

    Raises:
        ReferencesError: references of another model, probe, schedule, reading, layers or clock.
    """
    notes: list[str] = []
    events = [*invalid_layers(series), *collapses(series)]
    if references is not None:
        references.check(series)
    if series.training is not None:
        course = None if references is None else _course(references, series.training, notes)
        measured = references is None or not references.unsaid(series.identity)
        of_training = training_events(series.training, course, measured=measured)
        events += of_training
        events += explanations(series, [event for event in of_training if event.kind == "change"])
        if missing := unsaid(series.training):
            notes.append(f"changes are looked for without the {' and the '.join(missing)}, which no step has")
    events += [] if series.groups is None else group_events(series.groups)
    events += _sequential(series, notes)
    if references is not None:
        if measure in series.displacement:
            events += _calibrated(series, references, measure, notes)
        else:
            notes.append(f"no displacement {measure!r} between samples yet: nothing to compare with the references")
    events.sort(key=lambda event: event.known_at)
    return Findings(tuple(events), tuple(notes))


def events_of_run(trajectory: Trajectory) -> tuple[Event, ...]:
    """The events that the record shows, those of rules of one's own that it has, and those that were told while the run
    went on and need its references."""
    found = [*find_events(Series.of(trajectory)).events, *rule_events(trajectory, rules_of(trajectory.run))]
    known = {(event.kind, event.level, event.first_step) for event in found}
    for entry in trajectory.journal:
        if entry["event"] == "event" and entry.get("level") == CALIBRATED:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged line is no event
                event = Event.of(entry)
                if (event.kind, event.level, int(event.first_step)) not in known:
                    found.append(event)
    return tuple(sorted(found, key=lambda event: event.known_at))


def _course(references: References, training: TrainingSteps, notes: list[str]) -> ReferenceCourse | None:
    course = references.course
    count = 0 if course is None else len(course.scores)
    if count < FEWEST_REFERENCES:
        notes.append(
            f"{count} of the references have a table of their training steps; {FEWEST_REFERENCES} are needed to judge "
            "changes by them: collect them again with `topo-callback calibrate`"
        )
        return None
    if course is not None and course.planned and not has_plan(training):
        notes.append(
            "the references know the learning rates that their schedule planned, and this run does not: the steps of "
            "its weights are judged by the run alone"
        )
    return course


def _sequential(series: Series, notes: list[str]) -> Iterator[Event]:
    signals = signals_of(series)
    if not signals:
        notes.append("no displacement between samples yet: nothing to say")
        return
    if len(series.steps) < FEWEST_SAMPLES:
        notes.append(f"too few samples to say without references: {len(series.steps)} of {FEWEST_SAMPLES}")
        return
    plan, _ = plan_of(series)
    if plan == "steps":
        notes.append("the learning rates are unknown: displacement is compared with step counts")
    told = series.across is not None and AGREEMENT in series.displacement
    if not told:
        notes.append("mutual kNN across samples is unknown: a sample that went away and came back counts as a change")
    came_back = [str(series.steps[place]) for place in np.flatnonzero(samples_that_came_back(series))]
    if came_back:
        notes.append(
            f"the sample at step {', '.join(came_back)} is far from both beside it, and they are near each other: it "
            "went away and came back, and counts for nothing"
        )
    # the rate was found for runs whose learning rates and neighbours are known
    measured = plan != "steps" and told
    onsets = find_onsets(series, signals)
    for place, onset in enumerate(onsets):
        above = onset.above.copy()
        if place + 1 < len(onsets):
            above[onsets[place + 1].last :] = np.nan
        also = _path_in_words(series, plan, onset)
        alarm = Alarm(SEQUENTIAL, None, onset.first, onset.last, onset.samples, _BESIDE[plan], measured, also, later=1)
        yield from reorganisation(series, alarm, above, onset.layers_above)


def _path_in_words(series: Series, plan: str, onset: Onset) -> str:
    """How much of an onset the weights' path explains."""
    if series.clock != "path_length" or plan == "steps":
        return ""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = series.path / plan_of(series)[1]
    before = ratio[: onset.first][np.isfinite(ratio[: onset.first])][-BASE:]
    inside = ratio[onset.first : onset.last + 1]
    inside = inside[np.isfinite(inside)]
    if not before.size or not inside.size or np.median(before) <= 0:
        return ""
    return f"; the weights' path explains {np.median(inside) / np.median(before):.1f}x"


def _calibrated(series: Series, references: References, measure: str, notes: list[str]) -> Iterator[Event]:
    usable = [run for run in references.runs if measure in run.displacement]
    if len(usable) < FEWEST_REFERENCES:
        notes.append(
            f"too few reference runs with {measure} to say: {len(usable)} of the {FEWEST_REFERENCES} that are needed "
            "for a p-value of 5 %"
        )
        return
    unsaid = references.unsaid(series.identity)
    if unsaid:
        notes.append(
            f"the references or this run do not say their {', '.join(unsaid)}: the error rate of the calibrated level "
            "holds only if these are the same; collect the references again with `topo-callback calibrate`"
        )
    progress = series.progress()
    comparison = AlignedReferences(series, usable, measure)
    for samples in range(2, len(series.steps) + 1):
        share = None if progress is None else float(progress[samples - 1])
        if not is_look(samples, share):
            continue
        decision = comparison.decide(samples)
        if decision is None or decision.p_value > LEVEL * (1 + 1e-9):
            continue
        layers = comparison.excess(len(series.steps))
        present = np.isfinite(layers).any(axis=1)
        velocity = np.full(len(series.path), np.nan)
        velocity[present] = summarise(layers[present])[decision.summary]
        alarm = Alarm(
            "calibrated", decision.p_value, decision.first, decision.last, samples, _BESIDE["references"], not unsaid
        )
        yield from reorganisation(series, alarm, velocity, layers)
        return
