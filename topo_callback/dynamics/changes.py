"""Changes: what training itself shows at every optimizer step, judged by nothing but the course of the run so far.

Loss, gradient norm and the length of the weights' step over what the schedule plans have logarithms whose excesses are
added. There has been a change where the sum is larger than `Needed` says, which looks at the sums before. After
one the detector is armed again as soon as it knows the new course.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.excess import NOISY, SMOOTH, Excess, SeriesRule, excess, recurring_differences

LEVEL = 0.03  # of all steps together, be they as many as they may, as far as the tail tells
_GROWS_OVER, _EARLY, _LATE = 128, 0.5, 0.2
_UNKNOWN, _KNOWN_OVER = 0.6, 30  # more is needed as long as the scale rests on few differences
_FEWEST = 128  # sums above 0, without which nothing is known of their tail
_TAIL = 0.05  # share of the sums that make the tail, the square root of their number at most
_FEWEST_OF_TAIL = 10
_LIGHTEST = 8.0  # no tail is taken to be lighter than that of a power of this
_NEWEST = 8  # sums that are no past yet: a change may have begun in them
_EARLIER = 100  # steps, as if they had been looked at before the first


def early_need(steps: Int64[np.ndarray, " steps"]) -> Float64[np.ndarray, " steps"]:
    """What is needed before a run has enough sums to say what their tail is."""
    needed: np.ndarray = (1 + steps / _GROWS_OVER) ** _EARLY * (1 + _UNKNOWN * np.exp(-steps / _KNOWN_OVER))
    return needed


class Needed:
    """Takes the sums of a run as they come, and finds the first that is large enough.

    Early in a run (1 + step / 128) ** .5, and more in the first steps, whose scale is new. From 128 sums on what this
    run's own sums have as a tail decides, by Hill's estimate (Annals of Statistics 3, 1975): the size that a sum has
    with a probability of LEVEL log 100 / (t log(t) ** 2), t = step + 100, whose sum over all steps is LEVEL, and at
    least (1 + step / 128) ** .2. In a run whose noise has a light tail that grows slowly, so that a change is found
    late in a long run, too; heavy tails need more. The tail is looked at again when there are a tenth more sums.
    """

    def __init__(self) -> None:
        self._sums = np.empty(0)
        self._again_at = 0  # number of past sums
        self._tail: tuple[float, float, float] | None = None  # where it begins, its share, its power

    def first_above(self, steps: Int64[np.ndarray, " steps"], sums: Float64[np.ndarray, " steps"]) -> int | None:
        """The place of the first alarm among the next steps; None if there is none.

        What comes after an alarm has not been taken, and is to be given again. The alarm and what may belong to it are
        no part of the past.
        """
        start = 0
        while start < len(steps):
            past = max(0, len(self._sums) - _NEWEST)
            if past >= self._again_at:
                self._tail = _tail(self._sums[:past])
                self._again_at = past + past // 10 + _NEWEST
            part = slice(start, start + self._again_at + _NEWEST - len(self._sums))
            above = np.flatnonzero(sums[part] >= self._thresholds(steps[part]))
            taken = sums[part] if not above.size else sums[start : start + int(above[0]) + 1]
            self._sums = np.concatenate([self._sums, taken])
            if above.size:
                self._sums[-_NEWEST - 1 :] = 0.0
                return start + int(above[0])
            start += len(taken)
        return None

    def _thresholds(self, steps: np.ndarray) -> np.ndarray:
        if self._tail is None:
            return early_need(steps)
        begins, share, power = self._tail
        looked_at = steps + _EARLIER
        chance = LEVEL * math.log(_EARLIER) / (looked_at * np.log(looked_at) ** 2)
        late: np.ndarray = np.maximum((1 + steps / _GROWS_OVER) ** _LATE, begins * (share / chance) ** (1 / power))
        return late


def _tail(sums: np.ndarray) -> tuple[float, float, float] | None:
    ordered = np.sort(sums[sums > 0])[::-1]
    if len(ordered) < _FEWEST:
        return None
    count = max(_FEWEST_OF_TAIL, int(min(_TAIL * len(ordered), len(ordered) ** 0.5)))
    begins = float(ordered[count])
    slope = float(np.mean(np.log(ordered[:count] / begins)))
    power = min(_LIGHTEST, (1 - count**-0.5) / slope) if slope > 0 else _LIGHTEST
    return begins, count / len(ordered), power


RULES: Mapping[str, SeriesRule] = {"loss": NOISY, "grad_norm": NOISY, "step_over_plan": SMOOTH}
SETTLES = 112  # values behind a change for which its course may be in the past that makes the scale: 64 and 48
CHUNK = 512  # steps worked on at once, all of which are judged again behind a change


@dataclass(frozen=True)
class Part:
    """What one signal has to do with a change.

    Attributes:
        share: its excess.
        length: values in its window.
        factor: how many times as large they are, at least, as the median before.
    """

    share: float
    length: int
    factor: float


@dataclass(frozen=True)
class Change:
    """Signals that left their course.

    Attributes:
        first_step: first step of the window of the signal that has most to do with it.
        known_at: the step at which it could be said.
        parts: of the signals that could be judged there.
    """

    first_step: int
    known_at: int
    parts: Mapping[str, Part]


class SignalCourse:
    """The newest values of one signal, all finite, and the steps they are of: as many as new ones depend on."""

    def __init__(self, rule: SeriesRule) -> None:
        self._rule = rule
        self._steps = np.empty(0, dtype=np.int64)
        self._values = np.empty(0)
        self._usual = np.empty(0, dtype=bool)
        self._unusual_until = 0  # of the values that are here
        self._settling_until = 0

    def add(self, steps: Int64[np.ndarray, " steps"], values: Float64[np.ndarray, " steps"]) -> None:
        """Add values; those that are not finite are left out."""
        self._forget(max(0, len(self._steps) - self._rule.longer_context))
        kept = np.isfinite(values)
        places = len(self._steps) + np.arange(int(kept.sum()))
        self._steps = np.concatenate([self._steps, steps[kept]])
        self._values = np.concatenate([self._values, values[kept]])
        self._usual = np.concatenate([self._usual, places >= self._unusual_until])

    def _forget(self, count: int) -> None:
        self._steps, self._values, self._usual = self._steps[count:], self._values[count:], self._usual[count:]
        self._unusual_until = max(0, self._unusual_until - count)
        self._settling_until = max(0, self._settling_until - count)

    def since(self, step: int) -> tuple[Int64[np.ndarray, " steps"], Excess]:
        """The excess at the steps from `step` on, which are among those that were added last."""
        start = int(np.searchsorted(self._steps, step))
        first = max(0, start - self._rule.context)
        settling = np.arange(first, len(self._values)) < self._settling_until
        recurring = recurring_differences(
            self._values, self._rule, usual=self._usual, first=max(0, start - max(self._rule.windows))
        )
        found = excess(
            self._values[first:],
            self._rule,
            usual=self._usual[first:],
            settling=settling,
            recurring=recurring[first:],
        )
        later = slice(start - first, None)
        return self._steps[start:], Excess(found.share[later], found.length[later], found.difference[later])

    def first_of_window(self, step: int, length: int) -> int:
        """The first step of a window that ends at `step`."""
        return int(self._steps[max(0, int(np.searchsorted(self._steps, step)) - length + 1)])

    def changed(self, step: int) -> None:
        """There was a change: the scale is taken anew, from differences whose base is behind it."""
        place = int(np.searchsorted(self._steps, step, side="right")) - 1
        self._unusual_until = place + self._rule.base + 1
        self._settling_until = place + SETTLES + 1
        self._usual[: self._unusual_until] = False


class ChangeDetector:
    """Takes steps in any portions; what it finds does not depend on how they are portioned.

    Args:
        rules: of the signals that are judged together.
    """

    def __init__(self, rules: Mapping[str, SeriesRule] = RULES) -> None:
        self._courses = {name: SignalCourse(rule) for name, rule in rules.items()}
        self._needed = Needed()

    def take(
        self, steps: Int64[np.ndarray, " steps"], signals: Mapping[str, Float64[np.ndarray, " steps"]]
    ) -> list[Change]:
        """The changes that the next steps show.

        Args:
            steps: ascending, later than those before.
            signals: logarithms by the name of the rule; not finite where there is no value.
        """
        found: list[Change] = []
        for first in range(0, len(steps), CHUNK):
            part = slice(first, first + CHUNK)
            for name, course in self._courses.items():
                if name in signals:
                    course.add(steps[part], signals[name][part])
            found += self._changes(steps[part])
        return found

    def _changes(self, steps: np.ndarray) -> Iterator[Change]:
        start = 0
        while start < len(steps):
            judged = {name: course.since(int(steps[start])) for name, course in self._courses.items()}
            total = np.zeros(len(steps) - start)
            for at, result in judged.values():
                total[np.searchsorted(steps[start:], at)] += result.share
            alarm = self._needed.first_above(steps[start:], total)
            if alarm is None:
                return
            step = int(steps[start + alarm])
            yield self._change(step, judged)
            for course in self._courses.values():
                course.changed(step)
            start += alarm + 1

    def _change(self, step: int, judged: Mapping[str, tuple[np.ndarray, Excess]]) -> Change:
        parts = {}
        for name, (at, result) in judged.items():
            place = int(np.searchsorted(at, step))
            if place < len(at) and at[place] == step and result.share[place] > 0:
                factor = float(np.exp(result.difference[place]))
                parts[name] = Part(float(result.share[place]), int(result.length[place]), factor)
        leading = max(parts, key=lambda name: parts[name].share)
        first = self._courses[leading].first_of_window(step, parts[leading].length)
        return Change(first, step, parts)


def find_changes(
    steps: Sequence[int] | Int64[np.ndarray, " steps"],
    *,
    loss: Float64[np.ndarray, " steps"] | None = None,
    grad_norm: Float64[np.ndarray, " steps"] | None = None,
    moved: Float64[np.ndarray, " steps"] | None = None,
    planned: Float64[np.ndarray, " steps"] | None = None,
) -> list[Change]:
    """The changes of a whole run; what is not known is left out.

    Args:
        steps: ascending.
        moved: length of the weights' step.
        planned: learning rate of the schedule; without it `moved` is judged as it is.
    """
    where = np.asarray(steps, dtype=np.int64)
    return ChangeDetector().take(where, signals_of(loss, grad_norm, moved, planned))


def signals_of(
    loss: np.ndarray | None, grad_norm: np.ndarray | None, moved: np.ndarray | None, planned: np.ndarray | None
) -> dict[str, Float64[np.ndarray, " steps"]]:
    """The logarithms that are judged; not finite where a value is unknown or not above 0.

    Args:
        planned: None where no schedule is known: `moved` is then judged as it is.
    """
    found = {}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if loss is not None:
            found["loss"] = np.log(loss)
        if grad_norm is not None:
            found["grad_norm"] = np.log(grad_norm)
        if moved is not None:
            found["step_over_plan"] = np.log(moved) - (0.0 if planned is None else np.log(planned))
    return found
