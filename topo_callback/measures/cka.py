"""Linear centred kernel alignment (CKA) of two clouds of the same prompts, from their distances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from topo_callback.measures.distances import row_means, squared_distances
from topo_callback.measures.missing import NOT_KEPT, Number, all_missing, or_missing
from topo_callback.measures.registry import LayerView, pair_measure

_Condensed = Float64[np.ndarray, " pairs"]
_ROUNDING = 1e-12  # a sum of squares that is this small a share of its first term is zero


class _Cloud(NamedTuple):
    """Squared distances, condensed, and the means of their rows."""

    condensed: _Condensed
    means: Float64[np.ndarray, " points"]


def debiased_cka(first: _Condensed, second: Float64[np.ndarray, " other_pairs"]) -> float | None:
    """Linear CKA with the unbiased estimator of HSIC (Song et al., JMLR 13, 2012, equation 5), at most 1.

    With zero diagonals, n (n - 3) HSIC = sum_ij K_ij L_ij + sum K sum L / ((n - 1)(n - 2))
    - 2 / (n - 2) sum_i (row i of K)(row i of L); K may be -D / 2, as the estimator does not see terms a_i + a_j.
    Near 0, of either sign, for unrelated clouds however wide.

    Args:
        first, second: squared distances of the same points, see `squared_distances`.

    Returns:
        None with fewer than 4 points, and where a cloud has no shape left after centring (all distances equal).

    Raises:
        ValueError: different numbers of points.
    """
    return _quotient(_cloud(first), _cloud(second), _debiased_inner)


@pair_measure("cka")
def cka(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`cka`, debiased linear CKA, and `cka_biased`, of one layer at two samples; 1 for equal shapes.

    They depend on neither scale nor rotation, and are ruled by the largest principal components. Missing where the
    earlier distances are no longer kept. Cost: points^2 operations; memory one matrix of doubles at a time.
    """
    if now.distances is None or earlier.distances is None:
        return all_missing(("cka", "cka_biased"), NOT_KEPT)
    first = _cloud(squared_distances(now.distances, now.metric))
    second = _cloud(squared_distances(earlier.distances, earlier.metric))
    return {
        "cka": or_missing(
            _quotient(first, second, _debiased_inner), "fewer than 4 points, or a cloud without shape after centring"
        ),
        "cka_biased": or_missing(_quotient(first, second, _inner), "all points of a cloud are equal"),
    }


def _cloud(condensed: _Condensed) -> _Cloud:
    return _Cloud(condensed, row_means(condensed))


def _quotient(first: _Cloud, second: _Cloud, inner: Callable[[_Cloud, _Cloud], float | None]) -> float | None:
    if first.means.size != second.means.size:
        raise ValueError(
            f"clouds of the same prompts are needed; got {first.means.size} and {second.means.size} points"
        )
    across, one, other = inner(first, second), inner(first, first), inner(second, second)
    if across is None or one is None or other is None:
        return None
    for cloud, square in ((first, one), (second, other)):
        if not square > _ROUNDING * 2 * float(cloud.condensed @ cloud.condensed):
            return None
    return min(1.0, across / math.sqrt(one * other))


def _inner(first: _Cloud, second: _Cloud) -> float:
    """4 <K, L> of the centred Gram matrices."""
    points = first.means.size
    products = 2 * float(first.condensed @ second.condensed)
    rows = float(first.means @ second.means)
    return products - 2 * points * rows + points**2 * float(first.means.mean() * second.means.mean())


def _debiased_inner(first: _Cloud, second: _Cloud) -> float | None:
    """4 n (n - 3) times the unbiased estimator of HSIC; None with fewer than 4 points."""
    points = first.means.size
    if points < 4:
        return None
    products = 2 * float(first.condensed @ second.condensed)
    rows = points**2 * float(first.means @ second.means)
    totals = points**4 * float(first.means.mean() * second.means.mean())
    return products + totals / ((points - 1) * (points - 2)) - 2 / (points - 2) * rows
