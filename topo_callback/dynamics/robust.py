"""Medians of many rows at once; several times faster than `numpy.median` for rows of some ten values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

MAD = 1.4826  # makes a median absolute deviation a standard deviation of Gaussian values


def row_medians(rows: Float64[np.ndarray, "*rows values"]) -> Float64[np.ndarray, "*rows 1"]:
    """Median of every row along the last axis, without missing values; the axis is kept with length 1."""
    middle = rows.shape[-1] // 2
    values: np.ndarray = np.sort(rows, axis=-1)
    if rows.shape[-1] % 2:
        return values[..., middle : middle + 1]
    between: np.ndarray = (values[..., middle - 1 : middle] + values[..., middle : middle + 1]) / 2
    return between


def absolute_deviations(rows: Float64[np.ndarray, "rows values"]) -> Float64[np.ndarray, " rows"]:
    """Mean absolute deviation of every row from its median."""
    count = rows.shape[1]
    values = np.sort(rows, axis=1)
    upper, lower = values[:, count - count // 2 :], values[:, : count // 2]
    deviations: np.ndarray = (upper.sum(axis=1) - lower.sum(axis=1)) / count
    return deviations
