"""Vietoris-Rips persistence of a distance matrix over Z/2: checks the input, chooses the engine."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.validation_kernels import first_bad_entry, is_distance_matrix

Engine = Literal["auto", "native", "gudhi", "ripser"]


def rips_persistence(
    distances: Float[np.ndarray, "points points"],
    *,
    max_dimension: int = 1,
    threshold: float = math.inf,
    engine: Engine = "auto",
) -> Barcode:
    """The barcode of the Vietoris-Rips filtration of a finite metric (or merely symmetric) space, over Z/2.

    A simplex enters at the length of its longest edge. Edges longer than `threshold`, and infinite ones, never enter;
    a class that is alive once all others have entered has death `inf`. The result is exact for the distances given
    and does not depend on the engine: all of them compute the same multiset of bars of positive length.

    Args:
        distances: float16, float32 or float64 [points, points], symmetric, zero diagonal, any unit; `inf` allowed off
            the diagonal; at least one point. The triangle inequality is not needed.
        max_dimension: the highest homological dimension, 0 or more.
        threshold: the longest edge that enters, in the unit of the distances; 0 or more.
        engine: "native" (this package's own, dimensions 0 and 1), "gudhi", "ripser", or "auto": gudhi.

    Returns:
        Barcode: dimensions 0 .. max_dimension, float64 births and deaths in the unit of the distances.

    Raises:
        ValueError: the matrix is not square, has no point, or has a wrong entry; the first one is named.
        ConfigurationError: an unknown engine, a negative dimension or threshold.
        MissingExtraError: the engine's package is not installed.
    """
    if engine not in get_args(Engine):
        raise ConfigurationError(f"engine is {engine!r}; accepted are {', '.join(map(repr, get_args(Engine)))}")
    if max_dimension < 0:
        raise ConfigurationError(f"max_dimension is {max_dimension}; accepted is 0 or more")
    if not threshold >= 0:
        raise ConfigurationError(f"threshold is {threshold}; accepted is 0 or more, inf for none")
    checked = checked_distances(distances)
    threshold = _rounded_down(threshold, checked.dtype)
    if engine == "ripser":
        from topo_callback.homology.ripser_engine import ripser_persistence

        return ripser_persistence(checked, max_dimension=max_dimension, threshold=threshold)
    from topo_callback.homology.gudhi_engine import gudhi_persistence

    return gudhi_persistence(checked, max_dimension=max_dimension, threshold=threshold)


def checked_distances(distances: np.ndarray) -> Float[np.ndarray, "points points"]:
    """`distances` itself (float16 as float32) once every entry is known to be that of a distance matrix.

    Raises:
        ValueError: names what is wrong and the first offending entry, row by row.
    """
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances have shape {distances.shape}; expected is a square matrix [points, points]")
    if distances.shape[0] == 0:
        raise ValueError("distances have shape (0, 0); expected is at least one point")
    if distances.dtype == np.float16:
        distances = distances.astype(np.float32)
    if distances.dtype not in (np.float32, np.float64):
        raise ValueError(f"distances have dtype {distances.dtype}; expected is float16, float32 or float64")
    if not is_distance_matrix(distances, 0, len(distances)):
        raise ValueError(described_bad_entry(distances))
    return distances


def _rounded_down(threshold: float, dtype: np.dtype[Any]) -> float:
    """The greatest number of type `dtype` up to `threshold`, so that comparing in that type lets in no longer edge."""
    if threshold >= np.finfo(dtype).max:
        return math.inf
    rounded = dtype.type(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, dtype.type(0)))


def described_bad_entry(distances: Float[np.ndarray, "points points"], name: str = "distances") -> str:
    """What is wrong with the first bad entry of a matrix that has one."""
    row, column = first_bad_entry(distances)
    value, mirrored = distances[row, column], distances[column, row]
    entry = f"{name}[{row}, {column}] is {value}"
    if np.isnan(value):
        return f"{entry}; expected is a number. A model that overflowed gives NaN for a whole point"
    if value < 0:
        return f"{entry}; expected is 0 or more"
    if row == column:
        return f"{entry}; expected is a zero diagonal"
    return f"{entry} but {name}[{column}, {row}] is {mirrored}; expected is a symmetric matrix"
