"""Level A, calibrated: a conformal p-value of a run's largest excess against reference runs.

Run and references are members of one set. Every interval is centred at the median of the members and divided by their
spread; the excess of a member is the largest standardised mean over windows of its series. All of it treats the
members alike, so where the run is one more quiet run of the same kind, each of them is equally likely to have the
largest excess, whatever the noise (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005): with R
references the p-value (1 + references that exceed the run) / (R + 1) is valid. A reference counts as exceeding the
run from nine tenths of its excess on: that costs little power and makes the p-value, exactly 5 % at best with 19
references, smaller than its level.

A run that is still going is compared with the whole of its references: its excess so far can only grow, so looking at
every sample costs nothing. Only their centre, in the intervals that the run has yet to reach, lacks the run.

Run and references are laid on one grid of intervals, as displacement over what the path predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.response import fit_response
from topo_callback.dynamics.series import Series, comparable
from topo_callback.dynamics.summaries import MAD, row_medians, summarise

FEWEST_REFERENCES = 19  # for a p-value of 5 %
_EVERY = 8  # samples up to which a run is looked at after each; then at a third more
_SHORTEST = 2  # intervals in a window
_CLIP, _CLIP_SHORT = 3.0, 75.0
_FEWEST_FOR_PAIRS = 7  # intervals; with fewer of them a window may be one interval
_MARGIN = 0.9
_FLOOR = 0.02  # smallest spread of log velocity


def largest_excesses(
    log_velocity: Float64[np.ndarray, "sets members summaries intervals"], own: int
) -> tuple[Float64[np.ndarray, "sets members"], Int64[np.ndarray, "sets 3"]]:
    """The largest excess of every member, and the window of the first one: summary, first and last interval.

    Args:
        log_velocity: of the depth summaries; member 0 is the run and has values in the first `own` intervals only.
        own: at least 1.
    """
    sets, members, summaries, intervals = log_velocity.shape
    deviation = np.empty_like(log_velocity)
    past, future = np.s_[:, :, :, :own], np.s_[:, 1:, :, own:]
    for part in (past, future):
        values = log_velocity[part].swapaxes(1, 3)
        deviation[part] = (values - row_medians(values)).swapaxes(1, 3)
    deviation[:, 0, :, own:] = 0.0
    spread = np.empty((sets, 1, summaries, intervals))
    for part, where in ((past, np.s_[..., :own]), (future, np.s_[..., own:])):
        spread[where] = MAD * row_medians(np.abs(deviation[part]).swapaxes(1, 3)).swapaxes(1, 3)
    # the spread of one interval rests on some twenty values: half its own, half that of all
    spread = np.sqrt((spread**2 + (spread**2).mean(axis=3, keepdims=True)) / 2)
    standard = deviation / np.maximum(spread, _FLOOR)
    limit = _CLIP + _CLIP_SHORT / intervals
    standard = np.clip(standard, -limit, limit)
    running = np.concatenate([np.zeros((sets, members, summaries, 1)), np.cumsum(standard, axis=3)], axis=3)
    excess = np.full((sets, members), -np.inf)
    window = np.zeros((sets, 3), dtype=np.int64)
    for wide in _widths(intervals):
        means = (running[..., wide:] - running[..., :-wide]) / wide
        # what windows of this width do in the references, whatever their autocorrelation
        usual = np.abs(means[:, 1:]).mean(axis=(1, 2, 3), keepdims=True)
        means /= np.maximum(usual, 1e-12)
        means[:, 0, :, max(0, own - wide + 1) :] = -np.inf
        flat = means.reshape(sets, members, -1)
        place = flat[:, 0].argmax(axis=1)
        better = np.flatnonzero(flat[np.arange(sets), 0, place] > excess[:, 0])
        summary, first = np.divmod(place[better], means.shape[3])
        window[better] = np.stack([summary, first, first + wide - 1], axis=1)
        excess = np.maximum(excess, flat.max(axis=2))
    return excess, window


def conformal_p_values(excess: Float64[np.ndarray, "sets members"]) -> Float64[np.ndarray, " sets"]:
    """(1 + references whose excess is at least 0.9 times that of the run) / (references + 1); member 0 is the run."""
    p_values: np.ndarray = (1 + (excess[:, 1:] >= _MARGIN * excess[:, :1]).sum(axis=1)) / excess.shape[1]
    return p_values


def is_look(samples: int, progress: float | None) -> bool:
    """Whether a run is tested when it has so many samples: up to 8, at 11, 15, 20, 27, 36, 48, ..., and at its end.

    Args:
        progress: share of the training steps that are done; None where their number is not known.
    """
    size = _EVERY
    while size < samples:
        size = -(-size * 4 // 3)
    return samples <= _EVERY or size == samples or (progress is not None and progress >= 1.0)


def _widths(intervals: int) -> list[int]:
    """2, 3, 4, 5, then growing by a third, up to a third of the intervals; 1 where there are few."""
    found = [_SHORTEST]
    while (wider := max(found[-1] + 1, int(found[-1] * 1.35))) <= intervals / 3:
        found.append(wider)
    found = [wide for wide in found if wide <= max(1, intervals // 2)]
    return [1, *found] if intervals < _FEWEST_FOR_PAIRS else found


@dataclass(frozen=True)
class CalibratedDecision:
    """Level A with some of the samples.

    Attributes:
        p_value: conformal.
        summary: 0, the mean over layers, or 1, the layers that moved most.
        first: first interval of the window with the largest excess, of the run's.
        last: last interval of it.
    """

    p_value: float
    summary: int
    first: int
    last: int


class AlignedReferences:
    """A run and its references as log velocities on one grid of intervals.

    The references' intervals are laid over those of the run: where one of the run's covers several of theirs, or
    parts of them, the mean over steps counts. Beyond the samples of the run the intervals are those of the first
    reference. The response to the path is one for all: that of the mean over layers of all references.

    Args:
        measure: the displacement; every reference has it.
    """

    def __init__(self, run: Series, references: Sequence[Series], measure: str) -> None:
        self._run, self._references = run, references
        every = [reference.log_displacement(measure) for reference in references]
        means = np.concatenate([_row_means(values) for values in every])
        paths = np.concatenate([reference.path for reference in references])
        kept = np.flatnonzero(comparable(paths) & np.isfinite(means))
        self._response = fit_response(means[kept][None], np.log(paths[kept])) if kept.size else None
        self._own = self._velocity(run, run.log_displacement(measure))
        self._theirs = [self._velocity(reference, values) for reference, values in zip(references, every, strict=True)]
        self._aligned: dict[tuple[int, ...], np.ndarray] = {}

    def aligned(self, samples: int) -> Float64[np.ndarray, "members intervals layers"]:
        """Log velocities, the run first; NaN where missing, and for the run beyond so many samples."""
        last = self._run.steps[samples - 1]
        grid = (*self._run.steps[:samples], *(step for step in self._references[0].steps if step > last))
        if grid not in self._aligned:
            self._aligned[grid] = np.stack(
                [
                    _over(np.array(grid), np.array(reference.steps), values)
                    for reference, values in zip(self._references, self._theirs, strict=True)
                ]
            )
        own = np.full_like(self._aligned[grid][:1], np.nan)
        own[0, : samples - 1] = self._own[: samples - 1]
        return np.concatenate([own, self._aligned[grid]])

    def excess(self, samples: int) -> Float64[np.ndarray, "intervals layers"]:
        """Log velocity of the run over the median of its references; NaN where either is missing."""
        aligned = self.aligned(samples)[:, : samples - 1]
        missing = ~np.isfinite(aligned[1:]).any(axis=0)
        middle = np.nanmedian(np.where(missing, 0.0, aligned[1:]), axis=0)
        excess: np.ndarray = np.where(missing, np.nan, aligned[0] - middle)
        return excess

    def decide(self, samples: int) -> CalibratedDecision | None:
        """The decision with the first samples of the run; None where nothing can be compared."""
        aligned = self.aligned(samples)
        # layers without a value, as a degenerate one, and intervals that some reference lacks, say nothing
        aligned = aligned[:, :, np.isfinite(aligned[1:]).any(axis=(0, 1))]
        kept = np.flatnonzero(np.isfinite(aligned[1:]).any(axis=2).all(axis=0))
        past = np.intersect1d(kept, np.flatnonzero(np.isfinite(aligned[0]).any(axis=1)))
        if not past.size:
            return None
        order = np.concatenate([past, kept[kept >= samples - 1]])
        velocity = aligned[:, order]
        relative = velocity - np.nanmean(velocity[1:], axis=(0, 1))  # layers made comparable by the references
        summaries = np.full((1, len(velocity), 2, len(order)), np.nan)
        summaries[0, 1:] = summarise(relative[1:]).swapaxes(0, 1)
        summaries[0, 0, :, : len(past)] = summarise(relative[0, : len(past)])
        excess, window = largest_excesses(summaries, len(past))
        summary, first, last = window[0].tolist()
        return CalibratedDecision(float(conformal_p_values(excess)[0]), summary, int(past[first]), int(past[last]))

    def _velocity(self, member: Series, log_displacement: np.ndarray) -> np.ndarray:
        # short intervals too: references have the same ones, so the response hardly matters
        moved = member.path > 0
        predicted = np.full(len(member.path), np.nan)
        if self._response is not None:
            predicted[moved] = self._response.predict(np.log(member.path[moved]))[0]
        velocity: np.ndarray = log_displacement - predicted[:, None]
        return velocity


def _row_means(values: np.ndarray) -> np.ndarray:
    means = np.full(len(values), np.nan)
    present = np.isfinite(values).any(axis=1)
    means[present] = np.nanmean(values[present], axis=1)
    return means


def _over(grid: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of values over the intervals of a grid, weighted by the steps that intervals share; NaN where none are."""
    if np.array_equal(grid, steps):
        return values
    shared = np.minimum(grid[1:, None], steps[1:]) - np.maximum(grid[:-1, None], steps[:-1])
    shared = np.clip(shared, 0, None).astype(np.float64)
    present = np.isfinite(values)
    weight = shared @ present.astype(np.float64)
    total = shared @ np.where(present, values, 0.0)
    means: np.ndarray = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return means
