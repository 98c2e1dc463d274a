"""Nearest neighbours, from distances or from a cloud.

Ties are broken by index, so that equal distances (duplicated prompts) give the same neighbours on every machine.

Of a cloud they are found without all of its distances. Products of centred rows in float32 say which points may be a
neighbour, with a bound on their rounding; only those few distances are computed exactly. Rows with too many such points
are done again with products in float64. For many points in few dimensions a k-d tree names the candidates instead.
Whichever way it goes, the neighbours are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from topo_callback.homology.jit_kernels import for_kernels
from topo_callback.homology.machine import ThreadTeam, allowed_threads, one_blas_thread
from topo_callback.homology.neighbour_kernels import (
    TOO_MANY,
    candidates_of_rows,
    candidates_of_triangle,
    column_sums,
    rank_candidates,
    rank_directly,
    rank_rows,
    scale_rows,
    smallest_of_rows,
    subtract,
)

SCALES = (2.0**-50, 2.0**50)  # of clouds whose squares neither overflow nor vanish in float32
LEAST_ROWS, MOST_ROWS = 64, 256  # in a block: with fewer a product is slow, more fall out of a core's cache
BLOCK_ENTRIES = 2**25  # products in the blocks of all threads, while these have more than the least rows: 128 MiB
TRIANGLE_ENTRIES = 2**24  # of a matrix of so many products one of every two is computed, and all are kept
TRIANGLE_BLOCKS, TRIANGLE_ROWS = 8, 256  # blocks of it, unless they have fewer rows than that
TRIANGLE_WIDTH = 128  # with fewer coordinates a second product is quicker than finding the first
SHARE = 128  # rows that a thread selects from at a time
ONE_THREAD = 2**27  # so many multiplications are over before a second thread has begun
TREE_WIDTH = 15  # beyond this width no tree is tried
TREE_POINTS = 100  # times 2 ** dimensions: from so many points on a tree is quicker than products


def nearest_neighbours(distances: Float[np.ndarray, "points points"], k: int) -> Int32[np.ndarray, "points k"]:
    """The k nearest other points of every point, nearest first, ties by index.

    Without distances at hand, `cloud_neighbours` is quicker. Deterministic.

    Args:
        distances: float [points, points]; the diagonal is not read. Integers are compared as float64.
        k: number of neighbours.

    Returns:
        int32 [points, k], indices of points.

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
    smallest_of_rows(for_kernels(distances), group_count(points, k), found)
    return found


def group_count(points: int, k: int) -> int:
    """How many groups of columns to look for the smallest k entries in: about k are opened, of points / groups each."""
    groups = 64
    while groups < 2 * k or 4 * groups * groups <= k * points:
        groups *= 2
    return groups


def _check_k(k: int, points: int) -> None:
    if not 1 <= k < points:
        raise ValueError(f"k is {k}; {points} points have between 1 and {points - 1} neighbours each")


@dataclass(frozen=True)
class CentredCloud:
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
    def of(cls, cloud: Float[np.ndarray, "points width"], dtype: type[np.floating]) -> CentredCloud | None:
        """None where the scale is extreme, or the rows too long for products of this type."""
        width = cloud.shape[1]
        unit = float(np.finfo(dtype).eps) / 2
        if width * unit > 0.01:
            return None
        sums = np.empty(width)
        column_sums(cloud, sums)
        # Any centre serves, so it is one that can be subtracted with a single rounding.
        centre = (sums / max(1, len(cloud))).astype(np.float64 if dtype == np.float64 else cloud.dtype)
        rows, squares = np.empty(cloud.shape, dtype), np.empty(len(cloud), dtype)
        scale = float(subtract(cloud, centre, rows).max(initial=0.0))
        if not SCALES[0] < scale < SCALES[1]:
            return None
        scale_rows(rows, dtype(2.0 ** -math.frexp(scale)[1]), squares)
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

    def products_from_diagonal(self, first: int, block: Float[np.ndarray, "rows right"]) -> None:
        """Of the points from `first` on with themselves and all later ones, written into the block."""
        np.matmul(self.rows[first : first + len(block)], self.rows[first:].T, out=block)


