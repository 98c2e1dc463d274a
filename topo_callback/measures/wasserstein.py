"""The 2-Wasserstein distance of two barcodes, exactly: order 2 with Euclidean ground distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from topo_callback.homology.threads import allowed_threads
from topo_callback.measures.wasserstein_kernels import alignment_cost, greatest_savings, saving_pairs


@dataclass(frozen=True)
class Matching:
    """An optimal partial matching of finite bars, with the proof that none is better.

    Attributes:
        pairs: int64 [matched, 2], rows (bar of the first, bar of the second); all other bars go to the diagonal.
        cost: the sum of squared distances, the square of the 2-Wasserstein distance.
        lower_bound: no matching costs less, by the dual linear programme; equal to `cost` up to rounding.
    """

    pairs: Int64[np.ndarray, "matched 2"]
    cost: float
    lower_bound: float


def wasserstein_distance(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> float:
    """The 2-Wasserstein distance of two barcodes of one dimension (Cohen-Steiner et al., 2010; q = 2, p = 2).

    The root of the least sum of squared Euclidean distances, over all ways of pairing bars of one with bars of the
    other or with the nearest point of the diagonal. Bars that never die are paired with each other in order of birth.
    Exact up to rounding in double precision; symmetric; deterministic.

    Args:
        first, second: float [bars, 2], rows (birth, death) in one unit; death may be `inf`.

    Returns:
        The distance in the unit of the bars; NaN, a missing value, where the numbers of bars that never die differ.

    Raises:
        ValueError: NaN, an infinite birth, or a death before its birth.
    """
    first, second = _checked(first, "first"), _checked(second, "second")
    first_endless, second_endless = (np.sort(bars[np.isinf(bars[:, 1]), 0]) for bars in (first, second))
    if first_endless.size != second_endless.size:
        return math.nan
    endless_cost = float(np.sum((first_endless - second_endless) ** 2))
    first, second = (bars[np.isfinite(bars[:, 1])] for bars in (first, second))
    births = np.concatenate([first[:, 0], second[:, 0]])
    if births.size and np.all(births == births[0]):
        # all born together, as in H0 of a Vietoris-Rips filtration: a problem on a line
        finite_cost = float(alignment_cost(np.sort(first[:, 1] - births[0]), np.sort(second[:, 1] - births[0])))
    else:
        finite_cost = optimal_matching(first, second).cost
    return math.sqrt(endless_cost + finite_cost)


def wasserstein_h0(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> float:
    """`wasserstein_distance` of two H0 barcodes: bars born together make it an alignment of sorted deaths."""
    return wasserstein_distance(first, second)


def wasserstein_h1(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> float:
    """`wasserstein_distance` of two H1 barcodes: an assignment on the sparse graph of pairs worth matching."""
    return wasserstein_distance(first, second)


def wasserstein_distances(
    pairs: Sequence[tuple[Float[np.ndarray, "_ 2"], Float[np.ndarray, "_ 2"]]], *, threads: int | None = None
) -> Float64[np.ndarray, " pairs"]:
    """`wasserstein_distance` of each pair of barcodes, such as those of all layers or sub-samples.

    Args:
        pairs: (first, second), each float [bars, 2].
        threads: how many at once, by default one for each core allowed; the result does not depend on it.
    """
    count = min(threads or allowed_threads(), len(pairs))
    if count <= 1:
        return np.array([wasserstein_distance(first, second) for first, second in pairs], dtype=np.float64)
    with ThreadPoolExecutor(count) as pool:
        return np.array(list(pool.map(lambda pair: wasserstein_distance(*pair), pairs)), dtype=np.float64)


def optimal_matching(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> Matching:
    """The matching of finite bars behind the 2-Wasserstein distance, with a lower bound that certifies it.

    Args:
        first, second: float [bars, 2], rows (birth, death), all finite.
    """
    first_order, first_middle, first_lifetime = _by_midpoint(first)
    second_order, second_middle, second_lifetime = _by_midpoint(second)
    starts, partners, savings = saving_pairs(first_middle, first_lifetime, second_middle, second_lifetime)
    row_partner, row_dual, column_dual = greatest_savings(starts, partners, savings, second_middle.size)
    rows = np.flatnonzero(row_partner >= 0)
    columns = row_partner[rows]
    # summed from the distances themselves: the difference of large sums would lose the digits of a small distance
    alone = np.concatenate([np.delete(first_lifetime, rows), np.delete(second_lifetime, columns)])
    apart = first_middle[rows] - second_middle[columns]
    longer = first_lifetime[rows] - second_lifetime[columns]
    cost = float(np.sum(2 * apart**2 + longer**2 / 2) + np.sum(alone**2) / 2)
    diagonal = float(np.sum(first_lifetime**2) + np.sum(second_lifetime**2)) / 2
    pairs = np.stack([first_order[rows], second_order[columns]], axis=1).astype(np.int64)
    return Matching(pairs, cost, diagonal - float(row_dual.sum() + column_dual.sum()))


def _by_midpoint(
    bars: Float[np.ndarray, "bars 2"],
) -> tuple[Int64[np.ndarray, " bars"], Float64[np.ndarray, " bars"], Float64[np.ndarray, " bars"]]:
    """(order, midpoints, lifetimes) of bars sorted by midpoint; ties by birth, so that the result is deterministic."""
    middle = (bars[:, 0] + bars[:, 1]).astype(np.float64) / 2
    order = np.lexsort((bars[:, 0], middle))
    return order, middle[order], (bars[order, 1] - bars[order, 0]).astype(np.float64)


def _checked(bars: np.ndarray, name: str) -> Float64[np.ndarray, "bars 2"]:
    bars = np.asarray(bars, dtype=np.float64)
    if bars.ndim != 2 or bars.shape[1] != 2:
        raise ValueError(f"{name} has shape {bars.shape}; expected is [bars, 2], rows (birth, death)")
    wrong = np.flatnonzero(~(bars[:, 0] <= bars[:, 1]) | np.isinf(bars[:, 0]))
    if wrong.size:
        raise ValueError(
            f"{name}[{wrong[0]}] is {bars[wrong[0]].tolist()}; expected is a finite birth and a death not before it"
        )
    return bars
