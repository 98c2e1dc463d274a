"""A run beside its references: all of them on one grid of intervals, as displacement over what the path predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from topo_callback.dynamics.calibrated import conformal_p_values, largest_excesses
from topo_callback.dynamics.clock import comparable
from topo_callback.dynamics.depth import summarise
from topo_callback.dynamics.response import fit_response
from topo_callback.dynamics.series import Series


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


class Comparison:
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
