"""Explanation: what else moved at a change of training, layers, answers, what is logged, and whether it is over.

A change is found by what training says; it is explained by the samples around it, when the first of them that is far
enough behind it is there. Displacement over what the schedule planned, in the interval of the change, is compared with
that of the intervals before. What is not further above their median than twice the furthest of them is said not to
stand out: at a step of a quiet run at which nothing happened, some layer stands out in 2 %, the answers in .5 %.

Of the numbers that a trainer logs, one has left its course where more than half of the values logged since the change,
of at most four, are on one side of all those before it, and twice as far from their median as any of them. These
numbers explain; no event is decided by them, since they come only every `logging_steps`
(benchmarks/RESULTS_logged.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.onsets import plan_of
from topo_callback.dynamics.reorganisation import Event, layers_in_words
from topo_callback.dynamics.series import HEADLINE, Series
from topo_callback.records.training_steps import TrainingSteps
from topo_callback.wording import rounded

LOGGED_PAST, LOGGED_FEWEST = 24, 8  # values before the change that those since are compared with, at most and at least
SINCE = 4
TIMES = 2.0  # the largest distance from their median that the values before have
MOST = 3  # numbers that are named
_TOKENS = "num_tokens"  # counted from the start of the run


def logged_moves(logged: TrainingSteps, first: int, last: int) -> list[str]:
    """The numbers that left their course at a change, in words, the one that went furthest first; at most three.

    Args:
        logged: of `records.logged_numbers`.
        first: step of the change.
        last: newest step that counts.
    """
    found = sorted(_moves(logged, first, last), key=lambda move: -move[0])
    return [words for _, words in found[:MOST]]


def _moves(logged: TrainingSteps, first: int, last: int) -> Iterator[tuple[float, str]]:
    """How many times as far as any value before, and the words."""
    for name in logged.columns[1:]:
        steps, values = _values(logged, name)
        before = values[steps < first][-LOGGED_PAST:]
        since = values[(steps >= first) & (steps <= last)][:SINCE]
        if len(before) < LOGGED_FEWEST or not len(since):
            continue
        middle = float(np.median(before))
        usual = float(np.abs(before - middle).max())
        away = np.sort(since - middle)
        spared = (len(since) - 1) // 2
        least = max(float(away[spared]), -float(away[-1 - spared]))  # of the others, on the side where they are
        if usual > 0 and least > TIMES * usual:
            verb = "rose" if np.median(since) > middle else "fell"
            shown = "tokens per step" if name == _TOKENS else name
            yield (
                least / usual,
                f"{shown} {verb} to {np.median(since):.3g} ({before.min():.3g} to {before.max():.3g} before)",
            )


def _values(logged: TrainingSteps, name: str) -> tuple[np.ndarray, Float64[np.ndarray, " values"]]:
    """The finite values and their steps; of a count its growth per step."""
    values = logged.column(name)
    kept = np.isfinite(values)
    steps, values = logged.step[kept], values[kept]
    if name == _TOKENS:
        return steps[1:], np.diff(values) / np.diff(steps)
    return steps, values


BEHIND = 16  # steps behind a change after which it is explained
PAST, FEWEST = 12, 4  # intervals before it that are compared, at most and at least
STANDS_OUT = 2.0  # times the largest distance from their median that the intervals before have
_LEAST = 0.18  # logarithm of 1.2: smaller moves do not stand out
_BEFORE, _NEWEST = 16, 8  # training steps before a change, and of those behind it the ones that say what became of it
_BACK, _ON = 1 / 3, 4 / 3  # shares of the change that are left: below it is over, above it goes on
_OVER, _STAYED, _GOES_ON = "is over", "has stayed", "goes on"
_IN_WORDS = {_OVER: "is as before again", _STAYED: "has stayed so", _GOES_ON: "goes on changing"}  # of training
_NAMES = {"loss": "the loss", "grad_norm": "the gradient norm", "moved": "the weights' step over the plan"}
MEASURES = {"rtd": "RTD", HEADLINE: "Wasserstein H1"}


def explanations(series: Series, changes: Sequence[Event]) -> Iterator[Event]:
    """One event `explained` for every change that can be explained by the samples so far.

    Args:
        changes: of kind `change`, in the order of their steps.
    """
    if not changes or series.training is None or len(series.steps) < 2:
        return
    steps = np.array(series.steps)
    ended = series.max_steps is not None and series.steps[-1] >= series.max_steps
    with np.errstate(divide="ignore", invalid="ignore"):
        log_plan = np.log(plan_of(series)[1])
    usual = np.ones(len(steps) - 1, dtype=bool)  # intervals that are no part of an earlier change
    for change in changes:
        first = int(np.searchsorted(steps, change.first_step)) - 1  # the last sample before it
        behind = int(np.searchsorted(steps, change.known_at))
        told = int(np.searchsorted(steps, change.known_at + BEHIND))
        if told == len(steps) and ended:
            told -= 1
        if first < 0 or behind >= len(steps) or told >= len(steps):
            continue
        before = np.flatnonzero(usual[:first])[-PAST:]
        usual[first:told] = False
        layers, factor, moved = _layers(series, log_plan, before, slice(first, behind))
        answers = _answers(series, log_plan, before, slice(first, behind))
        logged = [] if series.logged is None else logged_moves(series.logged, change.first_step, int(steps[told]))
        said = [_followed(series.training, change, int(steps[told])), moved, answers, *logged]
        words = f"{_span(change)} {'; '.join(each for each in said if each)}"
        yield Event(
            "explained", "observed", change.first_step, change.last_step, int(steps[told]), layers, factor, None, words
        )


def _span(change: Event) -> str:
    first, last = change.first_step, change.last_step
    return f"the change of step {last}" if first == last else f"the change of steps {first}-{last}"


def became(explained: Event) -> str:
    """What its event `explained` says became of training that changed, as a verb and its object; "" for nothing."""
    said = explained.explanation.split("; ")[0]
    return next((words for state, words in _IN_WORDS.items() if f" {state}: " in said), "")


def standing_out(
    displacement: Float64[np.ndarray, "intervals columns"],
    log_plan: Float64[np.ndarray, " intervals"],
    before: Int64[np.ndarray, " past"],
    now: slice,
) -> Float64[np.ndarray, " columns"] | None:
    """How many times as far as before each column moved for what was planned, where that stands out; NaN where not.

    Args:
        displacement: a distance, not its square; NaN where missing.
        before: the intervals that the change is compared with.
        now: those that it lies in.

    Returns:
        Infinity for columns that had not moved at all before. None where fewer than four intervals lie before the
        change.
    """
    displacement = np.where(np.isfinite(log_plan)[:, None], displacement, np.nan)
    known = (np.isfinite(displacement[before]).sum(axis=0) >= FEWEST) & np.isfinite(displacement[now]).any(axis=0)
    if not known.any():
        return None
    found = np.full(displacement.shape[1], np.nan)
    for column in np.flatnonzero(known).tolist():
        then, there = displacement[before, column], displacement[now, column]
        if not np.nanmax(then) > 0:
            found[column] = np.inf if np.nanmax(there) > 0 else np.nan
            continue
        past = np.log(then, where=then > 0, out=np.full(len(then), np.nan)) - log_plan[before]
        change = np.log(there, where=there > 0, out=np.full(len(there), np.nan)) - log_plan[now]
        if np.isfinite(past).sum() >= FEWEST and np.isfinite(change).any():
            middle = float(np.nanmedian(past))
            above = float(np.nanmax(change)) - middle
            if above > max(STANDS_OUT * float(np.nanmax(np.abs(past - middle))), _LEAST):
                found[column] = np.exp(above)
    return found


def _layers(
    series: Series, log_plan: np.ndarray, before: np.ndarray, now: slice
) -> tuple[tuple[int, ...], float | None, str]:
    measure = next((name for name in MEASURES if name in series.displacement), None)
    times = None if measure is None else standing_out(series.displacement[measure], log_plan, before, now)
    if measure is None or times is None:
        return (), None, ""
    with_what = f"for the planned learning rate ({MEASURES[measure]})"
    said = []
    began = tuple(layer for layer, factor in zip(series.layers, times.tolist(), strict=True) if factor == np.inf)
    if began:
        said.append(f"{layers_in_words(began, series.layers)} moved for the first time")
    finite = np.where(np.isfinite(times), np.log(times, where=np.isfinite(times), out=np.zeros(len(times))), 0.0)
    if not finite.any():
        return began, None, "; ".join(said) or f"no layer moved further than before {with_what}"
    chosen = finite >= 0.5 * finite.max()
    named = tuple(layer for layer, is_chosen in zip(series.layers, chosen.tolist(), strict=True) if is_chosen)
    factor = float(np.exp(finite[chosen].mean()))
    said.append(f"{layers_in_words(named, series.layers)} moved {factor:.1f}x as far as before {with_what}")
    return tuple(sorted({*began, *named})), factor, "; ".join(said)


def _answers(series: Series, log_plan: np.ndarray, before: np.ndarray, now: slice) -> str:
    if series.answers is None:
        return ""
    times = standing_out(np.sqrt(series.answers)[:, None], log_plan, before, now)
    if times is None:
        return ""
    if times[0] == np.inf:
        return "answers moved for the first time"
    if np.isnan(times[0]):
        return "answers moved no further than before"
    return f"answers moved {times[0]:.1f}x as far as before"


def _followed(training: TrainingSteps, change: Event, last: int) -> str:
    """What became of the signal that the change is largest in: over, stayed, or went on."""
    found = []
    for name in _NAMES:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(training.column(name))
            if name == "moved":
                planned = np.log(training.column("planned"))
                values = values - np.where(np.isfinite(planned), planned, 0.0)
        finite = np.isfinite(values) & (training.step <= last)
        before = values[finite & (training.step < change.first_step)][-_BEFORE:]
        since = values[finite & (training.step >= change.first_step)]
        if len(before) < _NEWEST or len(since) < 2 * _NEWEST:
            continue
        middle = float(np.median(before))
        noise = 1.4826 * float(np.median(np.abs(before - middle)))
        at = values[finite & (training.step >= change.first_step) & (training.step <= change.known_at)] - middle
        height = float(at[np.argmax(np.abs(at))]) if at.size else 0.0
        found.append((abs(height) / max(noise, 0.01), name, height, float(np.median(since[-_NEWEST:])) - middle, noise))
    if not found:
        return ""
    _, name, height, left, noise = max(found)
    share = left / height if height else 0.0
    factor = float(np.exp(left))
    if share < _BACK or abs(left) < 2 * noise / np.sqrt(_NEWEST):
        return f"{_OVER}: {_NAMES[name]} is {rounded(factor)}x what it was before"
    if share > _ON:
        return f"{_GOES_ON}: {_NAMES[name]} is {rounded(factor)}x what it was before"
    return f"{_STAYED}: {_NAMES[name]} is {rounded(factor)}x what it was before"
