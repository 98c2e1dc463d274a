"""Zigzag persistence of the clique complexes of a sequence of graphs on one vertex set, and the native engine for it.

The engine: cliques with their runs, cancellation of equal runs, cone, reduction.
Source: Dey and Hou, FastZigzag, arXiv 2204.11080: a zigzag of insertions and deletions has the bars of an ordinary
filtration that inserts every cell and then cones it off, in the reverse order of deletions. Here a cell is one maximal
run of stages of one clique, so that the filtration is known from the runs alone. Departures: all complexes are flag
complexes on one vertex set, so runs come from bit masks; pairs of a cell and a facet with the same run are cancelled
before the cone is built, which leaves bars as they are and most cells out; and where the union of all stages is much
larger than a stage, the cone is built window by window (`zigzag_windows`).

Deterministic; the kernels release the interpreter lock; memory grows with the number of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from topo_callback.homology import equal_run_kernels
from topo_callback.homology import zigzag_clique_kernels as clique_kernels
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag_cone import Cells, Level, pairs_of_cone
from topo_callback.homology.zigzag_windows import bars_by_windows, window_steps

ZigzagEngine = Literal["auto", "native", "dionysus"]


def zigzag_persistence(
    stages: Integer[np.ndarray, "stages points neighbours"] | Sequence[np.ndarray] | Sequence[Sequence[Sequence[int]]],
    *,
    points: int | None = None,
    max_dimension: int = 1,
    clique_size: int | None = None,
    engine: ZigzagEngine = "auto",
) -> Barcode:
    """The zigzag barcode of K_0 <- K_0∩K_1 -> K_1 <- ... -> K_{stages-1}, the clique complexes of the stages.

    Stage s is complex 2s and its intersection with the next stage is complex 2s+1. Bars are half-open [birth, death)
    in complex index; what is alive in the last complex dies at 2*stages-1. Every vertex is in every complex.
    Coefficients are Z/2. The result depends on the stages alone: not on the engine, the order of neighbours or edges,
    or the machine.

    Args:
        stages: without `points`, neighbours as integers [stages, points, k] (or one [points, k] array per stage):
            `stages[s, i]` are the neighbours of point i in stage s, and two points are joined when either lists the
            other. With `points`, one integer array [edges, 2] per stage.
        points: number of vertices; says that the stages are lists of edges.
        max_dimension: the highest homological dimension returned; bars have dimensions 0..max_dimension.
        clique_size: vertices in the largest cliques of the complexes; None: no limit. Homology in dimension p depends
            on cliques of at most p + 2 vertices, so that only clique_size = max_dimension + 1 changes bars: nothing
            fills cycles of dimension max_dimension then. The published files have such bars in their highest
            dimension: max_dimension=4, clique_size=5.
        engine: "native" (compiled, releases the GIL), "dionysus" (its classical zigzag algorithm, an extra), or
            "auto", the native one.

    Returns:
        Barcode: dimensions 0..max_dimension, births and deaths as whole numbers in float64.

    Raises:
        ValueError: stages as described in `StageGraphs`, a negative max_dimension, a clique_size below
            max_dimension + 1 (no clique would have the highest dimension), an unknown engine.
        MissingExtraError: engine "dionysus" without dionysus installed.

    Source: Gardinazzi et al., arXiv 2410.11042, section 3 (the complexes); Dey and Hou, arXiv 2204.11080 (the native
    algorithm). The paper counts complexes from 1 and takes cliques of 5 vertices: max_dimension=3 gives the bars of
    dimensions 0 to 3 that it interprets.
    """
    if max_dimension < 0:
        raise ValueError(f"max_dimension is {max_dimension}; the lowest homological dimension is 0")
    if clique_size is not None and clique_size < max_dimension + 1:
        raise ValueError(
            f"clique_size {clique_size} leaves no cliques of dimension {max_dimension}; give at least "
            f"max_dimension + 1 = {max_dimension + 1}"
        )
    unfilled = clique_size == max_dimension + 1
    graphs = StageGraphs.from_neighbours(stages) if points is None else StageGraphs.from_edges(list(stages), points)
    if engine in ("auto", "native"):
        return native_zigzag_barcode(graphs, max_dimension, unfilled=unfilled)
    if engine == "dionysus":
        from topo_callback.homology.other_engines import classical_zigzag_barcode

        return classical_zigzag_barcode(graphs, max_dimension, clique_size)
    raise ValueError(f'unknown zigzag engine "{engine}"; choose "auto", "native" or "dionysus"')


def native_zigzag_barcode(
    graphs: StageGraphs, max_dimension: int, *, unfilled: bool = False, window: int | None = None
) -> Barcode:
    """The zigzag barcode over Z/2, dimensions 0..max_dimension, as cliques of max_dimension + 2 vertices decide it.

    With `unfilled` there are cliques of max_dimension + 1 vertices at most, so that nothing fills the highest cycles.
    `window` is the number of steps between stages in a window; None: by `window_steps`. It changes no bar.

    Bars are as in `zigzag_persistence`. Time and memory grow with the number of runs of cliques, not with
    points * stages. Where the largest cliques outnumber those with one vertex less, those with one vertex more are
    found too: they change no bar and cancel most of the largest ones.
    """
    if graphs.points == 0:
        return Barcode.from_diagrams([])
    cells = _cells_of_stages(graphs, max_dimension + (1 if unfilled else 2), and_more=not unfilled)
    return _barcode_of_complex(_without_equal_runs(cells), max_dimension, window)


@dataclass(frozen=True)
class _CliqueRuns:
    """The cells of one dimension: each is one run of stages of one clique.

    first and last are the run's stages; facets the numbers of the facets, cells one dimension lower. Cells are sorted
    by rising length of their run.
    """

    first: Int32[np.ndarray, " cells"]
    last: Int32[np.ndarray, " cells"]
    facets: Int32[np.ndarray, "cells vertices"]


def _cells_of_stages(graphs: StageGraphs, clique_size: int, *, and_more: bool) -> list[_CliqueRuns]:
    """The cells of dimensions 0..clique_size - 1, as far as there are any; `and_more`: one more if there are many."""
    points, stages = graphs.points, graphs.stages
    ranks = clique_kernels.ranks_by_listings(graphs.first_end, graphs.second_end, points)
    starts, last_vertex, masks = clique_kernels.union_edges(graphs.first_end, graphs.second_end, graphs.offsets, ranks)
    facets = clique_kernels.edge_facets(starts, last_vertex)
    every_point = np.arange(points + 1, dtype=np.int64)
    first_stage, last_stage = np.zeros(points, np.int32), np.full(points, stages - 1, np.int32)
    cells = [_CliqueRuns(first_stage, last_stage, np.empty((points, 0), np.int32))]
    lower = (every_point, first_stage, last_stage, every_point[:-1])
    for size in range(2, clique_size + 1 + and_more):
        if last_vertex.size == 0:
            break
        run_starts, first_run, last_run = clique_kernels.runs_of_masks(masks, stages)
        positions, *sorted_cells = clique_kernels.sorted_cells(run_starts, first_run, last_run, facets, *lower, stages)
        cells.append(_CliqueRuns(*sorted_cells))
        lower = (run_starts, first_run, last_run, positions)
        # In the highest dimension nothing fills: cells abound there that bear no bar and are slow to pair.
        if size > clique_size or (size == clique_size and len(cells[-1].first) <= len(cells[-2].first)):
            break
        starts, last_vertex, masks, facets = clique_kernels.next_cliques(points, starts, last_vertex, masks, facets)
    return cells


def _without_equal_runs(cells: list[_CliqueRuns]) -> list[Cells]:
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
        critical.append(Cells(first, last, *boundary))
    return critical


def _barcode_of_complex(cells: list[Cells], max_dimension: int, window: int | None) -> Barcode:
    """The zigzag barcode of a complex whose cells have runs, by reducing its cone from the highest dimension down."""
    stages = int(cells[0].last.max()) + 1 if len(cells[0]) else 1
    steps = window or window_steps(cells, stages, max_dimension)
    if steps is None:
        bars = _bars_in_one_window(cells, stages)
    else:
        # Components take little time over all stages, and need points and edges only.
        components = _bars_in_one_window(cells[:2], stages)
        bars = np.concatenate(
            [components[:, components[0] == 0], bars_by_windows(cells, stages, max_dimension, steps)], axis=1
        )
    dimension, birth, death = bars[:, bars[0] <= max_dimension]
    return Barcode(dimension, birth.astype(np.float64), death.astype(np.float64))


def _bars_in_one_window(cells: list[Cells], stages: int) -> Int64[np.ndarray, "3 bars"]:
    """The bars (dimension, birth, death) by one cone over all stages."""
    levels = [Level.of(level, stages) for level in cells]
    return np.concatenate([pairs.bars for pairs in pairs_of_cone(levels, 0, -1)], axis=1)
