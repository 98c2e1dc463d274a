"""Which points form a loop: a representative cycle for each H1 bar of a Vietoris-Rips filtration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from topo_callback.homology.native_rips import bucket_edges, keyed, room_for_copy
from topo_callback.homology.native_rips_threads import SweptCloud, swept_cloud
from topo_callback.homology.rips import checked_distances, rounded_down
from topo_callback.homology.rips_reduction_kernels import closed_by_forest, rooted_forest
from topo_callback.homology.thread_team import ThreadTeam, allowed_threads


@dataclass(frozen=True)
class RepresentativeCycle:
    """One of many cycles that stand for an H1 bar: only the bar itself is canonical, not the points that carry it.

    Over Z/2 the cycle is absent before the birth, is no boundary until the death and is one from then on.

    Attributes:
        birth, death: the bar, in the unit of the distances; death is `inf` for a class that never dies.
        loops: closed walks, int64 [points] each, in which every point is joined to the next one and the last to the
            first. The first one holds the edge of the birth; most cycles have no other.
    """

    birth: float
    death: float
    loops: tuple[Int64[np.ndarray, " _"], ...]


def representative_cycles(
    distances: Float[np.ndarray, "points points"], *, threshold: float = math.inf, threads: int | None = None
) -> list[RepresentativeCycle]:
    """A representative cycle for each H1 bar, in the order of `rips_persistence(distances).of(1)`.

    The cycle of a class that dies is its reduced column; that of one that does not is the edge of its birth closed by
    the spanning forest. Deterministic. Arguments, units and errors as `rips_persistence`.
    """
    with ThreadTeam(threads or allowed_threads()) as team:
        checked = checked_distances(distances, team)
        points = len(checked)
        if points < 2:
            return []
        source = keyed(checked)
        limit = source.limit(rounded_down(threshold, checked.dtype))
        renumber = room_for_copy(source, limit, team)
        swept = swept_cloud(source.keys, limit, bucket_edges(points, team.members), team, renumber=renumber)
    birth = source.decoded(swept.births)
    death = np.where(swept.pool_starts >= 0, source.decoded(swept.class_deaths), np.inf)
    outside = swept.graph[swept.closes]
    parent, order = rooted_forest(swept.graph[~swept.closes], points)
    cycles = []
    for number in np.lexsort((death, birth)):
        if birth[number] < death[number]:
            edges = closed_by_forest(outside[_classes_of(swept, int(number))], parent, order)
            loops = _closed_walks(swept.order[edges])
            cycles.append(RepresentativeCycle(float(birth[number]), float(death[number]), loops))
    return cycles


def _classes_of(swept: SweptCloud, number: int) -> Int64[np.ndarray, " _"]:
    """The classes in the reduced column of one class, itself first; of one that never dies, itself alone."""
    start = int(swept.pool_starts[number])
    if start < 0:
        return np.array([number], dtype=np.int64)
    words = swept.column_pool[start : start + number // 64 + 1]
    found = np.flatnonzero(np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little"))
    return found[::-1].astype(np.int64)


def _closed_walks(edges: Int64[np.ndarray, "edges 2"]) -> tuple[Int64[np.ndarray, " _"], ...]:
    """Simple loops that together use each edge of a cycle once; the first one starts along the first edge."""
    others: dict[int, list[int]] = {}
    for first, second in edges[::-1].tolist():
        others.setdefault(first, []).append(second)
        others.setdefault(second, []).append(first)
    loops = []
    for start in [int(edges[0, 0]), *others]:
        while others[start]:
            walk = [start]
            place = {start: 0}
            while others[walk[-1]]:
                following = others[walk[-1]].pop()
                others[following].remove(walk[-1])
                if following in place:
                    # the walk has met itself: what lies between is a loop of its own
                    loop = walk[place[following] :]
                    for point in loop[1:]:
                        del place[point]
                    walk = walk[: place[following] + 1]
                    loops.append(np.array(loop, dtype=np.int64))
                else:
                    place[following] = len(walk)
                    walk.append(following)
    return tuple(sorted(loops, key=lambda loop: not _has_edge(loop, int(edges[0, 0]), int(edges[0, 1]))))


def _has_edge(loop: Int64[np.ndarray, " _"], first: int, second: int) -> bool:
    following = np.roll(loop, -1)
    return bool(np.any((loop == first) & (following == second) | (loop == second) & (following == first)))
