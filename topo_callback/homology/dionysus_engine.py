"""Zigzag barcodes by dionysus: its classical algorithm and, as an independent oracle, its fast zigzag.

The cliques are found here in plain Python, sharing no code with the native engine, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from topo_callback.errors import MissingExtraError
from topo_callback.homology.barcode import Barcode

if TYPE_CHECKING:
    from topo_callback.homology.stage_graphs import StageGraphs

Clique = tuple[int, ...]


def classical_zigzag_barcode(graphs: StageGraphs, max_dimension: int, clique_size: int | None = None) -> Barcode:
    """The zigzag barcode by dionysus' classical algorithm (Carlsson, de Silva, Morozov 2009), over Z/2.

    Args:
        graphs: the graph of every stage.
        max_dimension: bars have dimensions 0..max_dimension.
        clique_size: vertices in the largest cliques; None: max_dimension + 2.

    Raises:
        MissingExtraError: dionysus is not installed.
    """
    simplices, times = simplices_with_times(graphs, max_dimension + 2 if clique_size is None else clique_size)
    return classical_barcode_of_simplices(simplices, times, graphs.stages, max_dimension)


def classical_barcode_of_simplices(
    simplices: list[Clique], times: list[list[int]], stages: int, max_dimension: int
) -> Barcode:
    """`classical_zigzag_barcode` from simplices and their times, as given by `simplices_with_times`."""
    dionysus = _dionysus()
    end = 2 * stages - 1
    if not simplices:
        return Barcode.from_diagrams([])
    # A removal at the very end is no removal for the classical algorithm: the class lives through the last complex.
    alive = [moments[:-1] if moments[-1] == end else moments for moments in times]
    _, diagrams, _ = dionysus.zigzag_homology_persistence(dionysus.Filtration(simplices), alive)
    rows = [
        (dimension, point.birth, min(point.death, float(end)))
        for dimension, diagram in enumerate(diagrams)
        for point in diagram
    ]
    return _barcode(rows, max_dimension)


def fast_zigzag_barcode(graphs: StageGraphs, max_dimension: int) -> Barcode:
    """The same barcode by dionysus' fast zigzag (Dey and Hou, arXiv 2204.11080): cone, reduction, translation.

    Slow: the cone is built in Python. An oracle for some hundred points.

    Raises:
        MissingExtraError: dionysus, or intervaltree and sortedcontainers that its fast zigzag needs, is not installed.
    """
    simplices, times = simplices_with_times(graphs, max_dimension + 2)
    return fast_barcode_of_simplices(simplices, times, max_dimension)


def fast_barcode_of_simplices(simplices: list[Clique], times: list[list[int]], max_dimension: int) -> Barcode:
    """`fast_zigzag_barcode` from simplices and their times, as given by `simplices_with_times`."""
    dionysus = _dionysus()
    if not simplices:
        return Barcode.from_diagrams([])
    cone = dionysus.fast_zigzag(simplices, times)
    reduced = dionysus.homology_persistence(cone)
    rows = []
    for dimension, kinds in enumerate(dionysus.init_zigzag_diagrams(reduced, cone)):
        for diagram in kinds.values():
            # The kinds differ in which ends are open; as complex indices all of them are half-open from low to high.
            rows += [(dimension, min(point.birth, point.death), max(point.birth, point.death)) for point in diagram]
    return _barcode(rows, max_dimension)


def simplices_with_times(graphs: StageGraphs, clique_size: int) -> tuple[list[Clique], list[list[int]]]:
    """All cliques that live in some stage, with the complex indices at which they enter and leave, alternating."""
    masks = _edge_masks(graphs)
    above: list[list[int]] = [[] for _ in range(graphs.points)]
    for low, high in sorted(masks):
        above[low].append(high)
    simplices: list[Clique] = []
    times: list[list[int]] = []

    def visit(clique: Clique, mask: int, candidates: list[int]) -> None:
        simplices.append(clique)
        times.append([moment for run in _runs(mask) for moment in run])
        if len(clique) == clique_size:
            return
        for vertex in candidates:
            common = mask
            for member in clique:
                common &= masks[member, vertex]
            if common:
                further = [w for w in candidates if w > vertex and (vertex, w) in masks]
                visit((*clique, vertex), common, further)

    for vertex in range(graphs.points):
        visit((vertex,), (1 << graphs.stages) - 1, above[vertex])
    return simplices, times


def _edge_masks(graphs: StageGraphs) -> dict[tuple[int, int], int]:
    """For every edge of the union graph, the set of its stages as bits of an integer."""
    masks: dict[tuple[int, int], int] = {}
    low = np.minimum(graphs.first_end, graphs.second_end)
    high = np.maximum(graphs.first_end, graphs.second_end)
    for stage in range(graphs.stages):
        listed = slice(int(graphs.offsets[stage]), int(graphs.offsets[stage + 1]))
        for edge in zip(low[listed].tolist(), high[listed].tolist(), strict=True):
            masks[edge] = masks.get(edge, 0) | 1 << stage
    return masks


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Maximal runs of ones as (first complex with the clique, first complex without it)."""
    stage = 0
    while mask:
        empty = (mask & -mask).bit_length() - 1
        mask >>= empty
        length = (~mask & (mask + 1)).bit_length() - 1
        first = stage + empty
        yield 2 * first, 2 * (first + length - 1) + 1
        stage = first + length
        mask >>= length


def _barcode(rows: list[tuple[int, float, float]], max_dimension: int) -> Barcode:
    kept = np.array([row for row in rows if row[0] <= max_dimension], dtype=np.float64).reshape(-1, 3)
    return Barcode(kept[:, 0].astype(np.int64), kept[:, 1], kept[:, 2])


def _dionysus() -> Any:
    try:
        import dionysus
    except ImportError as error:
        raise MissingExtraError(
            'the zigzag engine "dionysus" needs the package dionysus, which is not installed; '
            'pip install "topo_callback[engines]", or choose engine="native"'
        ) from error
    return dionysus
