"""The size of a cloud, beside topology, and the angles between its points as seen from their centroid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.spatial.distance import squareform

from topo_callback.measures.distances import centroid_distances, row_means, squared_distances
from topo_callback.measures.missing import NOT_KEPT, Missing, Number, or_missing
from topo_callback.measures.registry import LayerView, layer_measure


@layer_measure("scale")
def scale(view: LayerView) -> dict[str, float]:
    """Median, mean and largest pairwise distance, in units of the metric, and total variance.

    For n points, total variance with divisor n is the sum of squared Euclidean distances over pairs / n^2, in squared
    activation units. With the metrics cosine and correlation it is that of the normalised points, at most 1, without
    unit, as are the spectrum and every other number that is made from inner products.
    """
    numbers = {"median_distance": view.median}
    if view.distances is not None:
        distances = view.distances.astype(np.float64)
        points = len(view.neighbours)
        numbers["mean_distance"] = float(distances.mean())
        numbers["diameter"] = float(distances.max())
        numbers["total_variance"] = float(np.sum(squared_distances(distances, view.metric))) / points**2
    return numbers


def mean_centred_cosine(condensed: Float64[np.ndarray, " pairs"]) -> float | None:
    """Mean over pairs of the cosine of the angle at the centroid, in [-1 / (points - 1), 1].

    By the law of cosines, (a_i + a_j - d_ij^2) / (2 sqrt(a_i a_j)) with a_i the squared distance of point i to the
    centroid. The lowest value is that of unit vectors that add up to zero. A point counts as lying at the centroid,
    where it has no angle, when a_i is no more than what the rounding of its own distances to float32 can make of 0:
    each square is right to 2^-23 d^2, so their mean to 2^-23 sqrt(sum_j d_ij^4) / points or so, of which eight are
    taken. Pairs with such a point are left out.

    Args:
        condensed: squared distances, see `squared_distances`.

    Returns:
        None where fewer than two points have an angle, or fewer than half of them: beside points that are very far
        away and balance, rounding hides where the others are.
    """
    squares = centroid_distances(condensed)
    largest = float(condensed.max(initial=0.0))
    if largest == 0:
        return None
    rounding = np.sqrt(row_means((condensed / largest) ** 2) / squares.size)
    away = squares > 8 * float(np.finfo(np.float32).eps) * largest * rounding
    count = int(away.sum())
    if count < 2 or 2 * count < squares.size:
        return None
    inverse = np.zeros_like(squares)
    inverse[away] = 1 / np.sqrt(squares[away])
    # sum over ordered pairs of (a_i + a_j) / 2 sqrt(a_i a_j), less that of d_ij^2 / 2 sqrt(a_i a_j)
    lengths = np.where(away, np.sqrt(squares), 0.0)
    ends = float(lengths.sum() * inverse.sum()) - count
    apart = float(inverse @ (squareform(condensed, checks=False) @ inverse)) / 2
    return (ends - apart) / (count * (count - 1))


@layer_measure("centred_cosine")
def centred_cosine(view: LayerView) -> dict[str, Number]:
    """`centred_cosine`: mean cosine between prompts as seen from their centroid; near 0 without preferred direction.

    The published mean cosine is seen from the origin of the activations, which distances do not show; for it the cloud
    itself is needed. Cost: points^2 operations; memory two matrices of doubles.
    """
    if view.distances is None:
        return {"centred_cosine": Missing(NOT_KEPT)}
    value = mean_centred_cosine(squared_distances(view.distances, view.metric))
    return {
        "centred_cosine": or_missing(value, "fewer than two points, or than half of them, are away from the centroid")
    }
