"""Barcodes by other packages, all extras: gudhi, ripser.py and RedZeD for Vietoris-Rips, dionysus for zigzags.

They are asked for by name, gudhi also for bars of dimension 2, which the native engine lacks. For dionysus the cliques
are found here in plain Python, sharing no code with the native engine, so that the two can be compared.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.stage_graphs import StageGraphs

# gudhi codes a simplex in 128 bits, one of which is kept for the coefficient
MOST_SIMPLICES = 1 << 127
# integers up to here are exact in the single precision in which ripser.py computes
MOST_RANKS = 1 << 24
Clique = tuple[int, ...]


def gudhi_persistence(
    distances: Float[np.ndarray, "points points"], *, max_dimension: int, threshold: float
) -> Barcode:
    """The Vietoris-Rips barcode over Z/2 (gudhi's own default is Z/11) of a matrix that has been checked.

    From dimension 2 on, dominated edges are collapsed first (Glisse and Pritam, arXiv 2203.07022), which keeps
    the barcode. The compiled functions below `gudhi.sklearn.RipsPersistence` are called, since that class itself needs
    scikit-learn. gudhi releases the global interpreter lock.

    Args:
        distances: float32 or float64 [points, points], a valid distance matrix, `inf` allowed off the diagonal.
        max_dimension: the highest dimension of the bars.
        threshold: the longest edge that enters.

    Raises:
        MissingExtraError: gudhi is not installed (there is no wheel for Linux aarch64).
        ConfigurationError: simplices of this dimension on so many points have no 128-bit code.
    """
    try:
        from gudhi._ripser_ext import _full, _sparse
        from gudhi.flag_filtration.edge_collapse import reduce_graph
        from scipy.sparse import coo_matrix
    except ImportError as error:
        raise MissingExtraError(
            'engine "gudhi" needs the package gudhi (3.11 or later); pip install "topo_callback[engines]", '
            'or use engine="native" for dimensions 0 and 1'
        ) from error
    points = len(distances)
    # the dimensions above points - 2 are empty, and gudhi's numbering of simplices ends before them
    computed = min(max_dimension, max(0, points - 3))
    if math.comb(points, min(points // 2, computed + 2)) >= MOST_SIMPLICES:
        raise ConfigurationError(
            f"max_dimension is {max_dimension} on {points} points; gudhi cannot number so many simplices, take fewer"
        )
    # from the cone radius on some point is joined to all others and nothing changes any more
    cone_radius = float(distances.max(axis=1).min())
    if computed <= 1 and cone_radius <= threshold and math.isfinite(cone_radius):
        diagrams = _full(distances, max_dimension=computed, max_edge_length=cone_radius, homology_coeff_field=2)
        return Barcode.from_diagrams(diagrams[: max_dimension + 1])
    row, column = np.triu_indices(points, 1)
    length = distances[row, column]
    entering = (length <= min(threshold, cone_radius)) & np.isfinite(length)
    if not entering.any():
        return Barcode(np.zeros(points, np.int64), np.zeros(points), np.full(points, np.inf))
    graph = coo_matrix(
        (length[entering], (row[entering].astype(np.int32), column[entering].astype(np.int32))), shape=(points, points)
    )
    if computed > 1:
        graph = reduce_graph(graph)
    diagrams = _sparse(
        graph.row,
        graph.col,
        graph.data,
        points,
        max_dimension=computed,
        max_edge_length=float(graph.data.max()),
        homology_coeff_field=2,
    )
    return Barcode.from_diagrams(diagrams[: max_dimension + 1])


def ripser_persistence(
    distances: Float[np.ndarray, "points points"], *, max_dimension: int, threshold: float
) -> Barcode:
    """The Vietoris-Rips barcode over Z/2 of a matrix that has been checked, by ripser.py.

    ripser.py computes in single precision. A barcode depends on the order of the distances only, so it is given their
    ranks instead, and its bars are translated back: exact for float64 as well. It holds the global interpreter lock
    for the whole call.

    Args:
        distances: float32 or float64 [points, points], a valid distance matrix, `inf` allowed off the diagonal.
        max_dimension: the highest dimension of the bars.
        threshold: the longest edge that enters.

    Raises:
        MissingExtraError: ripser is not installed.
        ConfigurationError: more than 2**24 different distances, whose ranks single precision cannot tell apart.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's notices about its own future
            from ripser import ripser
    except ImportError as error:
        raise MissingExtraError(
            'engine "ripser" needs the package ripser; pip install "topo_callback[engines]"'
        ) from error
    points = len(distances)
    entering = np.isfinite(distances) & (distances <= threshold)
    values, ranks = np.unique(distances, return_inverse=True)
    if values.size >= MOST_RANKS:
        raise ConfigurationError(
            f"engine is 'ripser' and there are {values.size} different distances; it can tell {MOST_RANKS} apart, "
            "use engine='gudhi' or 'native'"
        )
    # rank 0 is the diagonal's; an entry that does not enter is infinite, which ripser.py leaves out
    order = np.where(entering, ranks.reshape(points, points), np.inf).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the shape of its input
        diagrams = ripser(order, maxdim=max_dimension, distance_matrix=True, coeff=2)["dgms"]
    lookup = np.append(values.astype(np.float64), np.inf)
    return Barcode.from_diagrams(
        lookup[np.where(np.isfinite(diagram), diagram, values.size).astype(np.int64)] for diagram in diagrams
    )


def redzed_persistence(
    distances: Float[np.ndarray, "points points"], *, max_dimension: int, threshold: float
) -> Barcode:
    """The Vietoris-Rips barcode over Z/2 of a matrix that has been checked, by RedZeD (arXiv 2606.06310).

    RedZeD computes in single precision and refuses infinite entries, so it is given ranks, as ripser.py is; what does
    not enter has a rank beyond its threshold. It needs no more than NumPy and releases the global interpreter lock.

    Args:
        distances: float32 or float64 [points, points], a valid distance matrix, `inf` allowed off the diagonal.
        max_dimension: the highest dimension of the bars.
        threshold: the longest edge that enters.

    Raises:
        MissingExtraError: redzed-tda is not installed.
        ConfigurationError: more than 2**24 different distances, whose ranks single precision cannot tell apart.
    """
    try:
        from redzed_tda import rips
    except ImportError as error:
        raise MissingExtraError(
            'engine "redzed" needs the package redzed-tda; pip install "topo_callback[engines]"'
        ) from error
    points = len(distances)
    values, ranks = np.unique(np.abs(distances), return_inverse=True)  # -0 is 0
    if values.size >= MOST_RANKS:
        raise ConfigurationError(
            f"engine is 'redzed' and there are {values.size} different distances; it can tell {MOST_RANKS} apart, "
            "use engine='gudhi' or 'native'"
        )
    last = int(np.flatnonzero(np.isfinite(values) & (values <= threshold))[-1])
    diagrams = rips(ranks.reshape(points, points), maxdim=max_dimension, threshold=float(last))
    lookup = np.append(values.astype(np.float64), np.inf)
    return Barcode.from_diagrams(
        lookup[np.where(np.isfinite(diagram), diagram, values.size).astype(np.int64)] for diagram in diagrams
    )


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
