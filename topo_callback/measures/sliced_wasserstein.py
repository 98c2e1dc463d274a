"""Displacement by the sliced Wasserstein distance: barcodes compared along lines."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64

from topo_callback.measures.missing import UNEQUAL_ENDLESS, Missing, Number
from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView

DIRECTIONS = 50


def sliced_wasserstein_distance(
    first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"], directions: int = DIRECTIONS
) -> float:
    """The mean over directions of the 1-Wasserstein distance of the projected bars.

    Carrière, Cuturi and Oudot, ICML 2017, definition 3.1 with equal mass on every direction of the half circle: each
    barcode is joined by the projections of the other's bars onto the diagonal, both are projected onto a line, sorted,
    and the absolute differences are added up. The integral is the mean over `directions` midpoints, right to about
    1 / directions^2. A sum over bars, at most 2 sqrt(2) times their 1-Wasserstein distance (theorem 3.4 there).

    Args:
        first, second: float [bars, 2], rows (birth, death), all finite, in one unit.
        directions: at least 1.

    Returns:
        The distance in the unit of the bars.

    Raises:
        ValueError: a bar that is not finite, or fewer than 1 direction.
    """
    if directions < 1 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"finite bars and at least 1 direction are needed; got {directions} directions")
    angles = (np.arange(directions) + 0.5) * math.pi / directions - math.pi / 2
    lines = np.stack([np.cos(angles), np.sin(angles)])
    one = np.concatenate([first, _on_diagonal(second)]) @ lines
    other = np.concatenate([second, _on_diagonal(first)]) @ lines
    one.sort(axis=0)
    other.sort(axis=0)
    return float(np.abs(one - other).sum() / directions)


def _on_diagonal(bars: Float[np.ndarray, "bars 2"]) -> Float64[np.ndarray, "bars 2"]:
    return np.repeat(bars.astype(np.float64).mean(axis=1, keepdims=True), 2, axis=1)


@pair_measure("sliced_wasserstein")
def sliced_wasserstein(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`sliced_wasserstein_h0` and `_h1`: of the finite bars of the median-scaled barcodes, in median distances.

    Missing where the barcodes have different numbers of bars that never die. Cost: 50 sorts of all bars.
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
