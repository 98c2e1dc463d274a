"""Zigzag persistence of the clique complexes of a sequence of graphs on one vertex set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Integer

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.stage_graphs import StageGraphs

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
        from topo_callback.homology.native_zigzag import native_zigzag_barcode

        return native_zigzag_barcode(graphs, max_dimension, unfilled=unfilled)
    if engine == "dionysus":
        from topo_callback.homology.dionysus_engine import classical_zigzag_barcode

        return classical_zigzag_barcode(graphs, max_dimension, clique_size)
    raise ValueError(f'unknown zigzag engine "{engine}"; choose "auto", "native" or "dionysus"')
