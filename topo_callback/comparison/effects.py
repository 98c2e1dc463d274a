"""Effect sizes between two objectives, with bootstrap intervals where there are seeds enough for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import gammaln

SEEDS_FOR_INTERVAL = 5
RESAMPLES = 2_000


@dataclass(frozen=True)
class EffectSizes:
    """How far two objectives lie apart in one number per run; positive when the first one is larger.

    Attributes:
        hedges_g: difference of the means in pooled standard deviations, without the bias of small samples (Hedges,
            1981); None where neither group varies or one has a single run.
        cliffs_delta: P(first > second) - P(first < second), -1 to 1 (Cliff, 1993).
        hedges_g_interval: 95 % bootstrap percentile interval; None below five seeds in an objective.
        cliffs_delta_interval: the same.
    """

    hedges_g: float | None
    cliffs_delta: float
    hedges_g_interval: tuple[float, float] | None = None
    cliffs_delta_interval: tuple[float, float] | None = None


def hedges_g(
    first: Float[np.ndarray, "*batch n"], second: Float[np.ndarray, "*batch m"]
) -> Float[np.ndarray, "*batch"]:
    """Hedges' g of two samples, over the last axis; infinite or NaN where neither sample varies."""
    n, m = first.shape[-1], second.shape[-1]
    freedom = n + m - 2
    squares = first.var(axis=-1) * n + second.var(axis=-1) * m
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = correction * (first.mean(axis=-1) - second.mean(axis=-1)) / np.sqrt(squares / freedom)
    return np.asarray(found)


def cliffs_delta(
    first: Float[np.ndarray, "*batch n"], second: Float[np.ndarray, "*batch m"]
) -> Float[np.ndarray, "*batch"]:
    """Cliff's delta of two samples, over the last axis."""
    return np.asarray(np.sign(first[..., :, None] - second[..., None, :]).mean(axis=(-2, -1)))


def effect_sizes(
    first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " m"], *, paired: bool, intervals: bool, seed: int = 0
) -> EffectSizes:
    """Both effect sizes of two objectives.

    Args:
        first: one number for each run of the first objective.
        second: for the second; with `paired`, its runs have the seeds of the first in the same order.
        paired: resample seeds, which takes both runs of a seed along, instead of runs.
        intervals: whether bootstrap intervals are wanted; below `SEEDS_FOR_INTERVAL` runs there are none.
        seed: of the resampling.
    """
    g = float(hedges_g(first, second)) if min(len(first), len(second)) > 1 else np.nan
    delta = float(cliffs_delta(first, second))
    g_interval = delta_interval = None
    if intervals and min(len(first), len(second)) >= SEEDS_FOR_INTERVAL and np.isfinite(g):
        g_interval = _interval(hedges_g, first, second, paired, seed)
        delta_interval = _interval(cliffs_delta, first, second, paired, seed)
    return EffectSizes(g if np.isfinite(g) else None, delta, g_interval, delta_interval)


def _interval(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    paired: bool,
    seed: int,
) -> tuple[float, float] | None:
    """Percentile interval; None where resamples without any spread leave an end infinite.

    scipy.stats.bootstrap does not take a statistic that can be infinite.
    """
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(first), size=(RESAMPLES, len(first)))
    columns = rows if paired else generator.integers(len(second), size=(RESAMPLES, len(second)))
    found = statistic(first[rows], second[columns])
    # no order statistic is interpolated with an infinite one
    low, high = (float(np.quantile(found, share, method="inverted_cdf")) for share in (0.025, 0.975))
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None
