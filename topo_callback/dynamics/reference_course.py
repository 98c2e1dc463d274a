"""Reference course: what reference runs did at every optimizer step, and how far a run leaves it.

Of each signal of a run the median of the references at the same step is taken away. What is left is looked at in
windows: the mean of the newest values less that of the values before them, on the scale of the largest such difference
that a reference has on average. A run's score is its largest. Each reference is scored in the same way by the others,
whose median and scale it has no part in, once; so where the run is one more quiet run of the same kind, each of them is
equally likely to have the largest score, whatever their noise (Vovk, Gammerman and Shafer, Algorithmic Learning in a
Random World, 2005), and the p-value (1 + references whose score is as large) / (references + 1) is valid at every step:
a score can only grow. The run is judged by one reference more, which makes its score a little smaller, not larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.lib.stride_tricks import sliding_window_view

from topo_callback.dynamics.changes import RULES, Change, Part

WINDOWS = (1, 2, 4, 8, 16, 32)
PAST = 64  # values before a window that it is compared with, at most
FEWEST, FEWEST_AGAIN = 8, 16  # of them, at least: from the start of a run, and after a change
MARGIN = 0.9  # of the run's score, from which on a reference counts as having as large a one
_SMALLEST = 1e-3  # difference of logarithms that is taken for the usual one, at least
_TIMES = 3.0  # the largest difference since a change that the next change is, at least
_EARLIER = 64  # differences that are remembered for that
_FEWEST_EARLIER = 8
_CONTEXT = PAST + 2 * max(WINDOWS) + _EARLIER  # values before a place that what it has may depend on
CHUNK = 512  # steps worked on at once, all of which are judged again behind a change
SIGNALS = tuple(RULES)
Signals = Mapping[str, Float64[np.ndarray, " steps"]]


@dataclass(frozen=True, eq=False)
class ReferenceCourse:
    """What the references did.

    Attributes:
        step: ascending.
        median: of the references' logarithms; NaN where fewer than half of them have a value.
        usual: largest difference of each window, the mean over references; NaN of signals that they do not have.
        scores: of the references.
        planned: the weights' step is taken over the scheduled learning rate, not as it is.
    """

    step: Int64[np.ndarray, " steps"]
    median: Float64[np.ndarray, "signals steps"]
    usual: Float64[np.ndarray, "signals windows"]
    scores: Float64[np.ndarray, " references"]
    planned: bool = True

    @classmethod
    def of(
        cls, runs: Sequence[tuple[Int64[np.ndarray, " steps"], Signals]], *, planned: bool = True
    ) -> ReferenceCourse:
        """The course of reference runs, at least two.

        Args:
            runs: steps, ascending, and logarithms by the name of the signal; not finite where there is no value.
        """
        step = np.unique(np.concatenate([steps for steps, _ in runs]))
        values = np.full((len(runs), len(SIGNALS), len(step)), np.nan)
        for member, (steps, signals) in zip(values, runs, strict=True):
            for row, name in zip(member, SIGNALS, strict=True):
                if name in signals:
                    row[np.searchsorted(step, steps)] = np.where(np.isfinite(signals[name]), signals[name], np.nan)
        largest = np.full((len(runs), len(SIGNALS), len(WINDOWS)), np.nan)
        for number, member in enumerate(values):
            away = member - _median(np.delete(values, number, axis=0))
            for signal, row in enumerate(away):
                sizes = np.abs(differences(row[np.isfinite(row)], FEWEST))
                largest[number, signal] = _largest(sizes)
        scores = [
            np.nanmax(np.nan_to_num(own) / _usual(np.delete(largest, number, axis=0)), initial=0.0)
            for number, own in enumerate(largest)
        ]
        return cls(step, _median(values), _usual(largest), np.array(scores), planned)

    def p_value(self, score: float) -> float:
        """(1 + references whose score is at least .9 of this one) / (references + 1)."""
        return float((1 + (self.scores >= MARGIN * score).sum()) / (len(self.scores) + 1))

    def needed(self, level: float) -> float:
        """The score from which on the p-value is at most `level`; infinite with too few references."""
        allowed = int(np.floor(level * (len(self.scores) + 1) * (1 + 1e-9))) - 1
        if allowed < 0:
            return float("inf")
        ordered = np.sort(self.scores)[::-1]
        return float(np.nextafter(ordered[allowed] / MARGIN, np.inf)) if allowed < len(ordered) else 0.0

    def away(
        self, steps: Int64[np.ndarray, " steps"], signal: int, values: Float64[np.ndarray, " steps"]
    ) -> Float64[np.ndarray, " steps"]:
        """A signal less the references' median; NaN where either is unknown."""
        place = np.minimum(np.searchsorted(self.step, steps), max(0, len(self.step) - 1))
        if not len(self.step):
            return np.full(len(steps), np.nan)
        found: np.ndarray = np.where(self.step[place] == steps, values - self.median[signal, place], np.nan)
        return found


def differences(values: Float64[np.ndarray, " values"], fewest: int) -> Float64[np.ndarray, "windows values"]:
    """Of the window that ends at each place: its mean less that of up to `PAST` values before; NaN with too few."""
    count = len(values)
    found = np.full((len(WINDOWS), count), np.nan)
    if count <= fewest:
        return found
    # sums of fixed length, not differences of running ones: they are the same wherever a portion begins
    padded = np.concatenate([np.zeros(PAST), values])
    before = sliding_window_view(padded, PAST).sum(axis=1)[:count] / np.minimum(PAST, np.maximum(1, np.arange(count)))
    for row, wide in zip(found, WINDOWS, strict=True):
        if count >= fewest + wide:
            now = sliding_window_view(values, wide).sum(axis=1) / wide
            row[fewest + wide - 1 :] = now[fewest:] - before[fewest : count - wide + 1]
    return found


