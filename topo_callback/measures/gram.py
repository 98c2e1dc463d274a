"""The Gram matrix behind a distance matrix: spectra and alignments of a cloud follow from it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.distance import squareform


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
