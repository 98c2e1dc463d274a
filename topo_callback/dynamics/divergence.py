"""Divergence: a loss that rose at a change of training and stayed up, or is no number any more.

A loss that goes back to where it was before an earlier change has not diverged: it ends what that change began, as
when data that could be learnt by heart give way to the ones before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from topo_callback.dynamics.reorganisation import Event
from topo_callback.records.training_steps import TrainingSteps
from topo_callback.wording import rounded

BEFORE, FEWEST_BEFORE = 16, 8  # losses before a change that those behind it are compared with
STAYS = 32  # losses behind it, the newest ones
WATCHED = 512  # losses behind a change, as long as which it is looked at
FACTOR = 1.25  # by which their median is higher, at least
_MOST_LOW = 0.25  # share of them that may be as low as the highest of those before
NOT_FINITE = 8  # losses in a row
_KEPT = BEFORE + 64  # more than the widest window of a change


@dataclass(frozen=True)
class _Open:
    """A change that is looked at.

    Attributes:
        before: the losses before it.
        highest: the highest of those before it and before the changes of the while before.
        looked_at: how many of the losses behind it are too few, or have been looked at.
    """

    change: Event
    before: np.ndarray
    highest: np.ndarray
    looked_at: int


class DivergenceWatch:
    """Takes steps and the changes that they show; what it finds does not depend on how they are portioned."""

    def __init__(self) -> None:
        self._steps = np.empty(0, dtype=np.int64)  # with a finite loss
        self._losses = np.empty(0)
        self._open: list[_Open] = []
        self._earlier: list[tuple[int, np.ndarray]] = []  # of the changes of a while: first step, losses before
        self._lost_since: int | None = None
        self._lost = 0  # losses in a row that are not finite

    def take(self, steps: TrainingSteps, changes: Sequence[Event]) -> list[Event]:
        """The divergences that the next steps show.

        Args:
            changes: of these steps.
        """
        loss, known = steps.column("loss"), steps.known[:, 0]
        finite = np.isfinite(loss)
        self._steps = np.concatenate([self._steps, steps.step[finite]])
        self._losses = np.concatenate([self._losses, loss[finite]])
        for change in changes:
            before = self._losses[self._steps < change.first_step][-BEFORE:]
            if len(before) >= FEWEST_BEFORE:
                self._earlier = [each for each in self._earlier if change.first_step - each[0] <= WATCHED]
                self._earlier.append((change.first_step, before))
                highest = max((losses for _, losses in self._earlier), key=lambda losses: float(np.median(losses)))
                self._open.append(_Open(change, before, highest, STAYS))
        found = [*self._decided(), *self._not_finite(steps.step[known], finite[known])]
        oldest = min((each.change.known_at for each in self._open), default=int(np.iinfo(np.int64).max))
        kept = min(max(0, len(self._steps) - _KEPT), int(np.searchsorted(self._steps, oldest)))
        self._steps, self._losses = self._steps[kept:], self._losses[kept:]
        return found

    def _decided(self) -> Iterator[Event]:
        """The first change from which the loss has not come back: its newest losses, at each step of a while."""
        still: list[_Open] = []
        for each in self._open:
            change = each.change
            place = int(np.searchsorted(self._steps, change.known_at, side="right"))
            after = self._losses[place : place + WATCHED]
            first = _stays_up(each.highest, after, max(each.looked_at, STAYS))
            if first is not None:
                last = int(self._steps[place + first - 1])
                factor = float(np.median(after[first - STAYS : first]) / np.median(each.before))
                words = (
                    f"the loss has stayed {rounded(factor)}x what it was before the change of step "
                    f"{change.first_step}, for {STAYS} steps"
                )
                yield Event("divergence", change.level, change.first_step, last, last, (), factor, None, words)
                still = []
                break
            if len(after) < WATCHED:
                still.append(replace(each, looked_at=len(after) + 1))
        self._open = still

    def _not_finite(self, steps: np.ndarray, finite: np.ndarray) -> Iterator[Event]:
        for step, is_number in zip(steps.tolist(), finite.tolist(), strict=True):
            if is_number:
                self._lost_since, self._lost = None, 0
                continue
            self._lost_since = step if self._lost_since is None else self._lost_since
            self._lost += 1
            if self._lost == NOT_FINITE:
                words = f"the loss has not been finite for {NOT_FINITE} steps, since step {self._lost_since}"
                yield Event("divergence", "observed", self._lost_since, step, step, (), None, None, words)


def _stays_up(before: np.ndarray, after: np.ndarray, fewest: int) -> int | None:
    """Of how many losses behind a change, `fewest` or more, the newest have stayed up; None where there is no such."""
    if len(after) < fewest or not np.median(before) > 0:
        return None
    newest = sliding_window_view(after[fewest - STAYS :], STAYS)
    high = np.median(newest, axis=1) >= FACTOR * np.median(before)
    high &= np.quantile(newest, _MOST_LOW, axis=1) > before.max()
    found = np.flatnonzero(high)
    return fewest + int(found[0]) if found.size else None
