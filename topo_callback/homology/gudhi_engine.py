"""Vietoris-Rips persistence by gudhi's fork of Ripser."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.homology.barcode import Barcode

# gudhi codes a simplex in 128 bits, one of which is kept for the coefficient
MOST_SIMPLICES = 1 << 127


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
