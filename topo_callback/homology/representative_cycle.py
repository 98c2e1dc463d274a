"""A loop of points that carries a bar of a zigzag, for reading the prompts behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Int, Integer

from topo_callback.homology.dionysus_engine import simplices_with_times
from topo_callback.homology.stage_graphs import StageGraphs

Cell = tuple[tuple[int, ...], tuple[int, int]]  # an edge and one of its runs


def representative_cycle(
    neighbours: Integer[np.ndarray, "stages points k"], birth: int, death: int
) -> Int[np.ndarray, " loop"]:
    """One loop, of many, that lives through the complexes birth..death-1 of a zigzag and is filled in none of them.

    Only the numbers of bars are canonical: other loops carry the same bar, and where several bars cover these
    complexes the loop may belong to any of them. Preferred are loops whose own edges appear and vanish with the bar,
    then short ones. Deterministic. In plain Python: some seconds at 1,000 points.

    Args:
        neighbours: the stages, as for `zigzag_persistence`.
        birth, death: of a bar of dimension 1, in complex indices.

    Returns:
        The points in the order of the loop, first one not repeated. Empty where no single loop lives so long: the bar
        is then carried by different loops at different complexes.

    Raises:
        ValueError: birth and death that no bar of so many stages has.
    """
    stages = neighbours.shape[0]
    if not 0 <= birth < death <= 2 * stages - 1:
        raise ValueError(f"a bar of {stages} stages lies within [0, {2 * stages - 1}), not [{birth}, {death})")
    first, last = birth // 2, death // 2
    graphs = StageGraphs.from_neighbours(neighbours[first : last + 1])
    window = (birth - 2 * first, death - 2 * first)
    simplices, times = simplices_with_times(graphs, 3)
    runs = {
        simplex: list(zip(moments[::2], moments[1::2], strict=True))
        for simplex, moments in zip(simplices, times, strict=True)
    }
    lasting: dict[tuple[int, ...], tuple[int, int]] = {
        simplex: run
        for simplex, simplex_runs in runs.items()
        if len(simplex) == 2
        for run in simplex_runs
        if run[0] <= window[0] and window[1] <= run[1]
    }
    filled = _reduced_boundaries(runs, window)
    open_loops = [
        loop
        for loop in _fundamental_loops(sorted(lasting), graphs.points)
        if _remainder({(edge, lasting[edge]) for edge in _edges_of(loop)}, filled)
    ]
    if not open_loops:
        return np.empty(0, np.int64)

    def badness(loop: list[int]) -> tuple[bool, int, list[int]]:
        own = [lasting[edge] for edge in _edges_of(loop)]
        lives = (max(run[0] for run in own), min(run[1] for run in own))
        return lives != window, len(loop), loop

    return np.array(min(open_loops, key=badness), dtype=np.int64)


def _reduced_boundaries(
    runs: dict[tuple[int, ...], list[tuple[int, int]]], window: tuple[int, int]
) -> dict[Cell, set[Cell]]:
    """By largest cell: reduced boundaries of the triangles that live somewhere in the window, each run on its own.

    The class of a loop in the colimit over the window is zero exactly when these boundaries span the loop.
    """
    reduced: dict[Cell, set[Cell]] = {}
    for simplex, simplex_runs in runs.items():
        if len(simplex) != 3:
            continue
        for begin, end in simplex_runs:
            if end <= window[0] or begin >= window[1]:
                continue
            boundary: set[Cell] = {
                (edge, next(run for run in runs[edge] if run[0] <= begin and end <= run[1]))
                for edge in combinations(simplex, 2)
            }
            rest = _remainder(boundary, reduced)
            if rest:
                reduced[max(rest)] = rest
    return reduced


def _remainder(chain: set[Cell], reduced: dict[Cell, set[Cell]]) -> set[Cell]:
    """The chain after adding boundaries until its largest cell is that of none; empty when boundaries span it."""
    rest = set(chain)
    while rest and max(rest) in reduced:
        rest ^= reduced[max(rest)]
    return rest


def _fundamental_loops(edges: list[tuple[int, ...]], points: int) -> Iterator[list[int]]:
    """For every edge outside a breadth-first forest, its loop with the forest, as points in order."""
    beside: list[list[int]] = [[] for _ in range(points)]
    for low, high in edges:
        beside[low].append(high)
        beside[high].append(low)
    parent = [-1] * points
    depth = [-1] * points
    for root in range(points):
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
    for low, high in edges:
        if parent[low] == high or parent[high] == low:
            continue
        left, right = [low], [high]
        while left[-1] != right[-1]:
            longer = left if depth[left[-1]] >= depth[right[-1]] else right
            longer.append(parent[longer[-1]])
        yield left + right[-2::-1]


def _edges_of(loop: list[int]) -> list[tuple[int, ...]]:
    return [(min(pair), max(pair)) for pair in zip(loop, loop[1:] + loop[:1], strict=True)]
