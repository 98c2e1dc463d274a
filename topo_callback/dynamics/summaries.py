"""Robust summaries: medians of many rows, and one series for all layers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

MAD = 1.4826  # makes a median absolute deviation a standard deviation of Gaussian values
UPPER = 0.8


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


def row_quantiles(rows: Float64[np.ndarray, "rows values"], share: float) -> Float64[np.ndarray, " rows"]:
    """Quantile of every row, linearly interpolated, without missing values; NaN where there is none."""
    count = np.isfinite(rows).sum(axis=1)
    place = share * np.maximum(count - 1, 0)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    ordered = np.sort(rows, axis=1)  # NaN last
    every = np.arange(len(rows))
    found: np.ndarray = ordered[every, low] + (place - low) * (ordered[every, high] - ordered[every, low])
    return found


def summarise(relative: Float64[np.ndarray, "*runs intervals layers"]) -> Float64[np.ndarray, "2 *runs intervals"]:
    """Mean over layers, and their 80th percentile (linearly interpolated), of values that are comparable over layers.

    The mean shows a burst of the whole depth best, the percentile one of a fifth of the layers or more.
    """
    if np.isnan(relative).any():
        return np.stack([np.nanmean(relative, axis=-1), np.nanquantile(relative, UPPER, axis=-1)])
    place = UPPER * (relative.shape[-1] - 1)
    low = int(place)
    values = np.sort(relative, axis=-1)
    lower, upper = values[..., low], values[..., min(low + 1, relative.shape[-1] - 1)]
    return np.stack([relative.mean(axis=-1), lower + (place - low) * (upper - lower)])
