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
    """Level A at one sample.

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


def decide_calibrated(
    run: Series, references: Sequence[Series], measure: str, samples: int
) -> CalibratedDecision | None:
    """Compare the first samples of a run with reference runs; None where nothing can be compared.

    The references' intervals are laid over those of the run: where one of the run's covers several of theirs, or
    parts of them, the mean over steps counts. Beyond the samples of the run the intervals are those of the first
    reference.

    Args:
        samples: how many samples of the run to look at.
    """
    aligned = align(run, references, measure, samples)
    kept = np.flatnonzero(np.isfinite(aligned).any(axis=2)[1:].all(axis=0))
    own = np.flatnonzero(np.isfinite(aligned[0]).any(axis=1))
    past = np.intersect1d(kept, own)
    future = kept[kept >= samples - 1]
    if not past.size:
        return None
    order = np.concatenate([past, future])
    velocity = aligned[:, order]
    summaries = np.full((1, len(velocity), 2, len(order)), np.nan)
    relative = velocity - np.nanmean(velocity[1:], axis=(0, 1))  # layers made comparable by the references
    summaries[0, 1:] = summarise(relative[1:]).swapaxes(0, 1)
    summaries[0, 0, :, : len(past)] = summarise(relative[0, : len(past)])
    excess, window = largest_excesses(summaries, len(past))
    summary, first, last = window[0].tolist()
    return CalibratedDecision(float(conformal_p_values(excess)[0]), summary, int(past[first]), int(past[last]))


def align(
    run: Series, references: Sequence[Series], measure: str, samples: int
) -> Float64[np.ndarray, "members intervals layers"]:
    """Log velocities on one grid, the run first; NaN where missing, and for the run beyond its samples.

    The response to the path is one for all: that of the mean over layers of all references.
    """
    every = [reference.log_displacement(measure) for reference in references]
    means = np.concatenate([_row_means(values) for values in every])
    paths = np.concatenate([reference.path for reference in references])
    kept = np.flatnonzero(comparable(paths) & np.isfinite(means))
    future = [step for step in references[0].steps if step > run.steps[samples - 1]]
    grid = np.array([*run.steps[:samples], *future])
    aligned = np.full((1 + len(references), len(grid) - 1, len(run.layers)), np.nan)
    if kept.size:
        log_path = np.log(paths[kept])
        response = fit_response(means[kept][None], log_path)
        members = [(run, run.log_displacement(measure)), *zip(references, every, strict=True)]
        for number, (member, values) in enumerate(members):
            # short intervals too: references have the same ones, so the response hardly matters
            moved = member.path > 0
            predicted = np.full(len(member.path), np.nan)
            predicted[moved] = response.predict(np.log(member.path[moved]))[0]
            velocity = values - predicted[:, None]
            if number == 0:
                aligned[0, : samples - 1] = velocity[: samples - 1]
            else:
                aligned[number] = _over(grid, np.array(member.steps), velocity)
    return aligned


def _row_means(values: np.ndarray) -> np.ndarray:
    means = np.full(len(values), np.nan)
    present = np.isfinite(values).any(axis=1)
    means[present] = np.nanmean(values[present], axis=1)
    return means


def _over(grid: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of values over the intervals of a grid, weighted by the steps that intervals share; NaN where none are."""
    shared = np.minimum(grid[1:, None], steps[1:]) - np.maximum(grid[:-1, None], steps[:-1])
    shared = np.clip(shared, 0, None).astype(np.float64)
    present = np.isfinite(values)
    weight = shared @ present.astype(np.float64)
    total = shared @ np.where(present, values, 0.0)
    means: np.ndarray = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return means
