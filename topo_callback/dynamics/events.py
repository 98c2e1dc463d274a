"""Events: what happened in a run, as a pure function of its series and of reference runs.

Seen without a test are layers that are not finite, a fact, and rank or persistence that is lost, a note.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo_callback.dynamics.calibrated import FEWEST_REFERENCES, AlignedReferences
from topo_callback.dynamics.nominal import FEWEST_SAMPLES, decide_nominal, is_look
from topo_callback.dynamics.reference_course import ReferenceCourse
from topo_callback.dynamics.references import References
from topo_callback.dynamics.reorganisation import Event, Window, layers_in_words, reorganisation
from topo_callback.dynamics.response import log_layer_velocities, log_velocity
from topo_callback.dynamics.scan import locate, scan
from topo_callback.dynamics.series import HEADLINE, Series, comparable
from topo_callback.dynamics.summaries import depth_summaries, summarise
from topo_callback.dynamics.training import training_events, unsaid

COLLAPSED = 0.25  # share of its first value below which, in two samples in a row, a size has collapsed
_NAMES = {"effective_rank": "effective rank", "h1_total_persistence_scaled": "total persistence of H1"}
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
                f"{_NAMES.get(name, name)} is {share:.0%} of its first value (median over layers) at step "
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

    Level "sequential" is a decision at every optimizer step, on loss, gradient norm and the weights' steps of the run
    alone (`dynamics.changes`), with an error rate from real runs and simulated ones. Level "nominal" is a decision on
    the displacements of the run alone, with at least eight samples; level "calibrated" one against at least 19
    reference runs. Each of these two is one decision over all layers, samples and looks, with a probability of at most
    5 % to alarm in a quiet run: for the calibrated level, a run exchangeable with its references; for the nominal one,
    under the conditions in benchmarks/RESULTS_alerts.md, of which one is a clock that follows the weights. Level
    "observed" is a fact: layers or losses that are not finite. Level "noted" is a rule without an error rate: rank or
    persistence that is lost. An event is `measured` where its error rate is known. It is not for notes, for nominal
    events by step counts, and for calibrated ones by references that do not say how they were trained.

    Deterministic, and a function of the past: samples that are added never take an alarm back.

    Args:
        measure: the displacement that is decided on.

    Raises:
        ReferencesError: references of another model, probe, schedule, reading, layers or clock.
    """
    notes: list[str] = []
    events = [*invalid_layers(series), *collapses(series)]
    if references is not None:
        references.check(series)
    if series.training is not None:
        course = None if references is None else _course(references, notes)
        measured = references is None or not references.unsaid(series.identity)
        events += training_events(series.training, course, measured=measured)
        if missing := unsaid(series.training):
            notes.append(f"changes are looked for without the {' and the '.join(missing)}, which no step has")
    if measure not in series.displacement:
        notes.append(f"no displacement {measure!r} between samples yet: nothing to say")
    else:
        events += _nominal(series, measure, notes)
        if references is not None:
            events += _calibrated(series, references, measure, notes)
    events.sort(key=lambda event: event.known_at)
    return Findings(tuple(events), tuple(notes))


def _course(references: References, notes: list[str]) -> ReferenceCourse | None:
    course = references.course
    count = 0 if course is None else len(course.scores)
    if count < FEWEST_REFERENCES:
        notes.append(
            f"{count} of the references have a table of their training steps; {FEWEST_REFERENCES} are needed to judge "
            "changes by them: collect them again with `topo-callback calibrate`"
        )
        return None
    return course


def _nominal(series: Series, measure: str, notes: list[str]) -> Iterator[Event]:
    if len(series.steps) < FEWEST_SAMPLES:
        notes.append(f"{len(series.steps)} samples are too few to say without references; {FEWEST_SAMPLES} are needed")
        return
    if series.clock == "steps":
        notes.append("the weights' path and the learning rates are unknown: displacement is compared with step counts")
    log_displacement = series.log_displacement(measure)
    decision = decide_nominal(log_displacement[None], series.path, series.progress(), level=LEVEL)
    samples = int(decision.samples[0])
    if samples == 0:
        return
    kept = np.flatnonzero(np.isfinite(log_displacement).any(axis=1) & comparable(series.path))
    present = np.isfinite(log_displacement[kept]).any(axis=0)
    summaries = depth_summaries(log_displacement[None][:, kept][:, :, present])
    values = log_velocity(summaries[int(decision.summary[0])], np.log(series.path[kept]))
    first, last = int(decision.first[0]), int(decision.last[0])
    # with more samples the window is known better; another one would be another event
    found = locate(values, scan(values))
    start, end = int(kept[found.start[0]]), int(kept[found.start[0] + found.width[0] - 1])
    if start <= last and end >= first:
        first, last = start, end
    velocity = np.full(len(series.path), np.nan)
    velocity[kept] = values[0]
    # the bound was found for a clock that follows the weights, which step counts do not
    measured = series.clock != "steps"
    window = Window("nominal", float(decision.p_value[0]), first, last, samples, measured)
    yield from reorganisation(series, window, velocity, log_layer_velocities(log_displacement, series.path))


def _calibrated(series: Series, references: References, measure: str, notes: list[str]) -> Iterator[Event]:
    usable = [run for run in references.runs if measure in run.displacement]
    if len(usable) < FEWEST_REFERENCES:
        notes.append(
            f"{len(usable)} reference runs with {measure} are too few to say; {FEWEST_REFERENCES} are needed for a "
            "p-value of 5 %"
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
        if not (is_look(samples, share) or samples < FEWEST_SAMPLES):
            continue
        decision = comparison.decide(samples)
        if decision is None or decision.p_value > LEVEL * (1 + 1e-9):
            continue
        layers = comparison.excess(len(series.steps))
        present = np.isfinite(layers).any(axis=1)
        velocity = np.full(len(series.path), np.nan)
        velocity[present] = summarise(layers[present])[decision.summary]
        window = Window("calibrated", decision.p_value, decision.first, decision.last, samples, not unsaid)
        yield from reorganisation(series, window, velocity, layers)
        return
