"""How the topology of two clouds of the same points differs when it is known which point is which.

Barcodes forget which points make a bar, so two clouds with equal barcodes may have nothing else in common. Here both
distances of a pair of points are looked at together: representation topology divergence (RTD), its light forms from
minimum spanning trees, and the similarity of these trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from topo_callback.errors import ConfigurationError
from topo_callback.homology.native_rips import difference_lengths
from topo_callback.homology.rips import checked_distances, rips_persistence
from topo_callback.homology.rips_graph_kernels import packed_triangle, spanning_tree

QUANTILE = 0.9  # of the distances: the unit of the published definitions


@dataclass(frozen=True)
class TreeDivergences:
    """Differences of the lengths of minimum spanning trees, each 0 for equal distances; rtd + max_rtd = srtd.

    Attributes:
        rtd_lite: mean length of the two clouds' trees, less the length of the tree of the smaller distances.
        srtd_lite: length of the tree of the larger distances, less that of the smaller ones.
        max_rtd_lite: length of the tree of the larger distances, less the mean length of the two clouds' trees.
    """

    rtd_lite: float
    srtd_lite: float
    max_rtd_lite: float


@dataclass(frozen=True)
class TreeSimilarities:
    """Rank correlations, -1 to 1, over the pairs of points that are an edge of either cloud's minimum spanning tree.

    A pair is among these because it is short in one of the clouds, so unrelated clouds are below 0: at -.6 to -.7 by
    `edges`, at -.1 to -.4 by `merges`.

    Attributes:
        edges: NTS-E, of the distances; None where those of a cloud are all equal, or there is one pair only.
        merges: NTS-M, of the distances at which single linkage merges the two points; None as for the edges.
    """

    edges: float | None
    merges: float | None


def representation_topology_divergence(
    first: Float[np.ndarray, "*one"],
    second: Float[np.ndarray, "*other"],
    *,
    quantile: float = QUANTILE,
    threads: int | None = None,
) -> float | None:
    """RTD (Barannikov et al., arXiv 2201.00058): how long classes live that one cloud has and both together have not.

    With distances a and b over their scales, the Rips filtration of 2 n + 1 vertices with the distances
    [[a, u', 0], [u, min(a, b), inf], [0, inf, 0]], where u is the upper triangle of a with zero diagonal and infinite
    below, has H1 bars for the difference of a and min(a, b). RTD is half the sum of their lengths in both orders,
    (a, b) and (b, a). 0 for equal distances, symmetric, the same when all points are renumbered; no metric.

    Args:
        first, second: float [points, points] or condensed float [pairs] in the order of scipy, finite; of the same
            points in the same order, each in any unit.
        quantile: the scale of a cloud is this quantile of its distances that are not 0; 0.5 for their median.
        threads: as in `rips_persistence`.

    Returns:
        RTD in units of the scales; None where all points of a cloud are equal, which leaves no scale.

    Raises:
        ValueError: different numbers of points, or distances that are none or not finite; the first one is named.
        ConfigurationError: a quantile that is not above 0 and at most 1.
    """
    scaled = _scaled_pair(first, second, quantile)
    if scaled is None:
        return None
    smaller = np.minimum(*scaled)
    return sum(_bars_of_difference(each, smaller, threads) for each in scaled) / 2


def tree_divergences(
    first: Float[np.ndarray, "*one"], second: Float[np.ndarray, "*other"], *, quantile: float = QUANTILE
) -> TreeDivergences | None:
    """The light forms of RTD, which compare clusters alone, H0: from minimum spanning trees, in points^2 operations.

    Args:
        first, second, quantile: as in `representation_topology_divergence`.

    Returns:
        The divergences in units of the scales; None where all points of a cloud are equal.

    Raises:
        As `representation_topology_divergence`.

    Source: RTD-lite: Tulchinskii et al., arXiv 2503.11910; the others: arXiv 2606.06342.
    """
    scaled = _scaled_pair(first, second, quantile)
    if scaled is None:
        return None
    mean = (_tree_length(scaled[0]) + _tree_length(scaled[1])) / 2
    least, greatest = _tree_length(np.minimum(*scaled)), _tree_length(np.maximum(*scaled))
    # none is negative but by rounding
    return TreeDivergences(max(0.0, mean - least), max(0.0, greatest - least), max(0.0, greatest - mean))


def tree_similarities(first: Float[np.ndarray, "*one"], second: Float[np.ndarray, "*other"]) -> TreeSimilarities:
    """Normalised topological similarity, NTS-E and NTS-M (arXiv 2606.06342): do both clouds cluster alike?

    Spearman's rank correlations, which need no scale. Where distances are equal, as among duplicates, a cloud has
    several minimum spanning trees; which one is taken depends on the order of the points.

    Args:
        first, second: as in `representation_topology_divergence`.

    Returns:
        Both correlations.

    Raises:
        ValueError: as `representation_topology_divergence`.
    """
    matrices = _checked_pair(first, second)
    trees = [spanning_tree(matrix) for matrix in matrices]
    points = len(matrices[0])
    # a pair of points as one integer, the lower index first
    codes = [np.minimum(order[1:], joined) * points + np.maximum(order[1:], joined) for _, order, joined in trees]
    rows, columns = np.divmod(np.unique(np.concatenate(codes)), points)
    merges = [_merge_distances(lengths, order, rows, columns) for lengths, order, _ in trees]
    return TreeSimilarities(
        _rank_correlation(matrices[0][rows, columns], matrices[1][rows, columns]), _rank_correlation(*merges)
    )


def _bars_of_difference(
    own: Float[np.ndarray, "points points"], smaller: Float[np.ndarray, "points points"], threads: int | None
) -> float:
    """The sum of the lengths of the H1 bars of one order; see `representation_topology_divergence`.

    The complex of the definition is the mapping cone of the inclusion of one Rips complex, by `own`, into another one,
    by `smaller`. So is the second with a cone over the first, which has half the points, a quarter of the edges and few
    ties: there an edge of both is filled once it is in the first.
    """
    lengths = difference_lengths(own, smaller)
    if lengths is None:
        bars = rips_persistence(_joint_distances(own, smaller), threads=threads).of(1)
        # once all edges have entered, both blocks and what joins them are filled: no bar of H1 is endless
        lengths = bars[:, 1] - bars[:, 0]
    return math.fsum(lengths)


def _joint_distances(
    own: Float[np.ndarray, "points points"], smaller: Float[np.ndarray, "points points"]
) -> Float[np.ndarray, "joint joint"]:
    """The matrix of the definition, on 2 points + 1 vertices."""
    points = len(own)
    above = np.where(np.tri(points, k=-1, dtype=bool), np.inf, own)
    joint = np.full((2 * points + 1, 2 * points + 1), np.inf, own.dtype)
    joint[:points, :points], joint[points:-1, points:-1] = own, smaller
    joint[points:-1, :points], joint[:points, points:-1] = above, above.T
    joint[-1, :points] = joint[:points, -1] = joint[-1, -1] = 0
    return joint


def _tree_length(distances: Float[np.ndarray, "points points"]) -> float:
    return math.fsum(spanning_tree(distances)[0])


def _merge_distances(
    lengths: Float[np.ndarray, " edges"],
    order: Int64[np.ndarray, " points"],
    rows: Int64[np.ndarray, " pairs"],
    columns: Int64[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """The distance at which single linkage merges the two points of each pair, from a tree in Prim's order.

    The longest edge on the tree's path between two points is the longest one that Prim's algorithm added after the
    earlier of them, up to the later one.
    """
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    ends = np.sort(np.stack([place[rows], place[columns]], axis=1), axis=1)
    # reduced from each index to the next one: every second range is one of a pair, and the last needs an end
    return np.maximum.reduceat(np.append(lengths, lengths[-1:]), ends.ravel())[::2] if rows.size else lengths[:0]


def _rank_correlation(one: Float[np.ndarray, " pairs"], other: Float[np.ndarray, " pairs"]) -> float | None:
    """Spearman's, ties having their mean rank; None where all values of a side are equal, or there are fewer than 2."""
    first, second = _mean_ranks(one), _mean_ranks(other)
    first, second = first - first.mean() if first.size else first, second - second.mean() if second.size else second
    sizes = float(first @ first) * float(second @ second)
    return None if sizes == 0 else max(-1.0, min(1.0, float(first @ second) / math.sqrt(sizes)))


def _mean_ranks(values: Float[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64[np.ndarray, " pairs"] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def _scaled_pair(
    first: np.ndarray, second: np.ndarray, quantile: float
) -> tuple[Float[np.ndarray, "points points"], Float[np.ndarray, "points points"]] | None:
    """Both over their scales, in the precision in which they are given; None where one has no scale."""
    if not 0 < quantile <= 1:
        raise ConfigurationError(f"quantile is {quantile}; accepted is above 0 and at most 1, such as 0.5: the median")
    pair = _checked_pair(first, second)
    precision = np.result_type(*pair)  # float32 is swept in half the time
    scaled = []
    for matrix in pair:
        pairs = packed_triangle(matrix)
        if not pairs.any():
            return None
        scale = _quantile(pairs[pairs > 0], quantile)
        with np.errstate(over="ignore"):
            scaled.append((matrix / np.float64(scale)).astype(precision))
        if np.isinf(scaled[-1]).any():
            raise ValueError(f"a distance of {pairs.max()} over the scale {scale} is beyond {precision}")
    return scaled[0], scaled[1]


def _quantile(values: Float[np.ndarray, " pairs"], quantile: float) -> float:
    """`np.quantile` of these values in float64 to the last bit, in half of its time."""
    place = quantile * (values.size - 1)
    low = int(place)
    ordered = np.partition(values, (low, min(low + 1, values.size - 1)))
    below, above = float(ordered[low]), float(ordered[min(low + 1, values.size - 1)])
    share, gap = place - low, above - below
    return above - gap * (1 - share) if share >= 0.5 else below + gap * share


def _checked_pair(
    first: np.ndarray, second: np.ndarray
) -> tuple[Float[np.ndarray, "points points"], Float[np.ndarray, "points points"]]:
    one, other = _checked(first, "first"), _checked(second, "second")
    if len(one) != len(other):
        raise ValueError(f"distances of the same points are needed; got {len(one)} and {len(other)} points")
    return one, other


def _checked(distances: np.ndarray, name: str) -> Float[np.ndarray, "points points"]:
    """As a square matrix of finite distances."""
    if distances.ndim == 1:
        distances = _square(distances, name)
    checked = checked_distances(distances, name=name)
    wrong = np.argwhere(np.isinf(checked))
    if wrong.size:
        row, column = wrong[0]
        raise ValueError(f"{name}[{row}, {column}] is inf; expected is a finite distance")
    return checked


def _square(condensed: np.ndarray, name: str) -> np.ndarray:
    points = round((1 + math.sqrt(1 + 8 * condensed.size)) / 2)
    if points * (points - 1) // 2 != condensed.size:
        raise ValueError(
            f"{name} has {condensed.size} entries; expected is a square matrix [points, points], or one entry for each "
            f"pair of points, such as {points * (points - 1) // 2} for {points} points"
        )
    square = np.zeros((points, points), condensed.dtype)
    square[np.triu_indices(points, 1)] = condensed
    return square + square.T
