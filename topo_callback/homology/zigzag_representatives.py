"""Loops of points that carry a bar of a zigzag, for reading the prompts behind it.

Source: Carlsson and de Silva, "Zigzag persistence" (2010), the right and left filtrations: seen from a complex, the
classes of all bars are ordered by birth (first those born as something is removed, the latest first, then those born
as something is added, the earliest first) and by death alike. Both filtrations are followed from one complex to the
next, by linear algebra over Z/2, independently of the engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from topo_callback.homology.binary_spans import Span, intersection, preimage
from topo_callback.homology.loop_space import Edge, LoopSpace, edges_along, simple_loops
from topo_callback.homology.stage_graphs import StageGraphs


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
