"""Needed: how large a sum of excesses has to be, at each step of a run, for an alarm."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

LEVEL = 0.025  # of all steps together, as far as the tail tells
_GROWS_OVER, _EARLY, _LATE = 128, 0.5, 0.2
_FEWEST = 128  # sums above 0, without which nothing is known of their tail
_TAIL = 0.05  # share of the sums that make the tail
_FEWEST_OF_TAIL = 10
_LIGHTEST = 8.0  # no tail is taken to be lighter than that of a power of this
_NEWEST = 8  # sums that are no past yet: a change may have begun in them
_EARLIER = 100  # steps, as if they had been looked at before the first


def early_need(steps: Int64[np.ndarray, " steps"]) -> Float64[np.ndarray, " steps"]:
    """What is needed before a run has enough sums to say what their tail is."""
    needed: np.ndarray = (1 + steps / _GROWS_OVER) ** _EARLY
    return needed


class Needed:
    """Takes the sums of a run as they come, and finds the first that is large enough.

    Early in a run (1 + step / 128) ** .5. From 128 sums on what this run's own sums have as a tail decides, by Hill's
    estimate (Annals of Statistics 3, 1975): the size that a sum has with a probability of LEVEL / 2 (step + 100), and
    at least (1 + step / 128) ** .2. In a run whose noise has a light tail that grows slowly, so that a change is found
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
        chance = LEVEL / (2 * (steps + _EARLIER))
        late: np.ndarray = np.maximum((1 + steps / _GROWS_OVER) ** _LATE, begins * (share / chance) ** (1 / power))
        return late


def _tail(sums: np.ndarray) -> tuple[float, float, float] | None:
    ordered = np.sort(sums[sums > 0])[::-1]
    if len(ordered) < _FEWEST:
        return None
    count = max(_FEWEST_OF_TAIL, int(_TAIL * len(ordered)))
    begins = float(ordered[count])
    slope = float(np.mean(np.log(ordered[:count] / begins)))
    power = min(_LIGHTEST, (1 - count**-0.5) / slope) if slope > 0 else _LIGHTEST
    return begins, count / len(ordered), power
