"""Distances between two barcodes of one dimension: 2-Wasserstein, sliced Wasserstein, bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from topo_callback.errors import MissingExtraError, TopologyError
from topo_callback.homology.machine import allowed_threads
from topo_callback.homology.wasserstein_kernels import alignment_cost, greatest_savings

DIRECTIONS = 50  # to begin with
TRIPLINGS = 5  # to 12,150 directions at most
TOLERANCE = 1e-3
_AT_ONCE = 1 << 21  # projected bars


@dataclass(frozen=True)
class Matching:
    """An optimal partial matching of finite bars, with the proof that none is better.

    Attributes:
        pairs: int64 [matched, 2], rows (bar of the first, bar of the second); all other bars go to the diagonal.
        cost: the sum of squared distances, the square of the 2-Wasserstein distance.
        lower_bound: no matching costs less, by the dual linear programme; equal to `cost` up to rounding, unless the
            matching was given up.
        finished: whether this is the best matching, not one that was given up.
    """

    pairs: Int64[np.ndarray, "matched 2"]
    cost: float
    lower_bound: float
    finished: bool = True


class UnfinishedMatchingError(TopologyError, RuntimeError):
    """A distance that was given up after so many steps as were allowed; it lies between `least` and `most`.

    Attributes:
        least, most: a lower bound by the dual linear programme, and the cost of the matching reached, as distances.
    """

    def __init__(self, bars: tuple[int, int], steps: int, least: float, most: float) -> None:
        super().__init__(
            f"the matching of {bars[0]} and {bars[1]} bars was given up after {steps} steps: the distance is between "
            f"{least:.6g} and {most:.6g}. Allow more steps, None for no limit, or compare fewer bars"
        )
        self.least, self.most = least, most


def wasserstein_distance(
    first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"], *, most_steps: int | None = None
) -> float:
    """The 2-Wasserstein distance of two barcodes of one dimension (Cohen-Steiner et al., 2010; q = 2, p = 2).

    The root of the least sum of squared Euclidean distances, over all ways of pairing bars of one with bars of the
    other or with the nearest point of the diagonal. Bars that never die are paired with each other in order of birth.
    Exact up to rounding in double precision; symmetric; deterministic.

    Args:
        first, second: float [bars, 2], rows (birth, death) in one unit; death may be `inf`.
        most_steps: give up after looking at pairs so often, each some 0.5 ns; None: never. Tens of thousands of bars
            that all lie on top of each other, as of noise, may take long.

    Returns:
        The distance in the unit of the bars; NaN, a missing value, where the numbers of bars that never die differ.

    Raises:
        ValueError: NaN, an infinite birth, or a death before its birth.
        UnfinishedMatchingError: given up; says between which bounds the distance lies.
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
        matching = optimal_matching(first, second, most_steps=most_steps)
        if not matching.finished and most_steps is not None:
            least, most = (math.sqrt(endless_cost + max(0.0, cost)) for cost in (matching.lower_bound, matching.cost))
            raise UnfinishedMatchingError((len(first), len(second)), most_steps, least, most)
        finite_cost = matching.cost
    return math.sqrt(endless_cost + finite_cost)


def wasserstein_distances(
    pairs: Sequence[tuple[Float[np.ndarray, "_ 2"], Float[np.ndarray, "_ 2"]]], *, threads: int | None = None
) -> Float64[np.ndarray, " pairs"]:
    """`wasserstein_distance` of each pair of barcodes, such as those of all layers or sub-samples.

    Args:
        pairs: (first, second), each float [bars, 2].
        threads: how many at once, by default one for each core allowed; the result does not depend on it.

    Returns:
        float64 [pairs], NaN where the numbers of bars that never die differ.

    Raises:
        ValueError: as `wasserstein_distance`.
    """
    count = min(threads or allowed_threads(), len(pairs))
    if count <= 1:
        return np.array([wasserstein_distance(first, second) for first, second in pairs], dtype=np.float64)
    with ThreadPoolExecutor(count) as pool:
        return np.array(list(pool.map(lambda pair: wasserstein_distance(*pair), pairs)), dtype=np.float64)


def optimal_matching(
    first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"], *, most_steps: int | None = None
) -> Matching:
    """The matching of finite bars behind the 2-Wasserstein distance, with a lower bound that certifies it.

    Deterministic. Source: Jonker and Volgenant (1987), shortest augmenting paths, among the pairs whose matching costs
    less than sending both to the diagonal; first of few bars, from whose duals those of all are begun.

    Args:
        first, second: float [bars, 2], rows (birth, death), all finite and not checked.
        most_steps: as in `wasserstein_distance`; what is reached then is a matching, and its lower bound holds.

    Returns:
        The pairs, the cost and its lower bound, in the square of the unit of the bars.
    """
    first_order, first_middle, first_lifetime = _by_midpoint(first)
    second_order, second_middle, second_lifetime = _by_midpoint(second)
    limit = np.iinfo(np.int64).max if most_steps is None else most_steps
    row_partner, row_dual, column_dual, finished = greatest_savings(
        first_middle, first_lifetime, second_middle, second_lifetime, limit
    )
    rows = np.flatnonzero(row_partner >= 0)
    columns = row_partner[rows]
    # summed from the distances themselves: the difference of large sums would lose the digits of a small distance
    alone = np.concatenate([np.delete(first_lifetime, rows), np.delete(second_lifetime, columns)])
    apart = first_middle[rows] - second_middle[columns]
    longer = first_lifetime[rows] - second_lifetime[columns]
    cost = float(np.sum(2 * apart**2 + longer**2 / 2) + np.sum(alone**2) / 2)
    diagonal = float(np.sum(first_lifetime**2) + np.sum(second_lifetime**2)) / 2
    pairs = np.stack([first_order[rows], second_order[columns]], axis=1).astype(np.int64)
    return Matching(pairs, cost, diagonal - float(row_dual.sum() + column_dual.sum()), bool(finished))


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


