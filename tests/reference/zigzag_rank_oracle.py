"""Zigzag barcodes from ranks alone: dense matrices over GF(2), no filtration, no cone. For tiny complexes only.

The number of bars that live through all of the complexes first..last is the generalised rank of the zigzag module
between them: the rank of the map from its limit to its colimit (Kim and Memoli 2018). Multiplicities of bars follow by
inclusion and exclusion. Shares no code and no idea with the engines.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np


def oracle_bars(stages: list[set[tuple[int, int]]], points: int, max_dimension: int) -> list[tuple[int, int, int]]:
    """Sorted (dimension, birth, death) of the zigzag of clique complexes; edges are pairs (low, high)."""
    graphs = []
    for stage, edges in enumerate(stages):
        if stage:
            graphs.append(stages[stage - 1] & edges)
        graphs.append(edges)
    complexes = [_cliques(edges, points, max_dimension + 2) for edges in graphs]
    bars = []
    for dimension in range(max_dimension + 1):
        rank = _window_ranks(complexes, dimension)
        count = len(complexes)

        def lived(first: int, last: int, rank: dict = rank, count: int = count) -> int:
            return rank[first, last] if first >= 0 and last < count else 0

        for first in range(count):
            for last in range(first, count):
                exactly = (
                    lived(first, last) - lived(first - 1, last) - lived(first, last + 1) + lived(first - 1, last + 1)
                )
                bars += [(dimension, first, last + 1)] * exactly
    return sorted(bars)


def _cliques(edges: set[tuple[int, int]], points: int, size: int) -> list[list[tuple[int, ...]]]:
    return [
        [clique for clique in combinations(range(points), vertices) if all(e in edges for e in combinations(clique, 2))]
        for vertices in range(1, size + 1)
    ]


def _window_ranks(complexes: list, dimension: int) -> dict[tuple[int, int], int]:
    """For every window first..last of complexes, the rank of limit -> colimit of homology over it.

    Works with cycles modulo boundaries in the chain space of each complex. The limit is made of tuples of cycles, one
    per complex, that agree modulo boundaries wherever one complex includes into the next; the colimit is the sum of all
    cycle spaces modulo boundaries and the same agreements. The map sends a tuple to its first member.
    """
    spaces = [_cycles_and_boundaries(cells, dimension) for cells in complexes]
    homology = [_representatives(cycles, boundaries) for cycles, boundaries in spaces]
    ranks = {}
    for first in range(len(complexes)):
        for last in range(first, len(complexes)):
            window = range(first, last + 1)
            widths = [len(homology[index]) for index in window]
            offsets = np.concatenate([[0], np.cumsum(widths)]).astype(int)
            relations = []  # columns of the colimit: the same class in two complexes
            conditions = []  # rows of the limit: agreement of two classes
            for index in window:
                if index % 2 == 0:
                    continue
                for stage in (index - 1, index + 1):
                    if stage not in window:
                        continue
                    matrix = _induced(
                        homology[index], homology[stage], spaces[stage][1], complexes, index, stage, dimension
                    )
                    block = np.zeros((len(homology[stage]), offsets[-1]), dtype=bool)
                    block[:, offsets[index - first] : offsets[index - first + 1]] = matrix
                    block[:, offsets[stage - first] : offsets[stage - first + 1]] = np.eye(
                        len(homology[stage]), dtype=bool
                    )
                    conditions.append(block)
                    columns = np.zeros((offsets[-1], len(homology[index])), dtype=bool)
                    columns[offsets[index - first] : offsets[index - first + 1]] = np.eye(
                        len(homology[index]), dtype=bool
                    )
                    columns[offsets[stage - first] : offsets[stage - first + 1]] = matrix
                    relations.append(columns)
            limit = _kernel(np.concatenate(conditions)) if conditions else np.eye(offsets[-1], dtype=bool)
            sent = np.zeros((offsets[-1], limit.shape[1]), dtype=bool)
            sent[: offsets[1]] = limit[: offsets[1]]
            related = np.concatenate(relations, axis=1) if relations else np.zeros((offsets[-1], 0), dtype=bool)
            ranks[first, last] = _rank(np.concatenate([related, sent], axis=1)) - _rank(related)
    return ranks


def _cycles_and_boundaries(cells: list, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns spanning the cycles and the boundaries of one complex in its own cells of this dimension."""
    down = _boundary(cells, dimension) if dimension else np.zeros((0, len(cells[0])), dtype=bool)
    return _kernel(down), _boundary(cells, dimension + 1)


def _boundary(cells: list, dimension: int) -> np.ndarray:
    place = {cell: row for row, cell in enumerate(cells[dimension - 1])}
    matrix = np.zeros((len(cells[dimension - 1]), len(cells[dimension])), dtype=bool)
    for column, cell in enumerate(cells[dimension]):
        for facet in combinations(cell, dimension):
            matrix[place[facet], column] = True
    return matrix


def _representatives(cycles: np.ndarray, boundaries: np.ndarray) -> list[np.ndarray]:
    """Cycles that form a basis of homology."""
    chosen: list[np.ndarray] = []
    known = boundaries
    rank = _rank(known)
    for column in cycles.T:
        extended = np.concatenate([known, column[:, None]], axis=1)
        if _rank(extended) > rank:
            rank += 1
            known = extended
            chosen.append(column)
    return chosen


def _induced(
    source: list, target: list, boundaries: np.ndarray, complexes: list, index: int, stage: int, dimension: int
) -> np.ndarray:
    """The inclusion on homology, in the chosen bases."""
    place = {cell: row for row, cell in enumerate(complexes[stage][dimension])}
    matrix = np.zeros((len(target), len(source)), dtype=bool)
    basis = np.concatenate([np.array(target, dtype=bool).reshape(len(target), len(place)).T, boundaries], axis=1)
    for column, cycle in enumerate(source):
        included = np.zeros(len(place), dtype=bool)
        for row in np.flatnonzero(cycle):
            included[place[complexes[index][dimension][row]]] = True
        kernel = _kernel(np.concatenate([basis, included[:, None]], axis=1))
        solution = kernel[:, kernel[-1]][:, 0]
        matrix[:, column] = solution[: len(target)]
    return matrix


def _echelon(matrix: np.ndarray) -> tuple[np.ndarray, list[int]]:
    reduced = matrix.copy()
    pivots: list[int] = []
    for column in range(reduced.shape[1]):
        rows = np.flatnonzero(reduced[len(pivots) :, column]) + len(pivots)
        if rows.size == 0:
            continue
        reduced[[len(pivots), rows[0]]] = reduced[[rows[0], len(pivots)]]
        others = np.flatnonzero(reduced[:, column])
        others = others[others != len(pivots)]
        reduced[others] ^= reduced[len(pivots)]
        pivots.append(column)
        if len(pivots) == reduced.shape[0]:
            break
    return reduced, pivots


def _rank(matrix: np.ndarray) -> int:
    return len(_echelon(matrix)[1])


def _kernel(matrix: np.ndarray) -> np.ndarray:
    """Columns spanning the kernel."""
    reduced, pivots = _echelon(matrix)
    free = [column for column in range(matrix.shape[1]) if column not in pivots]
    kernel = np.zeros((matrix.shape[1], len(free)), dtype=bool)
    for number, column in enumerate(free):
        kernel[column, number] = True
        kernel[pivots, number] = reduced[: len(pivots), column]
    return kernel
