"""LoopSpace: the first homology of one clique complex, with loops that stand for its classes.

Vectors over Z/2 are Python integers whose bits are their entries; `Span` is a subspace of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import combinations


class Span:
    """The span of vectors, as an echelon basis: one vector for each highest bit."""

    def __init__(self, vectors: Iterable[int] = ()) -> None:
        self._by_highest_bit: dict[int, int] = {}
        for vector in vectors:
            self.add(vector)

    def __len__(self) -> int:
        """The dimension."""
        return len(self._by_highest_bit)

    def __contains__(self, vector: int) -> bool:
        return self._remainder(vector) == 0

    @property
    def basis(self) -> list[int]:
        """One basis, by falling highest bit."""
        return [self._by_highest_bit[bit] for bit in sorted(self._by_highest_bit, reverse=True)]

    @property
    def leading(self) -> frozenset[int]:
        """The highest bits of the basis: the bits that normal forms do not have."""
        return frozenset(self._by_highest_bit)

    def add(self, vector: int) -> bool:
        """Add a vector; False when it was in the span already."""
        rest = self._remainder(vector)
        if rest:
            self._by_highest_bit[rest.bit_length() - 1] = rest
        return rest != 0

    def normal_form(self, vector: int) -> int:
        """The one vector that differs from the given one by something in the span and has no leading bit."""
        form = 0
        while vector:
            bit = vector.bit_length() - 1
            if bit in self._by_highest_bit:
                vector ^= self._by_highest_bit[bit]
            else:
                form |= 1 << bit
                vector ^= 1 << bit
        return form

    def _remainder(self, vector: int) -> int:
        while vector:
            found = self._by_highest_bit.get(vector.bit_length() - 1)
            if found is None:
                return vector
            vector ^= found
        return 0


def preimage(images: dict[int, int], span: Span, width: int) -> Span:
    """The vectors that a linear map sends into a span.

    Args:
        images: where the map sends the vector with one bit, by that bit.
        span: of vectors that the map may give.
        width: more than every bit of `images`.
    """
    rows = Span(vector << width for vector in span.basis)
    for bit, image in images.items():
        rows.add(image << width | 1 << bit)
    return Span(vector for vector in rows.basis if vector.bit_length() <= width)


def intersection(one: Span, other: Span, width: int) -> Span:
    """The vectors in both spans, whose bits are all below `width` (Zassenhaus)."""
    rows = Span(vector << width for vector in other.basis)
    for vector in one.basis:
        rows.add(vector << width | vector)
    return Span(vector for vector in rows.basis if vector.bit_length() <= width)


Edge = tuple[int, int]


class LoopSpace:
    """H1 over Z/2 of the clique complex of a graph.

    Every edge outside a breadth-first forest closes one loop with it; sums of these loops are all cycles, and a cycle
    is the integer whose bits are the edges outside the forest that it has. Its class is the normal form of that integer
    modulo the boundaries of triangles: equal for homologous cycles.

    Attributes:
        width: number of edges outside the forest, of which the bits are made.
    """

    def __init__(self, edges: Iterable[Edge], points: int) -> None:
        listed = sorted(edges)
        self._beside: list[list[int]] = [[] for _ in range(points)]
        for low, high in listed:
            self._beside[low].append(high)
            self._beside[high].append(low)
        self._parent, self._depth = _breadth_first_forest(self._beside)
        outside = [(a, b) for a, b in listed if self._parent[a] != b and self._parent[b] != a]
        self._outside = outside
        self._bit = {edge: bit for bit, edge in enumerate(outside)}
        self.width = len(outside)
        self._filled = Span(self.cycle(combinations(triangle, 2)) for triangle in _triangles(self._beside))

    @property
    def classes(self) -> list[int]:
        """A basis of H1: the bits that no boundary leads."""
        return [bit for bit in range(self.width) if bit not in self._filled.leading]

    def cycle(self, edges: Iterable[Edge]) -> int:
        """The integer of a cycle, given by its edges (low end first)."""
        vector = 0
        for edge in edges:
            if edge in self._bit:
                vector ^= 1 << self._bit[edge]
        return vector

    def class_of(self, edges: Iterable[Edge]) -> int:
        """The class of a cycle of this complex, given by its edges (low end first)."""
        return self._filled.normal_form(self.cycle(edges))

    def edges_of(self, vector: int) -> set[Edge]:
        """The edges of the sum of the loops of an integer's bits."""
        edges: set[Edge] = set()
        while vector:
            bit = vector.bit_length() - 1
            edges ^= set(edges_along(self._loop(*self._outside[bit])))
            vector ^= 1 << bit
        return edges

    def shortened(self, edges: set[Edge]) -> set[Edge]:
        """A homologous cycle that no single triangle makes shorter."""
        while True:
            for low, high in sorted(edges):
                for top in sorted(set(self._beside[low]) & set(self._beside[high])):
                    shorter = edges ^ set(edges_along([low, high, top]))
                    if len(shorter) < len(edges):
                        break
                else:
                    continue
                edges = shorter
                break
            else:
                return edges

    def loops(self) -> Iterator[list[int]]:
        """For every edge outside the forest its loop, as points in order."""
        return (self._loop(low, high) for low, high in self._outside)

    def _loop(self, low: int, high: int) -> list[int]:
        left, right = [low], [high]
        while left[-1] != right[-1]:
            longer = left if self._depth[left[-1]] >= self._depth[right[-1]] else right
            longer.append(self._parent[longer[-1]])
        return left + right[-2::-1]


def edges_along(loop: list[int]) -> list[Edge]:
    """The edges of a closed loop of points, low end first."""
    return [(min(pair), max(pair)) for pair in zip(loop, loop[1:] + loop[:1], strict=True)]


def simple_loops(edges: set[Edge]) -> list[list[int]]:
    """A cycle taken apart into loops without a repeated point, each as points in order."""
    beside: dict[int, set[int]] = {}
    for low, high in sorted(edges):
        beside.setdefault(low, set()).add(high)
        beside.setdefault(high, set()).add(low)
    loops: list[list[int]] = []
    for start in sorted(beside):
        way = [start]
        while beside[way[-1]]:
            point = min(beside[way[-1]])
            beside[way[-1]].discard(point)
            beside[point].discard(way[-1])
            if point in way:
                place = way.index(point)
                loops.append(way[place:])
                del way[place + 1 :]
            else:
                way.append(point)
    return loops


def _breadth_first_forest(beside: list[list[int]]) -> tuple[list[int], list[int]]:
    """The parent of every point, -1 for roots, and its depth."""
    parent, depth = [-1] * len(beside), [-1] * len(beside)
    for root in range(len(beside)):
        if depth[root] >= 0:
            continue
        depth[root] = 0
        queue = deque([root])
        while queue:
            point = queue.popleft()
            for other in beside[point]:
                if depth[other] < 0:
                    depth[other], parent[other] = depth[point] + 1, point
                    queue.append(other)
    return parent, depth


def _triangles(beside: list[list[int]]) -> Iterator[tuple[int, int, int]]:
    above = [{other for other in others if other > point} for point, others in enumerate(beside)]
    for low in range(len(beside)):
        for middle in sorted(above[low]):
            for top in sorted(above[low] & above[middle]):
                yield low, middle, top
