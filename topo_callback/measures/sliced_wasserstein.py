"""Displacement by the sliced Wasserstein distance: barcodes compared along lines."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64

from topo_callback.measures.missing import UNEQUAL_ENDLESS, Missing, Number
from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView

DIRECTIONS = 50  # to begin with
TRIPLINGS = 5  # to 12,150 directions at most
TOLERANCE = 1e-3
_AT_ONCE = 1 << 21  # projected bars


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


@pair_measure("sliced_wasserstein")
def sliced_wasserstein(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`sliced_wasserstein_h0` and `_h1`: of the finite bars of the median-scaled barcodes, in median distances.

    Missing where the barcodes have different numbers of bars that never die. Cost: 150 to
    12,150 sorts of all bars, mostly 450.
    """
    found: dict[str, Number] = {}
    for dimension in (0, 1):
        bars, endless = [], []
        for view in (now, earlier):
            all_bars = view.scaled_barcode.of(dimension)
            finite = np.isfinite(all_bars[:, 1])
            bars.append(all_bars[finite])
            endless.append(int((~finite).sum()))
        name = f"sliced_wasserstein_h{dimension}"
        if endless[0] == endless[1]:
            found[name] = sliced_wasserstein_distance(bars[0], bars[1])
        else:
            found[name] = Missing(UNEQUAL_ENDLESS)
    return found
