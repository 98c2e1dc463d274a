"""Vietoris-Rips persistence by ripser.py."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.homology.barcode import Barcode

# integers up to here are exact in the single precision in which ripser.py computes
MOST_RANKS = 1 << 24


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
