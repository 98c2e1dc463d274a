"""One large cloud on several threads: the same kernels as on one, the same result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64, UInt32, UInt64

from topo_callback.homology.native_rips_kernels import (
    binning,
    bucket_layout,
    central_order,
    graph_classes,
    graph_keys,
)
from topo_callback.homology.rips_edge_kernels import (
    count_edges,
    deal_edges,
    nearest_rows,
    neighbour_count,
    neighbourhood_edges,
    relabelled_rows,
    row_statistics,
    sort_bucket,
)
from topo_callback.homology.rips_lune_kernels import add_edges, empty_adjacency, lune_relations
from topo_callback.homology.rips_reduction_kernels import edge_lookup, reduce_relations
from topo_callback.homology.thread_team import ThreadTeam, triangle_shares

Keys = UInt32[np.ndarray, "points points"]
Codes = UInt32[np.ndarray, " _"]
Bars = tuple[
    UInt32[np.ndarray, " components"],
    UInt32[np.ndarray, " classes"],
    UInt32[np.ndarray, " classes"],
    Bool[np.ndarray, " classes"],
]


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


def threaded_bars(keys: Keys, limit: np.uint32, bucket_edges: int, team: ThreadTeam) -> Bars:
    """What `cloud_bars` gives, on a team of threads."""
    found = swept_cloud(keys, limit, bucket_edges, team)
    return found.deaths, found.births, found.class_deaths, found.pool_starts >= 0


def swept_cloud(keys: Keys, limit: np.uint32, bucket_edges: int, team: ThreadTeam) -> SweptCloud:
    """Sweep one cloud on a team of threads."""
    central, order, cut = _central_keys(keys, limit, team)
    graph = _neighbourhood_graph(central, cut, team)
    deaths, births, closes = graph_classes(central, graph)
    class_deaths = np.zeros(births.size, np.uint32)
    pool_starts = np.full(births.size, -1, np.int64)
    pool = np.empty(0, np.uint64)
    if births.size:
        codes, starts = _dealt_edges(central, cut, graph, bucket_edges, team)
        pool = _sweep(central, codes, starts, edge_lookup(graph, closes), pool_starts, class_deaths, team)
    return SweptCloud(order, graph, closes, deaths, births, class_deaths, pool, pool_starts)


def _central_keys(
    keys: Keys, limit: np.uint32, team: ThreadTeam
) -> tuple[Keys, Int64[np.ndarray, " points"], np.uint32]:
    """(Keys with the points numbered from the centre outwards, their old indices, the greatest key that matters)."""
    points = len(keys)
    totals, longest = np.empty(points, np.uint64), np.empty(points, np.uint32)
    central = np.empty((points, points), np.uint32)
    shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
    team.run(lambda member: row_statistics(keys, totals, longest, *shares[member]))
    order = central_order(totals)
    team.run(lambda member: relabelled_rows(keys, order, central, *shares[member]))
    return central, order, min(limit, longest.min())


def _neighbourhood_graph(central: Keys, cut: np.uint32, team: ThreadTeam) -> Codes:
    """The codes of the edges of the relative neighbourhood graph, in the total order."""
    points = len(central)
    nearest = np.empty((points, neighbour_count(points)), np.int32)
    shares = list(pairwise(np.linspace(0, points, team.members + 1).astype(int).tolist()))
    team.run(lambda member: nearest_rows(central, nearest, *shares[member]))
    parts: list[Codes] = [np.empty(0, np.uint32)] * team.members

    def collect(member: int) -> None:
        parts[member] = neighbourhood_edges(central, nearest, cut, member, team.members)

    team.run(collect)
    graph = np.sort(np.concatenate(parts))
    sort_bucket(central, graph, 0, graph.size)
    return graph


def _dealt_edges(
    central: Keys, cut: np.uint32, graph: Codes, bucket_edges: int, team: ThreadTeam
) -> tuple[Codes, Int64[np.ndarray, " ends"]]:
    """All edges up to `cut`, bucket by bucket of ascending keys, each bucket in order of codes; where buckets start."""
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
    return codes, starts


def _sweep(
    central: Keys,
    codes: Codes,
    starts: Int64[np.ndarray, " ends"],
    table: tuple[UInt32[np.ndarray, " slots"], np.ndarray, int],
    pool_starts: Int64[np.ndarray, " classes"],
    class_deaths: UInt32[np.ndarray, " classes"],
    team: ThreadTeam,
) -> UInt64[np.ndarray, " words"]:
    """Go through the edges until every class is dead; writes `pool_starts` and `class_deaths`, returns the columns.

    Each member searches the lunes of one bucket of a group. It has its own adjacency, to which it adds the edges of the
    other buckets unsearched.
    """
    members = team.members
    buckets = starts.size - 1
    adjacencies = [empty_adjacency(len(central)) for _ in range(members)]
    relations: list[np.ndarray] = [np.empty((0, 5), np.int32)] * members
    pool = np.empty(1024, np.uint64)
    killed = np.zeros(2, np.int64)

    def bounds(bucket: int) -> tuple[int, int]:
        return int(starts[min(bucket, buckets)]), int(starts[min(bucket + 1, buckets)])

    def sort(member: int) -> None:
        sort_bucket(central, codes, *bounds(member))

    team.run(sort)
    for group in range(0, buckets, members):

        def search(member: int, group: int = group) -> None:
            start, end = bounds(group + member)
            add_edges(adjacencies[member], codes, bounds(group)[0], start)
            relations[member] = lune_relations(central, adjacencies[member], codes, start, end)
            add_edges(adjacencies[member], codes, end, bounds(group + members - 1)[1])
            sort_bucket(central, codes, *bounds(group + members + member))

        team.run(search)
        for found in relations:
            table, pool = reduce_relations(central, codes, found, table, pool, pool_starts, class_deaths, killed)
        if killed[0] == pool_starts.size:
            break
    return pool
