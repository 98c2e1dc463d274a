"""Squared Euclidean distances of a cloud, whichever metric was recorded: what spectra, alignments and angles need."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.distance import num_obs_y, squareform


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
