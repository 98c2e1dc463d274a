"""Gaussian clouds of equal covariance: what a measure says where nothing but the covariance is at work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int32

from topo_callback.homology.neighbour_graphs import nearest_neighbours

_USERS = ("survival_gaussian",)  # measures that need these clouds


def uses_gaussian_clouds(measures: Sequence[str]) -> bool:
    """Whether one of the measures needs the Gaussian cloud; it costs 4 points^3 operations for each layer."""
    return any(name in _USERS for name in measures)


def gaussian_distances(gram: Float64[np.ndarray, "points points"], seed: int) -> Float64[np.ndarray, "points points"]:
    """Euclidean distances of a Gaussian cloud with the covariance of the cloud behind a Gram matrix.

    With X the centred cloud [points, width] and W one matrix of independent standard normal entries [points, points],
    the new cloud is W X / sqrt(points). Its Gram matrix is W B W^T / points with B = X X^T, so that no cloud is
    needed. The same seed gives the same W: the clouds of several layers or steps are then jointly Gaussian, with the
    covariance between layers or steps, too, that of the X, in expectation.

    Args:
        gram: from `gram_matrix`.
        seed: of W, and of nothing else.
    """
    points = len(gram)
    mixing = _mixing(points, seed)
    mixed = mixing @ gram @ mixing.T / points
    norms = np.diagonal(mixed)
    # rounding leaves values around zero on the diagonal and for equal points
    distances: Float64[np.ndarray, "points points"] = np.sqrt(np.maximum(norms[:, None] + norms - 2 * mixed, 0))
    distances = np.maximum(distances, distances.T)  # the product is symmetric up to rounding only
    np.fill_diagonal(distances, 0)
    return distances


def gaussian_neighbours(gram: Float64[np.ndarray, "points points"], k: int, seed: int) -> Int32[np.ndarray, "points k"]:
    """Nearest neighbours in the cloud of `gaussian_distances`."""
    return nearest_neighbours(gaussian_distances(gram, seed).astype(np.float32), k)


@lru_cache(maxsize=1)
def _mixing(points: int, seed: int) -> Float64[np.ndarray, "points points"]:
    return np.random.default_rng(seed).standard_normal((points, points))
