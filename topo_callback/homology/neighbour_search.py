"""Nearest neighbours of a cloud without all of its distances.

Products of centred rows in float32 say which points may be a neighbour, with a bound on their rounding; only those few
distances are computed exactly. Rows with too many such points are done again with products in float64. For many points
in few dimensions a k-d tree names the candidates instead. Whichever way it goes, the neighbours are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from scipy.spatial import cKDTree

from topo_callback.homology.neighbour_graphs import group_count
from topo_callback.homology.neighbour_search_kernels import (
    candidates_of_rows,
    rank_candidates,
    rank_directly,
    rank_rows,
    row_squares,
)
from topo_callback.homology.thread_team import ThreadTeam, allowed_threads

BLOCK_ENTRIES = 2**21  # products in one block of rows: some megabytes
LEAST_ROWS = 64  # in a block: with fewer, a product of matrices is slow
ONE_THREAD = 2**20  # so many products are over before a second thread has begun
TREE_WIDTH = 15  # beyond this width no tree is tried
TREE_POINTS = 100  # times 2 ** dimensions: from so many points on a tree is quicker than products
SCALES = (2.0**-50, 2.0**50)  # of clouds whose squares neither overflow nor vanish in float32


def cloud_neighbours(
    cloud: Float[np.ndarray, "points width"], k: int, *, threads: int | None = None
) -> Int32[np.ndarray, "points k"]:
    """The k nearest other points of every point of a cloud, Euclidean, nearest first, ties by index.

    Distances are those of differences in float64, compared after rounding to the type of the cloud: of a float32 cloud
    they are the distances of `geometry.condensed_distances`, so the neighbours are those that follow from these. The
    result depends on nothing else. Memory grows with points * (width + k), not with the square of the points.

    Args:
        cloud: float32 or float64; narrower types are compared as float32.
        k: number of neighbours.
        threads: for the selection, by default as many as cores; products take as many as NumPy is set to.

    Raises:
        ValueError: k is not between 1 and points - 1, or an entry is not finite.
    """
    points = cloud.shape[0]
    if not 1 <= k < points:
        raise ValueError(f"k is {k}; {points} points have between 1 and {points - 1} neighbours")
    if not np.isfinite(cloud).all():
        point = int(np.flatnonzero(~np.isfinite(cloud).all(axis=1))[0])
        raise ValueError(f"point {point} has an entry that is not finite")
    cloud = np.ascontiguousarray(cloud, np.float64 if cloud.dtype == np.float64 else np.float32)
    members = (allowed_threads() if threads is None else threads) if points * points > ONE_THREAD else 1
    with np.errstate(over="ignore", invalid="ignore"), ThreadTeam(members) as team:
        search = _Search(cloud, np.empty((points, k), np.int32), team)
        left = search.by_tree() if _suits_a_tree(cloud) else search.by_products()
        search.in_full(left)
        return search.found


def _suits_a_tree(cloud: Float[np.ndarray, "points width"]) -> bool:
    points, width = cloud.shape
    if not 0 < width <= TREE_WIDTH:
        return False
    centred = cloud - cloud.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred
    total = float(np.square(covariance).sum())
    if not 0 < total < math.inf:
        return False
    # The number of directions that the cloud spreads into: the width if evenly, fewer if not.
    dimensions = float(np.trace(covariance)) ** 2 / total
    return bool(points > TREE_POINTS * 2**dimensions)


@dataclass(frozen=True)
class _Search:
    """Neighbours being found; the first two methods return the points that they leave to the last one."""

    cloud: Float[np.ndarray, "points width"]  # contiguous
    found: Int32[np.ndarray, "points k"]
    team: ThreadTeam

    def by_tree(self) -> Int[np.ndarray, " left"]:
        """Candidates by a k-d tree. Left are points of which it cannot be said that it named all of them."""
        points, k = self.found.shape
        tree = cKDTree(self.cloud, leafsize=32, balanced_tree=False)
        left = tree.indices  # points near each other one after another, for the caches
        for asked in (k + 2, 4 * k + 32):  # itself, and at least one more to see where equal distances end
            left = left[~self._named(tree, left, min(asked, points))]
            if left.size == 0:
                break
        return np.sort(left)

    def _named(self, tree: Any, own: Int[np.ndarray, " rows"], count: int) -> Bool[np.ndarray, " rows"]:
        """Fill in the points `own`, and say of which the tree's `count` candidates are enough."""
        points, k = self.found.shape
        distances, named = tree.query(self.cloud[own], count, workers=self.team.members)
        candidates, counts = named.astype(np.int32), np.full(own.size, count, np.int32)
        ranked, reach = np.empty((own.size, k), np.int32), np.empty(own.size, self.cloud.dtype)
        self._shared(own.size, lambda share: rank_candidates(self.cloud, own, share, candidates, counts, ranked, reach))
        self.found[own] = ranked
        # Points that were not named are at least as far as the last named one, but for the tree's own rounding.
        enough: Bool[np.ndarray, " rows"] = (distances[:, -1] * (1 - 1e-12)).astype(self.cloud.dtype) > reach
        return enough if count < points else np.ones_like(enough)

    def by_products(self) -> Int[np.ndarray, " left"]:
        """Candidates by products in float32. Left are points that have too many."""
        points, k = self.found.shape
        groups = group_count(points, k)
        centred = _Centred.of(self.cloud, np.float32)
        if centred is None or groups > points:
            return np.arange(points)
        rows = _rows_at_once(points)
        memory = np.empty((rows, points), np.float32)
        candidates = np.empty((rows, 4 * k + 64), np.int32)
        left = [np.arange(0)]
        for first in range(0, points, rows):
            own = np.arange(first, min(first + rows, points))
            counts = self._candidates_ranked(own, centred, centred.products(own, memory), candidates, groups)
            left.append(own[counts < 0])
            if first == 0 and 2 * left[-1].size > own.size:
                left.append(np.arange(own.size, points))  # float32 is too coarse for this cloud
                break
        return np.concatenate(left)

    def _candidates_ranked(
        self,
        own: Int[np.ndarray, " rows"],
        centred: _Centred,
        products: Float[np.ndarray, "rows points"],
        candidates: Int32[np.ndarray, "most_rows most"],
        groups: int,
    ) -> Int32[np.ndarray, " rows"]:
        k = self.found.shape[1]
        counts, reach = np.empty(own.size, np.int32), np.empty(own.size, self.cloud.dtype)
        found = self.found[own[0] : own[-1] + 1]

        def work(share: tuple[int, int]) -> None:
            candidates_of_rows(products, centred.squares, own, share, k, groups, centred.bounds, candidates, counts)
            rank_candidates(self.cloud, own, share, candidates, counts, found, reach)

        self._shared(own.size, work)
        return counts

    def in_full(self, left: Int[np.ndarray, " left"]) -> None:
        """By products in float64 and as many distances as it takes; at extreme scales by all distances."""
        points = len(self.found)
        centred = _Centred.of(self.cloud, np.float64) if left.size else None
        rows = _rows_at_once(points)
        memory = np.empty((min(rows, left.size), points if centred else 0))
        for first in range(0, left.size, rows):
            own = left[first : first + rows]
            self.found[own] = self._ranked(own, centred, memory)

    def _ranked(
        self, own: Int[np.ndarray, " rows"], centred: _Centred | None, memory: Float[np.ndarray, "most_rows _"]
    ) -> Int32[np.ndarray, "rows k"]:
        ranked = np.empty((own.size, self.found.shape[1]), np.int32)
        if centred is None:
            self._shared(own.size, lambda share: rank_directly(self.cloud, own, share, ranked))
        else:
            products, squares, bounds = centred.products(own, memory), centred.squares, centred.bounds
            self._shared(own.size, lambda share: rank_rows(self.cloud, own, products, squares, share, bounds, ranked))
        return ranked

    def _shared(self, rows: int, work: Callable[[tuple[int, int]], object]) -> None:
        """Call `work` with ranges of rows, one for each thread."""
        members = self.team.members
        self.team.run(lambda member: work((rows * member // members, rows * (member + 1) // members)))


@dataclass(frozen=True)
class _Centred:
    """A cloud about its mean, the largest coordinate between 1/2 and 1, and what is known of the rounding.

    Attributes:
        rows: the points, in the type that products are to have.
        squares: |x|² of each point.
        bounds: see `_limit` in the kernels.
    """

    rows: Float[np.ndarray, "points width"]
    squares: Float[np.ndarray, " points"]
    bounds: tuple[float, float, float]

    @classmethod
    def of(cls, cloud: Float[np.ndarray, "points width"], dtype: type[np.floating]) -> _Centred | None:
        """None where the scale is extreme, or the rows too long for products of this type."""
        width = cloud.shape[1]
        unit = float(np.finfo(dtype).eps) / 2
        if width * unit > 0.01:
            return None
        # Any centre serves, so it is one that can be subtracted with a single rounding.
        centre = cloud.mean(axis=0, dtype=np.float64)
        if dtype == np.float32:
            centre = centre.astype(cloud.dtype)
        rows = np.subtract(cloud, centre, dtype=np.result_type(cloud, dtype)).astype(dtype, copy=False)
        scale = float(max(rows.max(), -rows.min())) if rows.size else 0.0
        if not SCALES[0] < scale < SCALES[1]:
            return None
        rows *= dtype(2.0 ** -math.frexp(scale)[1])
        squares = np.empty(len(rows), dtype)
        row_squares(rows, squares)
        # A sum of `width` products in any order, the rounding of coordinates, squares and differences.
        error = width * unit / (1 - width * unit) + 10 * unit
        slack = 8 * float(np.finfo(cloud.dtype).eps) + 4 * (width + 8) * 2.0**-53
        return cls(rows, squares, (error, slack, 2.0**-100))

    def products(
        self, own: Int[np.ndarray, " rows"], memory: Float[np.ndarray, "most_rows points"]
    ) -> Float[np.ndarray, "rows points"]:
        """Of the points `own` with all points, written into the memory."""
        block = memory[: own.size]
        chosen = self.rows[own[0] : own[-1] + 1] if own[-1] - own[0] + 1 == own.size else self.rows[own]
        np.matmul(chosen, self.rows.T, out=block)
        return block


def _rows_at_once(points: int) -> int:
    return min(points, max(LEAST_ROWS, BLOCK_ENTRIES // points))