def cloud_neighbours(
    cloud: Float[np.ndarray, "points width"], k: int, *, threads: int | None = None
) -> Int32[np.ndarray, "points k"]:
    """The k nearest other points of every point of a cloud, Euclidean, nearest first, ties by index.

    Distances are those of differences in float64, compared after rounding to the type of the cloud: of a float32 cloud
    they are the distances of `geometry.condensed_distances`, so the neighbours are those that follow from these. The
    result depends on nothing else. Memory grows with points * (width + k), not with the square of the points; products
    take 128 MiB at most while 64 rows of them do not.

    Args:
        cloud: float32 or float64; narrower types are compared as float32.
        k: number of neighbours.
        threads: by default as many as cores, fewer where their products need too much memory. NumPy's own products
            take one thread a call in the meantime.

    Returns:
        int32 [points, k], indices of points.

    Raises:
        ValueError: k is not between 1 and points - 1, or an entry is not finite.
    """
    points = cloud.shape[0]
    if not 1 <= k < points:
        raise ValueError(f"k is {k}; {points} points have between 1 and {points - 1} neighbours")
    if not np.isfinite(cloud).all():
        point = int(np.flatnonzero(~np.isfinite(cloud).all(axis=1))[0])
        raise ValueError(f"point {point} has an entry that is not finite")
    cloud = for_kernels(cloud.astype(np.float64 if cloud.dtype == np.float64 else np.float32, copy=False))
    large = points * points * (cloud.shape[1] + 64) > ONE_THREAD
    fitting = BLOCK_ENTRIES // (LEAST_ROWS * points)
    members = max(1, min(allowed_threads() if threads is None else threads, fitting)) if large else 1
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread(), ThreadTeam(members) as team:
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
        from scipy.spatial import cKDTree  # a tenth of a second to load, for clouds in few dimensions only

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

        def rank(blocks: Iterator[tuple[int, int]]) -> None:
            for share in blocks:
                rank_candidates(self.cloud, own, share, candidates, counts, ranked, reach)

        self._shared(own.size, SHARE, rank)
        self.found[own] = ranked
        # Points that were not named are at least as far as the last named one, but for the tree's own rounding.
        enough: Bool[np.ndarray, " rows"] = (distances[:, -1] * (1 - 1e-12)).astype(self.cloud.dtype) > reach
        return enough if count < points else np.ones_like(enough)

    def by_products(self) -> Int[np.ndarray, " left"]:
        """Candidates by products in float32. Left are points that have too many."""
        points, k = self.found.shape
        groups = group_count(points, k)
        centred = CentredCloud.of(self.cloud, np.float32)
        if centred is None or groups > points:
            return np.arange(points)
        once = points >= 2 * TRIANGLE_ROWS and points**2 <= TRIANGLE_ENTRIES and self.cloud.shape[1] >= TRIANGLE_WIDTH
        return self._by_triangle(centred, groups) if once else self._by_rows(centred, groups)

    def _by_rows(self, centred: CentredCloud, groups: int) -> Int[np.ndarray, " left"]:
        """By all products of some rows at a time."""
        points, k = self.found.shape
        height = self._rows_at_once(points)
        left: list[Int[np.ndarray, " some"]] = []
        coarse = False

        def work(blocks: Iterator[tuple[int, int]]) -> None:
            nonlocal coarse
            memory, candidates = np.empty((height, points), np.float32), np.empty((height, 4 * k + 64), np.int32)
            for first, end in blocks:
                own, share = np.arange(first, end), (0, end - first)
                if coarse:
                    left.append(own)
                    continue
                counts, reach = np.empty(own.size, np.int32), np.empty(own.size, self.cloud.dtype)
                products = centred.products(own, memory)
                candidates_of_rows(products, centred.squares, own, share, k, groups, centred.bounds, candidates, counts)
                rank_candidates(self.cloud, own, share, candidates, counts, self.found[first:end], reach)
                left.append(own[counts == TOO_MANY])
                if 2 * left[-1].size > own.size:
                    coarse = True  # float32 is, for this cloud

        self._shared(points, height, work)
        return np.sort(np.concatenate(left))

    def _by_triangle(self, centred: CentredCloud, groups: int) -> Int[np.ndarray, " left"]:
        """By products that are computed once for both of their points, and all kept."""
        points, k = self.found.shape
        height = max(TRIANGLE_ROWS, -(-points // TRIANGLE_BLOCKS))
        blocks = [(first, min(first + height, points)) for first in range(0, points, height)]
        sizes = [(end - first) * (points - first) for first, end in blocks]
        triangle = np.empty(sum(sizes), np.float32)

        def multiply(blocks: Iterator[tuple[int, int]]) -> None:
            for first, end in blocks:
                begins = sum(sizes[: first // height])
                block = triangle[begins : begins + (end - first) * (points - first)]
                centred.products_from_diagonal(first, block.reshape(end - first, points - first))

        own, counts = np.arange(points), np.empty(points, np.int32)
        reach, squares, bounds = np.empty(points, self.cloud.dtype), centred.squares, centred.bounds
        candidates = np.empty((points, 4 * k + 64), np.int32)

        def rank(blocks: Iterator[tuple[int, int]]) -> None:
            for share in blocks:
                candidates_of_triangle(triangle, height, squares, own, share, k, groups, bounds, candidates, counts)
                rank_candidates(self.cloud, own, share, candidates, counts, self.found, reach)

        self._shared(points, height, multiply)
        self._shared(points, SHARE, rank)
        return np.flatnonzero(counts == TOO_MANY)

    def in_full(self, left: Int[np.ndarray, " left"]) -> None:
        """By products in float64 and as many distances as it takes; at extreme scales by all distances."""
        points, k = self.found.shape
        centred = CentredCloud.of(self.cloud, np.float64) if left.size else None
        height = min(self._rows_at_once(points), left.size)

        def work(blocks: Iterator[tuple[int, int]]) -> None:
            memory = np.empty((height, points if centred else 0))
            for first, end in blocks:
                own, share = left[first:end], (0, end - first)
                ranked = np.empty((own.size, k), np.int32)
                if centred is None:
                    rank_directly(self.cloud, own, share, ranked)
                else:
                    products = centred.products(own, memory)
                    rank_rows(self.cloud, own, products, centred.squares, share, centred.bounds, ranked)
                self.found[own] = ranked

        if left.size:
            self._shared(left.size, height, work)

    def _rows_at_once(self, points: int) -> int:
        fitting = BLOCK_ENTRIES // (points * self.team.members)
        return min(points, max(LEAST_ROWS, min(MOST_ROWS, fitting)))

    def _shared(self, rows: int, size: int, work: Callable[[Iterator[tuple[int, int]]], None]) -> None:
        """Call `work` in every thread; they take ranges of so many rows from one iterator until none is left."""
        ranges = iter([(first, min(first + size, rows)) for first in range(0, rows, size)])
        self.team.run(lambda _: work(ranges))
