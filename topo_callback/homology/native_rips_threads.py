"""One cloud on a team of threads: by annotations, or by a sweep through all edges; the same result on any number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt, UInt32, UInt64

from topo_callback.homology.annotation_kernels import class_deaths
from topo_callback.homology.machine import ThreadTeam, triangle_shares
from topo_callback.homology.native_rips_kernels import (
    binning,
    bucket_layout,
    central_order,
    cloud_graph,
    graph_classes,
    graph_keys,
)
from topo_callback.homology.relative_neighbour_kernels import near_rows, neighbourhood_edges, row_maxima
from topo_callback.homology.rips_graph_kernels import (
    count_edges,
    deal_edges,
    neighbour_count,
    relabelled_rows,
    row_statistics,
    sort_bucket,
)
from topo_callback.homology.rips_lune_kernels import add_edges, empty_adjacency, lune_relations
from topo_callback.homology.rips_reduction_kernels import edge_lookup, reduce_relations

WITHOUT_SIGN = np.uint32(0x7FFFFFFF)

Keys = UInt32[np.ndarray, "points points"]
Codes = UInt32[np.ndarray, " _"]
Bars = tuple[
    UInt[np.ndarray, " components"],
    UInt[np.ndarray, " classes"],
    UInt[np.ndarray, " classes"],
    Bool[np.ndarray, " classes"],
]


@dataclass(frozen=True)
class OrderedCloud:
    """A cloud whose points are numbered anew, with the sparse graphs that a sweep starts from.

    Attributes:
        keys: uint32 [points, points] in the new numbering.
        nearest: int32 [points, count], points near each point, nearest first.
        graph: the codes of the edges of the relative neighbourhood graph, in the total order.
    """

    keys: Keys
    nearest: Int32[np.ndarray, "points count"]
    graph: Codes


@dataclass(frozen=True)
class BucketedEdges:
    """All edges up to the cut, bucket by bucket of ascending keys.

    Attributes:
        codes: the edges.
        starts: int64 [buckets + 1], where each bucket starts, and the end.
        sort: called with the start and end of a bucket, puts its edges in the total order.
    """

    codes: Codes
    starts: Int64[np.ndarray, " ends"]
    sort: Callable[[int, int], object]


@dataclass(frozen=True)
class SweptCloud:
    """Everything that a sweep finds out about H1, points numbered from the centre outwards.

    Attributes:
        order: int64 [points], the caller's index of each point.
        graph: the edges of the relative neighbourhood graph, in order.
        closes: which of them close a cycle rather than joining the spanning forest: the births of the classes.
        deaths, births, class_deaths: keys of the H0 deaths, the H1 births and the H1 deaths.
        column_pool, pool_starts: the reduced columns, and where that of each class that dies starts, else -1.
    """

    order: Int64[np.ndarray, " points"]
    graph: Codes
    closes: Bool[np.ndarray, " _"]
    deaths: UInt32[np.ndarray, " components"]
    births: UInt32[np.ndarray, " classes"]
    class_deaths: UInt32[np.ndarray, " classes"]
    column_pool: UInt64[np.ndarray, " words"]
    pool_starts: Int64[np.ndarray, " classes"]


def annotated_bars(
    keys: UInt[np.ndarray, "points points"], limit: np.uint32 | np.uint64, most_scans: int, team: ThreadTeam | None
) -> Bars | None:
    """(H0 deaths, H1 births, H1 deaths as keys, whether each H1 class dies) by annotations; None where it gave up.

    Args:
        keys: bit patterns without sign.
        limit: the greatest key that may enter.
        most_scans: give up after looking so often for the next triangle of an edge.
        team: threads for the neighbourhood graph, which takes most of the time of large clouds; None: one.
    """
    if team is None:
        cut, graph = cloud_graph(keys, limit)
        cut = keys.dtype.type(cut)
    else:
        points = len(keys)
        longest = np.empty(points, keys.dtype)
        shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
        team.run(lambda member: row_maxima(keys, longest, *shares[member]))
        cut = min(limit, longest.min())
        _, graph = neighbourhood_graph(keys, cut, team)
    deaths, births, closes = graph_classes(keys, graph)
    last, dies, finished = class_deaths(keys, keys, False, graph, closes, cut, most_scans)
    return (deaths, births, last, dies) if finished else None


def threaded_bars(keys: Keys, limit: np.uint32, bucket_edges: int, team: ThreadTeam, *, renumber: bool = True) -> Bars:
    """What `annotated_bars` gives, by a sweep through all edges."""
    found = swept_cloud(keys, limit, bucket_edges, team, renumber=renumber)
    return found.deaths, found.births, found.class_deaths, found.pool_starts >= 0


def swept_cloud(
    keys: Keys, limit: np.uint32, bucket_edges: int, team: ThreadTeam, *, renumber: bool = True
) -> SweptCloud:
    """Sweep one cloud on a team of threads.

    With `renumber` the points are numbered from the centre outwards, in a copy of the keys: most lunes are then seen
    through at once. Without, the caller's keys are used as they are, and less memory.
    """
    central, order, cut = central_keys(keys, limit, team) if renumber else _given_keys(keys, limit, team)
    nearest, graph = neighbourhood_graph(central, cut, team)
    cloud = OrderedCloud(central, nearest, graph)
    deaths, births, closes = graph_classes(central, graph)
    class_deaths = np.zeros(births.size, np.uint32)
    pool_starts = np.full(births.size, -1, np.int64)
    pool = np.empty(0, np.uint64)
    if births.size:
        edges = dealt_edges(central, cut, graph, bucket_edges, team)
        pool = _sweep(cloud, edges, edge_lookup(graph, closes), pool_starts, class_deaths, team)
    return SweptCloud(order, graph, closes, deaths, births, class_deaths, pool, pool_starts)


def central_keys(
    keys: Keys, limit: np.uint32, team: ThreadTeam
) -> tuple[Keys, Int64[np.ndarray, " points"], np.uint32]:
    """(Keys with the points numbered from the centre outwards, their old indices, the greatest key that matters)."""
    points = len(keys)
    totals, cut = _row_sums(keys, limit, team)
    order = central_order(totals)
    central = np.empty((points, points), np.uint32)
    shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
    team.run(lambda member: relabelled_rows(keys, order, central, *shares[member]))
    return central, order, cut


def _given_keys(keys: Keys, limit: np.uint32, team: ThreadTeam) -> tuple[Keys, Int64[np.ndarray, " points"], np.uint32]:
    """What `central_keys` gives, with the points numbered as they are."""
    if keys.max() > WITHOUT_SIGN:  # the bit pattern of -0: rare, and worth a copy
        keys = keys & WITHOUT_SIGN
    return keys, np.arange(len(keys), dtype=np.int64), _row_sums(keys, limit, team)[1]


def greatest_key_that_matters(keys: Keys, limit: np.uint32, team: ThreadTeam) -> np.uint32:
    """`limit`, or the key from which on one point sees all others, so that no class is left."""
    return _row_sums(keys, limit, team)[1]


def _row_sums(keys: Keys, limit: np.uint32, team: ThreadTeam) -> tuple[UInt64[np.ndarray, " points"], np.uint32]:
    points = len(keys)
    totals, longest = np.empty(points, np.uint64), np.empty(points, np.uint32)
    shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
    team.run(lambda member: row_statistics(keys, totals, longest, *shares[member]))
    return totals, min(limit, longest.min())


def neighbourhood_graph(
    central: UInt[np.ndarray, "points points"], cut: np.uint32 | np.uint64, team: ThreadTeam
) -> tuple[Int32[np.ndarray, "points count"], Codes]:
    """(Points near each point, codes of the edges of the relative neighbourhood graph in the total order)."""
    points = len(central)
    nearest = np.empty((points, neighbour_count(points)), np.int32)
    shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
    team.run(lambda member: near_rows(central, nearest, *shares[member]))
    parts: list[Codes] = [np.empty(0, np.uint32)] * team.members

    def collect(member: int) -> None:
        parts[member] = neighbourhood_edges(central, nearest, cut, member, team.members)

    team.run(collect)
    graph = np.sort(np.concatenate(parts))
    sort_bucket(central, graph, 0, graph.size)
    return nearest, graph


def dealt_edges(central: Keys, cut: np.uint32, graph: Codes, bucket_edges: int, team: ThreadTeam) -> BucketedEdges:
    """All edges up to `cut`, each bucket in order of codes until it is sorted."""
    floor, shift = binning(cut, graph_keys(central, graph))
    shares = triangle_shares(len(central), team.members)
    counts: list[np.ndarray] = [np.empty(0, np.int64)] * team.members

    def count(member: int) -> None:
        counts[member] = count_edges(central, cut, floor, shift, *shares[member])

    team.run(count)
    bucket_of_bin, starts = bucket_layout(sum(counts), bucket_edges)
    # each member writes its rows behind those of the members before it, so a bucket stays in order of codes
    places = np.zeros((team.members + 1, starts.size - 1), np.int64)
    places[0] = starts[:-1]
    for member in range(team.members):
        places[member + 1] = places[member] + np.bincount(bucket_of_bin, counts[member], starts.size - 1).astype(int)
    codes = np.empty(starts[-1], np.uint32)
    team.run(
        lambda member: deal_edges(central, cut, floor, shift, bucket_of_bin, places[member], codes, *shares[member])
    )
    return BucketedEdges(codes, starts, lambda start, end: sort_bucket(central, codes, start, end))


def _sweep(
    cloud: OrderedCloud,
    edges: BucketedEdges,
    table: tuple[UInt32[np.ndarray, " slots"], np.ndarray, int],
    pool_starts: Int64[np.ndarray, " classes"],
    class_deaths: UInt32[np.ndarray, " classes"],
    team: ThreadTeam,
) -> UInt64[np.ndarray, " words"]:
    """Go through the edges until every class is dead; writes `pool_starts` and `class_deaths`, returns the columns.

    Each member searches the lunes of one bucket of a group. It has its own adjacency, to which it adds the edges of the
    other buckets unsearched.
    """
    keys, codes, starts = cloud.keys, edges.codes, edges.starts
    members = team.members
    buckets = starts.size - 1
    adjacencies = [empty_adjacency(len(keys)) for _ in range(members)]
    relations: list[np.ndarray] = [np.empty((0, 5), np.int32)] * members
    pool = np.empty(1024, np.uint64)
    killed = np.zeros(2, np.int64)

    def bounds(bucket: int) -> tuple[int, int]:
        return int(starts[min(bucket, buckets)]), int(starts[min(bucket + 1, buckets)])

    def sort(member: int) -> None:
        edges.sort(*bounds(member))

    team.run(sort)
    for group in range(0, buckets, members):

        def search(member: int, group: int = group) -> None:
            start, end = bounds(group + member)
            add_edges(adjacencies[member], codes, bounds(group)[0], start)
            relations[member] = lune_relations(keys, adjacencies[member], cloud.nearest, codes, start, end)
            add_edges(adjacencies[member], codes, end, bounds(group + members - 1)[1])
            edges.sort(*bounds(group + members + member))

        team.run(search)
        for found in relations:
            table, pool = reduce_relations(keys, codes, found, table, pool, pool_starts, class_deaths, killed)
        if killed[0] == pool_starts.size:
            break
    return pool
