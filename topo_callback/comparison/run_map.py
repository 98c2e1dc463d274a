"""The map of runs: classical multidimensional scaling of a distance matrix into the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


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