class CourseDetector:
    """Takes the steps of a run in any portions; what it finds does not depend on how they are portioned.

    Args:
        course: of the references.
        level: largest p-value of a change.
    """

    def __init__(self, course: ReferenceCourse, level: float = 0.05) -> None:
        self._course, self._needed = course, course.needed(level)
        self._away = [_Away(course.usual[signal]) for signal in range(len(SIGNALS))]

    def take(self, steps: Int64[np.ndarray, " steps"], signals: Signals) -> list[tuple[Change, float]]:
        """The changes that the next steps show, each with its p-value.

        Args:
            steps: ascending, later than those before.
            signals: logarithms by the name of the signal; not finite where there is no value.
        """
        found: list[tuple[Change, float]] = []
        for first in range(0, len(steps), CHUNK):
            part = steps[first : first + CHUNK]
            for number, (name, away) in enumerate(zip(SIGNALS, self._away, strict=True)):
                if name in signals:
                    away.add(part, self._course.away(part, number, signals[name][first : first + CHUNK]))
            while part.size and (change := self._next(part)) is not None:
                found.append(change)
                part = part[part > change[0].known_at]
        return found

    def _next(self, steps: np.ndarray) -> tuple[Change, float] | None:
        """The first change at these steps, after which the detector is armed anew."""
        judged = [away.since(int(steps[0])) for away in self._away]
        total = np.zeros(len(steps))
        for at, share, _ in judged:
            if at.size:
                places = np.searchsorted(steps, at)
                total[places] = np.maximum(total[places], share.max(axis=0))
        above = np.flatnonzero(total >= self._needed)
        if not above.size:
            return None
        step, score = int(steps[above[0]]), float(total[above[0]])
        parts, begun = {}, step
        for name, away, (at, share, difference) in zip(SIGNALS, self._away, judged, strict=True):
            place = int(np.searchsorted(at, step))
            if place == len(at) or at[place] != step:
                continue
            window = int(share[:, place].argmax())
            if share[window, place] > 0:
                factor = float(np.exp(difference[window, place]))
                parts[name] = Part(float(share[window, place] / self._needed), WINDOWS[window], factor)
                if share[window, place] == score:
                    begun = away.first_of_window(step, WINDOWS[window])
        for away in self._away:
            away.changed(step)
        return Change(begun, step, parts), self._course.p_value(score)


class _Away:
    """One signal less its median in the references: the newest values, as many as new ones depend on."""

    def __init__(self, usual: Float64[np.ndarray, " windows"]) -> None:
        self._usual = usual
        self._steps = np.empty(0, dtype=np.int64)
        self._values = np.empty(0)
        self._again = False  # there has been a change

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Add values; those that are not finite are left out."""
        kept = np.isfinite(values)
        self._steps = np.concatenate([self._steps[-_CONTEXT:], steps[kept]])
        self._values = np.concatenate([self._values[-_CONTEXT:], values[kept]])

    def since(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At the steps from `step` on: the steps, and for each window the score and the difference."""
        start = int(np.searchsorted(self._steps, step))
        first = max(0, start - _CONTEXT)
        found = differences(self._values[first:], FEWEST_AGAIN if self._again else FEWEST)
        share = np.nan_to_num(np.abs(found) / self._usual[:, None])
        if self._again:
            for wide, sizes, row in zip(WINDOWS, np.abs(found), share, strict=True):
                row[~(sizes >= _TIMES * _largest_earlier(sizes, wide))] = 0.0
        later = np.s_[:, start - first :]
        return self._steps[start:], share[later], found[later]

    def first_of_window(self, step: int, length: int) -> int:
        """The first step of a window that ends at `step`."""
        return int(self._steps[int(np.searchsorted(self._steps, step)) - length + 1])

    def changed(self, step: int) -> None:
        """There was a change: nothing up to this step is compared with what follows."""
        later = self._steps > step
        self._steps, self._values, self._again = self._steps[later], self._values[later], True


def _largest_earlier(sizes: np.ndarray, wide: int) -> np.ndarray:
    """The largest of the `_EARLIER` differences whose windows end before this one begins; NaN where they are few."""
    padded = np.concatenate([np.full(_EARLIER + wide - 1, np.nan), sizes])
    earlier = sliding_window_view(padded, _EARLIER)[: len(sizes)]
    enough = np.isfinite(earlier).sum(axis=1) >= _FEWEST_EARLIER
    return np.where(enough, _largest(earlier), np.nan)


def _largest(values: Float64[np.ndarray, "rows values"]) -> Float64[np.ndarray, " rows"]:
    """Of every row; NaN where it has no value."""
    largest = np.where(np.isfinite(values), values, -np.inf).max(axis=1, initial=-np.inf)
    found: np.ndarray = np.where(np.isfinite(largest), largest, np.nan)
    return found


def _usual(largest: Float64[np.ndarray, "members signals windows"]) -> Float64[np.ndarray, "signals windows"]:
    """Mean over members; NaN where none has a value."""
    count = np.isfinite(largest).sum(axis=0)
    total = np.nan_to_num(largest).sum(axis=0)
    return np.where(count > 0, np.maximum(total / np.maximum(1, count), _SMALLEST), np.nan)


def _median(values: Float64[np.ndarray, "members signals steps"]) -> Float64[np.ndarray, "signals steps"]:
    """Over members; NaN where fewer than half of them have a value."""
    enough = 2 * np.isfinite(values).sum(axis=0) >= len(values)
    found = np.full(values.shape[1:], np.nan)
    found[enough] = np.nanmedian(values[:, enough], axis=0)
    return found
