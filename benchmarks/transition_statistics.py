"""When a number sees the transition, and how far ahead or behind: pure functions of arrays and series."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fine_tuning_statistics import detect

from topo_callback.dynamics import References, Series, find_events
from topo_callback.dynamics.events import _calibrated
from topo_callback.dynamics.reference_course import CourseDetector
from topo_callback.dynamics.training import course_of, signals_in

RESAMPLES = 10_000


@dataclass(frozen=True)
class Transition:
    """Steps at which a held-out gain has reached a tenth, half and nine tenths of what it has at the end."""

    begin: float
    middle: float
    end: float


def transition_of(steps: np.ndarray, gain: np.ndarray) -> Transition | None:
    """The transition of a gain [readings], 0 before it; the end is the mean of the last tenth of the readings.

    Crossings are the first ones, linearly interpolated. None where the gain at the end is below 0.5 nats.
    """
    final = float(gain[-max(1, len(gain) // 10) :].mean())
    if final < 0.5:
        return None
    return Transition(*(crossing(steps, gain, share * final) for share in (0.1, 0.5, 0.9)))


def crossing(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    after = int(np.flatnonzero(values >= level)[0])
    if after == 0:
        return float(steps[0])
    low, high = values[after - 1], values[after]
    return float(steps[after - 1] + (steps[after] - steps[after - 1]) * (level - low) / (high - low))


def first_deviation(run: np.ndarray, quiet: np.ndarray, steps: np.ndarray) -> float:
    """Step of the first sample at which a run [samples] deviates further than any quiet run [runs, samples] ever does.

    Infinite where it never does. Samples without a number are left out. A further quiet run would deviate so with a
    probability of 1 / (runs + 1).
    """
    kept = np.isfinite(run) & np.isfinite(quiet).all(axis=0)
    found = detect(run[kept], quiet[:, kept], level=1 / (len(quiet) + 1))
    return float("inf") if found.sample is None else float(steps[kept][found.sample])


def since_baseline(values: np.ndarray, steps: np.ndarray, baseline: tuple[int, int]) -> np.ndarray:
    """Logarithm of a number [samples] less its mean over the samples of a baseline; NaN up to the end of that.

    So what sets runs apart from the start, as other data do, is no deviation.
    """
    logs = np.log(np.where(values > 0, values, np.nan))
    inside = (steps >= baseline[0]) & (steps <= baseline[1]) & np.isfinite(logs)
    relative: np.ndarray = np.where(steps > baseline[1], logs - logs[inside].mean(), np.nan)
    return relative


def deviation_peak(run: np.ndarray, quiet: np.ndarray, steps: np.ndarray, held: Transition) -> float:
    """Middle of the interval in which a change since the previous sample is largest over the quiet runs' median.

    Of the intervals that end in the transition, or before it by no more than its own length.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(run[1:] / np.median(quiet[:, 1:], axis=0))
    inside = (steps[1:] >= 2 * held.begin - held.end) & (steps[1:] <= held.end) & np.isfinite(ratio)
    place = int(np.argmax(np.where(inside, ratio, -np.inf)))
    return float(steps[place] + steps[place + 1]) / 2


@dataclass(frozen=True)
class Lead:
    """Median over seeds of a difference in steps, with the 95 % bootstrap interval; infinite where it is never seen.

    Negative: ahead. Seeds are drawn with replacement.
    """

    median: float
    low: float
    high: float
    seen: int
    seeds: int

    def __str__(self) -> str:
        if not self.seen:
            return "never"
        return f"{_signed(self.median)} ({_signed(self.low)} to {_signed(self.high)})"


def _signed(value: float) -> str:
    if np.isinf(value):
        return "never" if value > 0 else "only it"
    return f"{value:+.0f}".replace("-", "\N{MINUS SIGN}")


def lead(differences: Sequence[float]) -> Lead:
    """The median difference of a list of them, one for each seed; some may be infinite."""
    values = np.array(differences, dtype=np.float64)
    if not values.size:
        raise ValueError("no differences; give one for each seed")
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    with np.errstate(invalid="ignore"):
        medians = np.sort(_median(values[drawn]))
    # order statistics: no interpolation between a number and infinity
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    seen = int(np.isfinite(values).sum())
    return Lead(float(_median(values[None])[0]), float(low), float(high), seen, len(values))


def _median(rows: np.ndarray) -> np.ndarray:
    ordered = np.sort(rows, axis=1)
    low, high = ordered[:, (rows.shape[1] - 1) // 2], ordered[:, rows.shape[1] // 2]
    middle: np.ndarray = np.where(low == high, low, (low + high) / 2)
    return middle


def paired(one: Sequence[float], other: Sequence[float]) -> Lead | None:
    """Lead of one time over another, seed by seed; seeds in which neither was seen are left out. None without any."""
    differences = [a - b for a, b in zip(one, other, strict=True) if np.isfinite(a) or np.isfinite(b)]
    return lead(differences) if differences else None


def known_at(series: Series, references: Sequence[Series], judged: str) -> list[int]:
    """The steps at which events of a run were known.

    Args:
        references: none: the run alone.
        judged: `changes` at every step, `onsets` at samples, or the displacement whose onsets references judge.
    """
    if not references:
        kind = {"changes": "change", "onsets": "onset"}[judged]
        return [event.known_at for event in find_events(series).events if event.kind == kind]
    if judged == "changes":
        course = course_of([each.training for each in references if each.training is not None])
        assert course is not None
        assert series.training is not None
        signals = signals_in(series.training, planned=course.planned)
        return [change.known_at for change, _ in CourseDetector(course).take(series.training.step, signals)]
    # every seed has data of its own, which a user's references may not have
    run, *others = (dataclasses.replace(each, identity={}) for each in (series, *references))
    onsets = _calibrated(run, References.of(others), judged, [])
    return [event.known_at for event in onsets if event.kind == "onset"]
