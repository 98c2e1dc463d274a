"""Which points form a loop: representative cycles for the H1 bars of a Vietoris-Rips filtration and of a zigzag.

Only the numbers of bars are canonical, not the points that carry them: each cycle is one of many.

Source for zigzags: Carlsson and de Silva, "Zigzag persistence" (2010), the right and left filtrations: seen from a
complex, the classes of all bars are ordered by birth (first those born as something is removed, the latest first, then
those born as something is added, the earliest first) and by death alike. Both filtrations are followed from one complex
to the next, by linear algebra over Z/2, independently of the engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64, Integer

from topo_callback.homology.loop_space import Edge, LoopSpace, Span, edges_along, intersection, preimage, simple_loops
from topo_callback.homology.machine import ThreadTeam, allowed_threads
from topo_callback.homology.native_rips import bucket_edges, keyed, room_for_copy
from topo_callback.homology.native_rips_threads import SweptCloud, swept_cloud
from topo_callback.homology.rips import checked_distances, rounded_down
from topo_callback.homology.rips_reduction_kernels import closed_by_forest, rooted_forest
from topo_callback.homology.stage_graphs import StageGraphs


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
    the spanning forest. Deterministic, also in the number of threads.

    Args:
        distances: as in `rips_persistence`.
        threshold: the longest edge that enters, in the unit of the distances.
        threads: by default one for each core allowed.

    Returns:
        One cycle for each H1 bar, by rising birth and then death.

    Raises:
        ValueError: as `rips_persistence`.
        MemoryError: as `rips_persistence`.
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


@dataclass(frozen=True)
class ZigzagCycle:
    """A representative of one bar, of many: only the numbers of bars are canonical.

    Attributes:
        loops: points in the order of each loop, the first one not repeated. Several loops stand for their sum.
        at: the complex in which the loops are: 2s for stage s, 2s + 1 for its intersection with the next.
        lasting: the same loop is in every complex of the bar. Otherwise the bar is carried from complex to complex by
            different loops, of which this is the one at `at`.
    """

    loops: tuple[Int[np.ndarray, " loop"], ...]
    at: int
    lasting: bool


def zigzag_cycles(
    stages: Integer[np.ndarray, "stages points neighbours"] | Sequence[np.ndarray],
    birth: int,
    death: int,
    *,
    points: int | None = None,
    at: int | None = None,
) -> tuple[ZigzagCycle, ...]:
    """A representative cycle for every H1 bar [birth, death) of a zigzag, one of many for each.

    As many as there are equal bars, and independent of each other. Preferred are loops that are in every complex of the
    bar, then short ones. Deterministic. In plain Python: some seconds at 1,000 points.

    Args:
        stages: as for `zigzag_persistence`.
        birth, death: of a bar of dimension 1, in complex indices.
        points: number of vertices, when stages are lists of edges; as for `zigzag_persistence`.
        at: the complex whose loops are wanted; None: the stage nearest to the middle of the bar.

    Returns:
        As many cycles as there are bars with these ends.

    Raises:
        ValueError: no bar of dimension 1 has this birth and death, a complex outside it, or stages as described in
            `StageGraphs`.
    """
    graphs = StageGraphs.from_neighbours(stages) if points is None else StageGraphs.from_edges(list(stages), points)
    complexes = 2 * graphs.stages - 1
    if not 0 <= birth < death <= complexes:
        raise ValueError(f"a bar of {graphs.stages} stages lies within [0, {complexes}), not [{birth}, {death})")
    at = _middle(birth, death) if at is None else at
    if not birth <= at < death:
        raise ValueError(f"complex {at} is outside the bar [{birth}, {death})")
    window = _Window(graphs, max(birth - 1, 0), min(death, complexes - 1))
    width = window.spaces[at].width
    by_birth, before = window.filtration(birth, -1, at)
    by_death, after = window.filtration(death - 1, 1, at)
    alive = intersection(by_birth, by_death, width)
    other = intersection(before, by_death, width)
    for vector in intersection(by_birth, after, width).basis:
        other.add(vector)
    count = len(alive) - len(other)
    if count == 0:
        raise ValueError(f"no bar of dimension 1 is [{birth}, {death}); see `zigzag_persistence` for those there are")
    return window.representatives(alive, other, count, birth, death, at)


def _middle(birth: int, death: int) -> int:
    """The stage nearest to the middle of a bar; the intersection for a bar that is in no stage."""
    middle = (birth + death - 1) // 2
    return middle if middle % 2 == 0 or death - birth == 1 else middle + (1 if middle + 1 < death else -1)


class _Window:
    """The complexes first..last of a zigzag, with their loops."""

    def __init__(self, graphs: StageGraphs, first: int, last: int) -> None:
        self._edges = {complex_: _edges(graphs, complex_) for complex_ in range(first, last + 1)}
        self.spaces = {complex_: LoopSpace(edges, graphs.points) for complex_, edges in self._edges.items()}
        self._points = graphs.points

    def filtration(self, end: int, outward: int, at: int) -> tuple[Span, Span]:
        """The classes at a complex of bars up to those with this end, in the order of the module, and up to before.

        Args:
            end: the first complex of the bars (outward -1), or their last (outward 1).
            outward: the direction away from them.
            at: the complex.
        """
        if end % 2:  # an end at an intersection: the classes that the stage outside fills
            return self._followed(end + outward, at, everything=False), self._followed(end, at, everything=False)
        beyond = end + outward in self.spaces
        upper = self._followed(end, at, everything=True)
        return upper, self._followed(end + outward if beyond else end, at, everything=beyond)

    def _followed(self, start: int, end: int, *, everything: bool) -> Span:
        """The classes at complex `end` that go with all classes, or with none, at complex `start`."""
        span = Span(1 << bit for bit in self.spaces[start].classes if everything)
        step = 1 if end > start else -1
        for here in range(start, end, step):
            there = here + step
            # an intersection is part of the stages beside it
            if here % 2:
                images = self._images(here, there)
                span = Span(_image(vector, images) for vector in span.basis)
            else:
                width = max(self.spaces[here].width, self.spaces[there].width) + 1
                span = preimage(self._images(there, here), span, width)
        return span

    def _images(self, part: int, whole: int) -> dict[int, int]:
        """Where the classes of an intersection go in a stage, by bit."""
        inner, outer = self.spaces[part], self.spaces[whole]
        return {bit: outer.class_of(inner.edges_of(1 << bit)) for bit in inner.classes}

    def representatives(
        self, alive: Span, other: Span, count: int, birth: int, death: int, at: int
    ) -> tuple[ZigzagCycle, ...]:
        """So many cycles at a complex whose classes are alive and independent modulo those of other bars."""
        taken = Span(other.basis)
        space = self.spaces[at]
        found: list[ZigzagCycle] = []
        common: set[Edge] = set.intersection(*(self._edges[complex_] for complex_ in range(birth, death)))
        loops = LoopSpace(common, self._points).loops()
        for loop in sorted(loops, key=lambda loop: (len(loop), loop)):
            vector = space.class_of(edges_along(loop))
            if len(found) < count and vector in alive and taken.add(vector):
                found.append(ZigzagCycle((np.array(loop, dtype=np.int64),), at, lasting=True))
        cycles = [space.shortened(space.edges_of(vector)) for vector in alive.basis]
        for edges in sorted(cycles, key=lambda edges: (len(edges), sorted(edges))):
            if len(found) < count and taken.add(space.class_of(edges)):
                parts = tuple(np.array(loop, dtype=np.int64) for loop in simple_loops(edges))
                found.append(ZigzagCycle(parts, at, lasting=False))
        return tuple(found)


def _edges(graphs: StageGraphs, complex_: int) -> set[Edge]:
    """The edges of a stage, or of its intersection with the next."""
    stage, is_intersection = divmod(complex_, 2)
    listed = slice(graphs.offsets[stage], graphs.offsets[stage + 1])
    ends = zip(graphs.first_end[listed].tolist(), graphs.second_end[listed].tolist(), strict=True)
    edges = {(min(pair), max(pair)) for pair in ends}
    return edges & _edges(graphs, complex_ + 1) if is_intersection else edges


def _image(vector: int, images: dict[int, int]) -> int:
    total = 0
    while vector:
        bit = vector.bit_length() - 1
        total ^= images[bit]
        vector ^= 1 << bit
    return total