def sliced_wasserstein_distance(
    first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"], directions: int | None = None
) -> float:
    """The mean over directions of the 1-Wasserstein distance of the projected bars.

    Carrière, Cuturi and Oudot, ICML 2017, definition 3.1 with equal mass on every direction of the half circle: each
    barcode is joined by the projections of the other's bars onto the diagonal, both are projected onto a line, sorted,
    and the absolute differences are added up. A sum over bars, at most 2 sqrt(2) times their 1-Wasserstein distance
    (theorem 3.4 there).

    The integrand is continuous with many kinks, so the mean over n midpoints is wrong by about c / n^2 with a c that
    depends on the bars: on barcodes of Gaussian clouds 2 percent at worst with 50 of them. Directions are therefore
    tripled, from 50 on, until that changes the mean by less than 1e-3 of it; an error that falls with n^2 is then an
    eighth of the last change or less. Against 20,000 directions the error of 80 such pairs was 4e-5 of the distance in
    the median and 2e-4 at most. Deterministic.

    Args:
        first, second: float [bars, 2], rows (birth, death), all finite, in one unit.
        directions: so many midpoints, at least 1; None: as many as it takes.

    Returns:
        The distance in the unit of the bars.

    Raises:
        ValueError: a bar that is not finite, or fewer than 1 direction.
    """
    if (directions is not None and directions < 1) or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"finite bars and at least 1 direction are needed; got {directions} directions")
    one = np.concatenate([first, _on_diagonal(second)])
    other = np.concatenate([second, _on_diagonal(first)])
    if directions is not None:
        return _sum_over(one, other, (np.arange(directions) + 0.5) / directions) / directions
    count = DIRECTIONS
    total = _sum_over(one, other, (np.arange(count) + 0.5) / count)
    for _ in range(TRIPLINGS):
        before, count = total / count, 3 * count
        places = np.arange(count)
        # every second of three midpoints is one of the coarser ones
        total += _sum_over(one, other, (places[places % 3 != 1] + 0.5) / count)
        if abs(total / count - before) <= TOLERANCE * total / count:
            break
    return total / count


def _sum_over(
    one: Float64[np.ndarray, "all_bars 2"], other: Float64[np.ndarray, "all_bars 2"], places: Float64[np.ndarray, " _"]
) -> float:
    """The sum of the distances along directions, whose places on the half circle are between 0 and 1."""
    total = 0.0
    chunk = max(1, _AT_ONCE // max(1, len(one)))
    for start in range(0, places.size, chunk):
        angles = math.pi * (places[start : start + chunk] - 0.5)
        lines = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        # a row for each direction: sorting rows is twice as fast as sorting columns
        total += float(np.abs(np.sort(lines @ one.T, axis=1) - np.sort(lines @ other.T, axis=1)).sum())
    return total


def _on_diagonal(bars: Float[np.ndarray, "bars 2"]) -> Float64[np.ndarray, "bars 2"]:
    return np.repeat(bars.astype(np.float64).mean(axis=1, keepdims=True), 2, axis=1)


def bottleneck_distance(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> float:
    """The least over all matchings of the largest max-norm distance of matched bars, unmatched ones to the diagonal.

    Cohen-Steiner et al. (2007); exact, by gudhi. Barcodes that are close are close in it (stability), which the
    2-Wasserstein distance promises only up to a factor.

    Args:
        first, second: float [bars, 2], rows (birth, death) in one unit; death may be `inf`.

    Returns:
        The distance in the unit of the bars; `inf` where the numbers of bars that never die differ.

    Raises:
        MissingExtraError: gudhi is not installed.
    """
    try:
        import gudhi
    except ImportError as missing:
        raise MissingExtraError(
            "the bottleneck distance needs the package gudhi, which is not installed (there is no wheel for Linux on "
            'aarch64): pip install "topo_callback[engines]", or take wasserstein_distance, which needs nothing'
        ) from missing
    distance = float(gudhi.bottleneck_distance(first.astype(np.float64), second.astype(np.float64)))
    # for equal barcodes gudhi answers with a positive number that is as small as a double can be
    return distance if distance > 1e-300 else 0.0
