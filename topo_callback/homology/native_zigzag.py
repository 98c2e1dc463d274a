"""The native zigzag engine: cliques with their runs, cancellation of equal runs, cone, reduction.

Source: Dey and Hou, FastZigzag, arXiv 2204.11080: a zigzag of insertions and deletions has the bars of an ordinary
filtration that inserts every cell and then cones it off, in the reverse order of deletions. Here a cell is one maximal
run of stages of one clique, so that the filtration is known from the runs alone. Departures: all complexes are flag
complexes on one vertex set, so runs come from bit masks; pairs of a cell and a facet with the same run are cancelled
before the cone is built, which leaves bars as they are and most cells out.

Deterministic; the kernels release the interpreter lock; memory grows with the number of cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from topo_callback.homology import equal_run_kernels
from topo_callback.homology import zigzag_clique_kernels as clique_kernels
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.cone_forest_kernels import pair_edges_in_cone
from topo_callback.homology.cone_pairing_kernels import pair_in_cone
from topo_callback.homology.stage_graphs import StageGraphs


def native_zigzag_barcode(graphs: StageGraphs, max_dimension: int) -> Barcode:
    """The zigzag barcode over Z/2, dimensions 0..max_dimension, as cliques of max_dimension + 2 vertices decide it.

    Bars are as in `zigzag_persistence`. Time and memory grow with the number of runs of cliques, not with
    points * stages. Where the largest cliques outnumber those with one vertex less, those with one vertex more are
    found too: they change no bar and cancel most of the largest ones.
    """
    if graphs.points == 0:
        return Barcode.from_diagrams([])
    return _barcode_of_complex(_without_equal_runs(_cells_of_stages(graphs, max_dimension + 2)), max_dimension)


@dataclass(frozen=True)
class _Cells:
    """The cells of one dimension: each is one run of stages of one clique.

    first and last are the run's stages; facets the numbers of the facets, cells one dimension lower. Cells are sorted
    by rising length of their run.
    """

    first: Int32[np.ndarray, " cells"]
    last: Int32[np.ndarray, " cells"]
    facets: Int32[np.ndarray, "cells vertices"]


@dataclass(frozen=True)
class _Critical:
    """The cells of one dimension left by cancellation; the boundary of cell c is entries[starts[c] : starts[c + 1]]."""

    first: Int32[np.ndarray, " cells"]
    last: Int32[np.ndarray, " cells"]
    starts: Int64[np.ndarray, " boundaries"]
    entries: Int32[np.ndarray, " entries"]

    def __len__(self) -> int:
        return int(self.first.size)

    @classmethod
    def none(cls) -> _Critical:
        nothing = np.empty(0, np.int32)
        return cls(nothing, nothing, np.zeros(1, np.int64), nothing)


def _cells_of_stages(graphs: StageGraphs, clique_size: int) -> list[_Cells]:
    """The cells of dimensions 0..clique_size - 1, as far as there are any, and one dimension more if there are many."""
    points, stages = graphs.points, graphs.stages
    ranks = clique_kernels.ranks_by_listings(graphs.first_end, graphs.second_end, points)
    starts, last_vertex, masks = clique_kernels.union_edges(graphs.first_end, graphs.second_end, graphs.offsets, ranks)
    facets = clique_kernels.edge_facets(starts, last_vertex)
    every_point = np.arange(points + 1, dtype=np.int64)
    first_stage, last_stage = np.zeros(points, np.int32), np.full(points, stages - 1, np.int32)
    cells = [_Cells(first_stage, last_stage, np.empty((points, 0), np.int32))]
    lower = (every_point, first_stage, last_stage, every_point[:-1])
    for size in range(2, clique_size + 2):
        if last_vertex.size == 0:
            break
        run_starts, first_run, last_run = clique_kernels.runs_of_masks(masks, stages)
        positions, *sorted_cells = clique_kernels.sorted_cells(run_starts, first_run, last_run, facets, *lower, stages)
        cells.append(_Cells(*sorted_cells))
        lower = (run_starts, first_run, last_run, positions)
        # In the highest dimension nothing fills: cells abound there that bear no bar and are slow to pair.
        if size > clique_size or (size == clique_size and len(cells[-1].first) <= len(cells[-2].first)):
            break
        starts, last_vertex, masks, facets = clique_kernels.next_cliques(points, starts, last_vertex, masks, facets)
    return cells


def _without_equal_runs(cells: list[_Cells]) -> list[_Critical]:
    """The complex after cancelling cells against facets with the same run, from the highest dimension down."""
    nothing: Bool[np.ndarray, " cells"] = np.zeros(len(cells[-1].first), np.bool_)
    columns: list[tuple[np.ndarray, ...]] = []
    is_lower_half = [nothing]
    for lower, upper in zip(cells[-2::-1], cells[:0:-1], strict=True):
        owner, *reduced = equal_run_kernels.pair_equal_runs(
            lower.first, lower.last, upper.first, upper.last, upper.facets, is_lower_half[0]
        )
        columns.insert(0, (owner, *reduced))
        is_lower_half.insert(0, owner >= 0)
    is_upper_half = [np.zeros(len(cells[0].first), np.bool_), *(column[1] for column in columns)]
    numbers = [
        equal_run_kernels.critical_numbers(low, up) for low, up in zip(is_lower_half, is_upper_half, strict=True)
    ]
    critical = []
    for dimension, level in enumerate(cells):
        kept = numbers[dimension][0] >= 0
        first, last = level.first[kept], level.last[kept]
        if dimension == 0:
            boundary = np.zeros(first.size + 1, np.int64), np.empty(0, np.int32)
        else:
            owner, _, *pool = columns[dimension - 1]
            boundary = equal_run_kernels.critical_columns(
                owner, *numbers[dimension - 1], *numbers[dimension], level.facets, *pool
            )
        critical.append(_Critical(first, last, *boundary))
    return critical


def _barcode_of_complex(cells: list[_Critical], max_dimension: int) -> Barcode:
    """The zigzag barcode of a complex whose cells have runs, by reducing its cone from the highest dimension down."""
    stages = int(cells[0].last.max()) + 1 if len(cells[0]) else 1
    levels = [_Critical.none(), *cells, _Critical.none()]
    # In both orders, of cells that enter (or leave) together, those that live longer come first: fewer additions.
    ascending = [np.argsort(c.first.astype(np.int64) * stages - c.last, kind="stable") for c in levels]
    coned = [np.argsort(c.first.astype(np.int64) - c.last.astype(np.int64) * stages, kind="stable") for c in levels]
    bars = []
    is_cleared = np.zeros(len(levels[-2]), np.bool_)
    for place in range(len(levels) - 1, 1, -1):
        upper, base, lower = levels[place], levels[place - 1], levels[place - 2]
        rows = len(base) + len(lower)
        # Edges in levels[2]: cones over them are paired along a spanning forest.
        owner = (pair_edges_in_cone if place == 3 else pair_in_cone)(
            upper.starts,
            upper.entries,
            ascending[place],
            base.starts,
            base.entries,
            coned[place - 1],
            _rows(ascending[place - 1], rows - 1),
            _rows(coned[place - 2], rows - 1 - len(base)),
            is_cleared,
        )
        is_cleared = owner[::-1] >= 0
        bars.append(
            _bars(owner, place - 2, upper, base, lower, ascending[place - 1 : place + 1], coned[place - 2 : place])
        )
    dimension, birth, death = np.concatenate(bars, axis=1)
    kept = dimension <= max_dimension
    return Barcode(dimension[kept], birth[kept].astype(np.float64), death[kept].astype(np.float64))


def _rows(order: Int64[np.ndarray, " cells"], first_row: int) -> Int32[np.ndarray, " cells"]:
    """The row of every cell when rows fall from first_row in the given order."""
    rows = np.empty(order.size, np.int32)
    rows[order] = first_row - np.arange(order.size, dtype=np.int32)
    return rows


def _bars(
    owner: Int32[np.ndarray, " rows"],
    dimension: int,
    upper: _Critical,
    base: _Critical,
    lower: _Critical,
    ascending: list[Int64[np.ndarray, " _"]],
    coned: list[Int64[np.ndarray, " _"]],
) -> Int64[np.ndarray, "3 bars"]:
    """The bars (dimension, birth, death) of the pairs of one dimension of the cone.

    A cell enters at complex 2 * first and leaves at 2 * last + 1. Dey and Hou's three kinds of pairs: both cells
    ascending, [in, in); both coned, [out, out), where the column's cell leaves first; ascending with coned, from the
    smaller to the larger of in and out, one dimension lower when the cell comes in after the coned one went out.
    """
    row = np.flatnonzero(owner >= 0)
    birth_place, death_place = owner.size - 1 - row, owner[row].astype(np.int64)
    birth_coned, death_coned = birth_place >= len(base), death_place >= len(upper)
    enters = np.concatenate(
        [2 * base.first.astype(np.int64)[ascending[0]], 2 * lower.last.astype(np.int64)[coned[0]] + 1]
    )
    leaves = np.concatenate(
        [2 * upper.first.astype(np.int64)[ascending[1]], 2 * base.last.astype(np.int64)[coned[1]] + 1]
    )
    one, other = enters[birth_place], leaves[death_place]
    dimensions = dimension - (birth_coned | (death_coned & (one > other)))
    return np.stack([dimensions, np.minimum(one, other), np.maximum(one, other)])
