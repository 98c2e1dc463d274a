"""Distances between runs, from their aligned curves, and the runs as a map: classical multidimensional scaling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.spatial.distance import pdist, squareform


def curve_distances(curves: Float64[np.ndarray, "runs points"]) -> Float64[np.ndarray, "runs runs"] | None:
    """Root mean square difference over the points, in units of the measure; every sampled point counts the same.

    Points without a number are left out; None when no point is left.
    """
    numbers = curves[:, ~np.isnan(curves).any(axis=0)]
    if not numbers.shape[1]:
        return None
    found: np.ndarray = squareform(pdist(numbers)) / np.sqrt(numbers.shape[1])
    return found


def joint_distances(matrices: Iterable[Float64[np.ndarray, "runs runs"]]) -> Float64[np.ndarray, "runs runs"] | None:
    """One matrix of several: the root mean square of all, each divided by its own so that all count the same.

    A matrix of zeros says nothing and is left out; None when no other is left. The result has no unit; 1 is a typical
    distance between two runs.
    """
    scaled = [
        squared / np.mean(squared[np.triu_indices(len(squared), 1)])
        for squared in (matrix**2 for matrix in matrices)
        if squared.any()
    ]
    return np.sqrt(np.mean(scaled, axis=0)) if scaled else None


def energy_distance(distances: Float64[np.ndarray, "runs runs"], first: list[int], second: list[int]) -> float:
    """Energy distance between two groups of runs, 2 E|X-Y| - E|X-X'| - E|Y-Y'|, in units of the distances.

    It is that of the two empirical distributions (Szekely and Rizzo, 2013, V-statistic): at least 0, and above 0 also
    for samples of one distribution, so it is read beside the permutation test.
    """
    between, within_first, within_second = (
        float(distances[np.ix_(rows, columns)].mean())
        for rows, columns in ((first, second), (first, first), (second, second))
    )
    return max(0.0, 2 * between - within_first - within_second)


@dataclass(frozen=True)
class RunMap:
    """Places of runs in the plane.

    Attributes:
        coordinates: float64 [runs, 2], centred, in units of the distances.
        explained: share of the variance of each coordinate among all dimensions.
        stress: Kruskal's stress-1: root of the squared error of the distances on the map over their sum of squares;
            0 is a faithful map.
    """

    coordinates: Float64[np.ndarray, "runs 2"]
    explained: tuple[float, float]
    stress: float


def run_map(distances: Float64[np.ndarray, "runs runs"]) -> RunMap:
    """Classical scaling (Torgerson, 1952); the coordinate of largest size is positive on each axis.

    Args:
        distances: symmetric, Euclidean, not all zero.
    """
    centring = np.eye(len(distances)) - 1.0 / len(distances)
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    values = np.clip(values[::-1], 0.0, None)
    vectors = vectors[:, ::-1]
    coordinates = np.zeros((len(distances), 2))
    width = min(2, len(distances))
    coordinates[:, :width] = vectors[:, :width] * np.sqrt(values[:width])
    largest = np.abs(coordinates).argmax(axis=0)
    coordinates *= np.where(coordinates[largest, [0, 1]] < 0, -1.0, 1.0)
    shares = values / values.sum()
    drawn = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    stress = float(np.sqrt(((drawn - distances) ** 2).sum() / (distances**2).sum()))
    return RunMap(coordinates, (float(shares[0]), float(shares[1]) if width > 1 else 0.0), stress)
