"""How far runs and objectives lie apart: differences of means, effect sizes, and distances between runs as a map.

The number of a run is its mean over the compared points. Intervals of differences are those of Welch (1947), or of the
differences within seeds where two objectives share all of theirs; no common spread is assumed. Effect sizes have
bootstrap intervals where there are seeds enough for one. Distances are of aligned curves; the map is classical
multidimensional scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.spatial.distance import pdist, squareform
from scipy.special import gammaln
from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Two objectives in one measure (median over layers).

    Attributes:
        difference: of the means, first less second, in the unit of the measure.
        interval: of the true difference; all intervals of a comparison hold together in 95 of 100 comparisons
            (Bonferroni over measures and pairs). None where an objective has one run.
        spread: between the runs of one objective: root of the mean of the two variances, in the unit of the measure.
        excluded: the smallest difference that these runs exclude, in spreads: the 95 % bound of the size of the true
            difference. Infinite where the runs of an objective do not differ, or there is one.
    """

    difference: float
    interval: tuple[float, float] | None
    spread: float
    excluded: float


def run_means(curves: Float64[np.ndarray, "runs points"]) -> Float64[np.ndarray, " runs"]:
    """Each run's mean over the points that have a number."""
    found: np.ndarray = curves[:, ~np.isnan(curves).any(axis=0)].mean(axis=1)
    return found


def paired_order(first: Sequence[int | str | None], second: Sequence[int | str | None]) -> list[int] | None:
    """The runs of the second in the order of the first one's seeds, or units; None unless both have the same."""
    if None in first or None in second or len(first) != len(second) or set(first) != set(second):
        return None
    return [list(second).index(seed) for seed in first]


def difference(
    first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " m"], *, paired: bool, comparisons: int
) -> Difference:
    """The difference of two objectives.

    Args:
        first: one number for each run of the first objective.
        second: for the second; with `paired`, its runs have the seeds of the first in the same order.
        paired: take the differences within seeds.
        comparisons: how many intervals shall hold together.
    """
    value = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return Difference(value, None, float("nan"), float("inf"))
    variances = np.array([first.var(ddof=1), second.var(ddof=1)])
    spread = float(np.sqrt(variances.mean()))
    sizes = np.array([len(first), len(second)])
    if paired:
        error, freedom = float(np.std(first - second, ddof=1) / np.sqrt(len(first))), float(len(first) - 1)
    else:
        error, freedom = (float(found) for found in welch(variances, sizes))
    if spread == 0.0:
        return Difference(value, None, spread, 0.0 if value == 0.0 else float("inf"))
    half = float(student.ppf(1 - (1 - CONFIDENCE) / 2 / comparisons, freedom)) * error
    bound = abs(value) + float(student.ppf(CONFIDENCE, freedom)) * error
    return Difference(value, (value - half, value + half), spread, bound / spread)


def welch(
    variances: Float[np.ndarray, objectives * batch], sizes: Shaped[np.ndarray, objectives * ones]
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Standard error and degrees of freedom of a difference of two means (Welch, 1947), over the first axis."""
    parts = variances / sizes
    squared = parts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = squared**2 / (parts**2 / (sizes - 1)).sum(axis=0)
    return np.asarray(np.sqrt(squared)), np.where(np.isfinite(freedom), freedom, (sizes - 1).min(axis=0))


def largest_excluded(found: Mapping[str, Difference]) -> tuple[str, float] | None:
    """The measure whose bound is the largest, and that bound: no measure differs by it or more.

    It holds at 95 % without a correction for the number of measures: it is below the largest true difference only where
    the bound of that one measure is (intersection-union: Berger, 1982).
    """
    if not found:
        return None
    measure = max(found, key=lambda name: found[name].excluded)
    return measure, found[measure].excluded


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


def curve_distances(curves: Float64[np.ndarray, "runs points"]) -> Float64[np.ndarray, "runs runs"] | None:
    """Root mean square difference over the points, in units of the measure; every sampled point counts the same.

    Points without a number are left out; None when no point is left.
    """
    numbers = curves[:, ~np.isnan(curves).any(axis=0)]
    if not numbers.shape[1]:
        return None
    found: np.ndarray = squareform(pdist(numbers)) / np.sqrt(numbers.shape[1])
    return found


def joint_distances(matrices: Iterable[Float64[np.ndarray, "runs runs"]]) -> Float64[np.ndarray, "runs runs"] | None:
    """One matrix of several: the root mean square of all, each divided by its own so that all count the same.

    A matrix of zeros says nothing and is left out; None when no other is left. The result has no unit; 1 is a typical
    distance between two runs.
    """
    scaled = [
        squared / np.mean(squared[np.triu_indices(len(squared), 1)])
        for squared in (matrix**2 for matrix in matrices)
        if squared.any()
    ]
    return np.sqrt(np.mean(scaled, axis=0)) if scaled else None


def energy_distance(distances: Float64[np.ndarray, "runs runs"], first: list[int], second: list[int]) -> float:
    """Energy distance between two groups of runs, 2 E|X-Y| - E|X-X'| - E|Y-Y'|, in units of the distances.

    It is that of the two empirical distributions (Szekely and Rizzo, 2013, V-statistic): at least 0, and above 0 also
    for samples of one distribution, so it is read beside the permutation test.
    """
    between, within_first, within_second = (
        float(distances[np.ix_(rows, columns)].mean())
        for rows, columns in ((first, second), (first, first), (second, second))
    )
    return max(0.0, 2 * between - within_first - within_second)


@dataclass(frozen=True)
class RunMap:
    """Places of runs in the plane.

    Attributes:
        coordinates: float64 [runs, 2], centred, in units of the distances.
        explained: share of the variance of each coordinate among all dimensions.
        stress: Kruskal's stress-1: root of the squared error of the distances on the map over their sum of squares;
            0 is a faithful map.
    """

    coordinates: Float64[np.ndarray, "runs 2"]
    explained: tuple[float, float]
    stress: float


def run_map(distances: Float64[np.ndarray, "runs runs"]) -> RunMap:
    """Classical scaling (Torgerson, 1952); the coordinate of largest size is positive on each axis.

    Args:
        distances: symmetric, Euclidean, not all zero.
    """
    centring = np.eye(len(distances)) - 1.0 / len(distances)
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    values = np.clip(values[::-1], 0.0, None)
    vectors = vectors[:, ::-1]
    coordinates = np.zeros((len(distances), 2))
    width = min(2, len(distances))
    coordinates[:, :width] = vectors[:, :width] * np.sqrt(values[:width])
    largest = np.abs(coordinates).argmax(axis=0)
    coordinates *= np.where(coordinates[largest, [0, 1]] < 0, -1.0, 1.0)
    shares = values / values.sum()
    drawn = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    stress = float(np.sqrt(((drawn - distances) ** 2).sum() / (distances**2).sum()))
    return RunMap(coordinates, (float(shares[0]), float(shares[1]) if width > 1 else 0.0), stress)
