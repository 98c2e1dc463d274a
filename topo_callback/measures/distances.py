"""What follows from a cloud's distances alone: squares, the Gram matrix, principal coordinates, and what is rounding.

One rule for every measure that looks at spectra, angles or nearest neighbours, whichever metric was recorded.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.linalg import eigh
from scipy.spatial.distance import num_obs_y, squareform


def principal_coordinates(
    distances: Float[np.ndarray, " pairs"], dimensions: int, metric: str = "euclidean"
) -> tuple[Float32[np.ndarray, "points dimensions"], float]:
    """Classical scaling (Torgerson, 1952): the coordinates that keep most of the squared distances.

    Deterministic: the largest entry of every coordinate is positive. Coordinates are those of the points themselves
    but for a rotation, in units of the median distance; of normalised points for cosine and correlation.

    Args:
        distances: condensed, finite, more than half of them above 0.
        dimensions: at least 1; a cloud of fewer points has as many coordinates with zeros.
        metric: "euclidean", "cosine" or "correlation".

    Returns:
        coordinates, and the share of the sum of all squared distances that they have.
    """
    gram = gram_matrix(distances, metric)
    points = num_obs_y(distances)
    found = min(dimensions, points)
    values, vectors = eigh(gram, subset_by_index=[points - found, points - 1])
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(found)] < 0, -1.0, 1.0)
    coordinates = np.zeros((points, dimensions), dtype=np.float32)
    coordinates[:, :found] = vectors * np.sqrt(values) / np.median(chords(distances, metric))
    return coordinates, float(min(1.0, values.sum() / np.trace(gram)))


def squared_distances(
    distances: Float[np.ndarray, " pairs"], metric: str = "euclidean"
) -> Float64[np.ndarray, " pairs"]:
    """Squared Euclidean distances, condensed, in double precision.

    Cosine and correlation distances are half the squared Euclidean distance of the normalised points, whose squared
    distances are returned; see `gram_matrix`.

    Args:
        distances: condensed, finite.
        metric: "euclidean", "cosine" or "correlation".
    """
    condensed = distances.astype(np.float64)
    return condensed**2 if metric == "euclidean" else 2 * condensed


def chords(distances: Float[np.ndarray, " pairs"], metric: str = "euclidean") -> Float64[np.ndarray, " pairs"]:
    """Euclidean distances, condensed, in double precision: of the normalised points for cosine and correlation."""
    condensed = distances.astype(np.float64)
    return condensed if metric == "euclidean" else np.sqrt(2 * condensed)


def row_means(condensed: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " points"]:
    """The mean of every row of the symmetric matrix with zero diagonal behind `condensed`, over all points."""
    points = num_obs_y(condensed)
    means: Float64[np.ndarray, " points"] = squareform(condensed, checks=False).sum(axis=0) / points
    return means


def centroid_distances(condensed: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " points"]:
    """Squared distance of every point to the centroid: the diagonal of the Gram matrix of the centred points.

    |x_i - c|^2 = mean_j d_ij^2 - mean_jk d_jk^2 / 2; negative values, which are rounding, become 0.
    """
    means = row_means(condensed)
    squares: Float64[np.ndarray, " points"] = np.maximum(means - means.mean() / 2, 0.0)
    return squares


def gram_matrix(
    distances: Float[np.ndarray, " pairs"], metric: str = "euclidean"
) -> Float64[np.ndarray, "points points"]:
    """Inner products of the centred points, by double centring of squared Euclidean distances (classical scaling).

    With centred points X [points, width] this is X X^T, without knowing X: -J D J / 2 with D the squared distances and
    J = I - 11^T / points (Torgerson, 1952). Its eigenvalues over `points` are those of the covariance.

    Args:
        distances: condensed, finite. Cosine and correlation distances are half the squared Euclidean distance of the
            normalised points, whose Gram matrix is returned.
        metric: "euclidean", "cosine" or "correlation".

    Returns:
        Symmetric; rows sum to 0 up to rounding. Positive semi-definite up to the rounding of the distances, which is
        another one for each eigenvalue; see `spectrum.resolved_spectrum`.
    """
    condensed = distances.astype(np.float64)
    squared = squareform(condensed**2 if metric == "euclidean" else 2 * condensed)
    means = squared.mean(axis=0)
    gram: Float64[np.ndarray, "points points"] = -0.5 * (squared - means - means[:, None] + means.mean())
    return gram


# A coordinate x in float32 is right to 2^-24 |x| at best, so two points of norm s that a model computes to be equal may
# lie 2^-24 (s + s) = 2^-23 s apart: one unit in the last place of every coordinate. A forward pass rounds more than
# once; four such units, 2^-21 s, are taken for rounding.
POINT_ROUNDING = 2.0**-21
# Where squared distances are differences of products in float32 (devices without float64), they are right to some
# 2^-24 s^2 times a few, hence distances to 2^-10 s or so.
COARSE_ROUNDING = 2.0**-9.5


def rounding_floors(
    distances: Float[np.ndarray, "points points"], norms: Float[np.ndarray, " points"] | None
) -> Float64[np.ndarray, " points"]:
    """The difference of distances of each point that is no more than the rounding of coordinates, 2^-21 of its norm.

    Args:
        distances: square, Euclidean.
        norms: of the points, as recorded; see `Sample.norms`. None in older records: the median distance of the point
            stands in, which is too low a norm for a cloud that is small for its distance to the origin.
    """
    size = np.median(distances, axis=1) if norms is None else norms
    floors: Float64[np.ndarray, " points"] = POINT_ROUNDING * size.astype(np.float64)
    return floors


def log_ratio(
    near: Float64[np.ndarray, " points"], far: Float64[np.ndarray, " points"], floors: Float64[np.ndarray, " points"]
) -> Float64[np.ndarray, " defined"]:
    """log(far / near) of the points that have a ratio.

    Distances that differ by no more than the floor are the same: a point whose near neighbour is no further than it
    is equal to that neighbour and has no ratio, and where far exceeds near by no more than it, the ratio is 1.
    """
    defined = near > floors
    near, far, floors = near[defined], far[defined], floors[defined]
    return np.where(far - near > floors, np.log(far / near), 0.0)
