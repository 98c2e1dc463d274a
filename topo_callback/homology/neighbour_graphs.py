"""Nearest neighbours from distances, and the graphs made of them: union, mutual, limited in distance.

Ties are broken by index, so that equal distances (duplicated prompts) give the same neighbours on every machine.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Int32, Integer

from topo_callback.homology.neighbour_kernels import smallest_of_rows


def nearest_neighbours(distances: Float[np.ndarray, "points points"], k: int) -> Int32[np.ndarray, "points k"]:
    """The k nearest other points of every point, nearest first, ties by index.

    Without distances at hand, `neighbour_search.cloud_neighbours` is quicker.

    Raises:
        ValueError: k is not between 1 and points - 1, or a distance is NaN.
    """
    points = distances.shape[0]
    _check_k(k, points)
    if not np.issubdtype(distances.dtype, np.floating):
        distances = np.asarray(distances, dtype=np.float64)
    if np.isnan(distances.min()):
        row, column = (int(index[0]) for index in np.nonzero(np.isnan(distances)))
        raise ValueError(f"the distance between points {row} and {column} is NaN; it has no place among neighbours")
    found = np.empty((points, k), np.int32)
    smallest_of_rows(np.ascontiguousarray(distances), group_count(points, k), found)
    return found


def group_count(points: int, k: int) -> int:
    """How many groups of columns to look for the smallest k entries in: about k are opened, of points / groups each."""
    groups = 64
    while groups < 2 * k or 4 * groups * groups <= k * points:
        groups *= 2
    return groups


def union_graph(neighbours: Integer[np.ndarray, "points k"]) -> Int[np.ndarray, "edges 2"]:
    """Edges between points of which at least one lists the other; rows (low, high), sorted. The published choice."""
    return _edges(neighbours, listings=1)


def mutual_graph(neighbours: Integer[np.ndarray, "points k"]) -> Int[np.ndarray, "edges 2"]:
    """Edges between points that list each other; rows (low, high), sorted. A control for the choice of the union."""
    return _edges(neighbours, listings=2)


def limited_graph(
    neighbours: Integer[np.ndarray, "points k"], distances: Float[np.ndarray, "points points"], limit: float
) -> Int[np.ndarray, "edges 2"]:
    """The union graph without edges longer than `limit`, in the unit of the distances; rows (low, high), sorted."""
    edges = union_graph(neighbours)
    short: Int[np.ndarray, "edges 2"] = edges[distances[edges[:, 0], edges[:, 1]] <= limit]
    return short


def _edges(neighbours: Integer[np.ndarray, "points k"], listings: int) -> Int[np.ndarray, "edges 2"]:
    points, k = neighbours.shape
    own = np.repeat(np.arange(points, dtype=np.int64), k)
    # A neighbour listed twice by the same point still is one listing.
    directed = np.unique(own * points + neighbours.reshape(-1))
    own, other = np.divmod(directed, points)
    keys, counts = np.unique(np.minimum(own, other) * points + np.maximum(own, other), return_counts=True)
    low, high = np.divmod(keys[counts >= listings], points)
    return np.stack([low, high], axis=1)


def _check_k(k: int, points: int) -> None:
    if not 1 <= k < points:
        raise ValueError(f"k is {k}; {points} points have between 1 and {points - 1} neighbours each")
