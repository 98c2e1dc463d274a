"""Gaussian clouds of equal covariance: what a measure says where nothing but the covariance is at work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int32

from topo_callback.homology.neighbours import nearest_neighbours

DRAWS = 4  # their mean has half the spread of one; what more would cost is in docs/measures.md
MOST_POINTS_DRAWN = 1000
_USERS = ("survival_gaussian",)  # measures that need these clouds


def uses_gaussian_clouds(measures: Sequence[str]) -> bool:
    """Whether one of the measures needs the Gaussian cloud; it costs 16 points^3 operations for each layer."""
    return any(name in _USERS for name in measures)


def gaussian_distances(
    gram: Float64[np.ndarray, "points points"], seed: int, draw: int = 0
) -> Float64[np.ndarray, "points points"]:
    """Euclidean distances of a Gaussian cloud with the covariance of the cloud behind a Gram matrix.

    With X the centred cloud [points, width] and W one matrix of independent standard normal entries [points, points],
    the new cloud is W X / sqrt(points). Its Gram matrix is W B W^T / points with B = X X^T, so that no cloud is
    needed. The same seed gives the same W: the clouds of several layers or steps are then jointly Gaussian, with the
    covariance between layers or steps, too, that of the X, in expectation.

    Args:
        gram: from `gram_matrix`.
        seed: of W, and of nothing else.
        draw: which of the independent W of this seed.
    """
    points = len(gram)
    mixing = _mixing(points, seed, draw)
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


def gaussian_draws(
    gram: Float64[np.ndarray, "points points"], k: int, seed: int
) -> Int32[np.ndarray, "points draws_times_k"]:
    """Nearest neighbours in several independent Gaussian clouds side by side: k columns for each.

    `DRAWS` clouds, the first being that of `gaussian_neighbours`; one of more than `MOST_POINTS_DRAWN` points, where
    draws differ little and cost much.
    """
    draws = DRAWS if len(gram) <= MOST_POINTS_DRAWN else 1
    clouds = [gaussian_distances(gram, seed, draw).astype(np.float32) for draw in range(draws)]
    return np.concatenate([nearest_neighbours(cloud, k) for cloud in clouds], axis=1)


@lru_cache(maxsize=DRAWS)
def _mixing(points: int, seed: int, draw: int) -> Float64[np.ndarray, "points points"]:
    generator = np.random.default_rng(seed if draw == 0 else (seed, draw))
    return generator.standard_normal((points, points))
