"""Differences of means between two objectives: in the unit of the measure and in spreads between seeds.

The number of a run is its mean over the compared points. Intervals are those of Welch (1947), or of the differences
within seeds where two objectives share all of theirs; no common spread is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped
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
