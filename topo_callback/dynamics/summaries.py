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


def depth_summaries(
    log_displacement: Float64[np.ndarray, "runs intervals layers"],
) -> Float64[np.ndarray, "2 runs intervals"]:
    """Both summaries of log displacement relative to the layer's own median in the run.

    Missing values are left out; every interval must have one layer, and every layer one interval, with a value.
    """
    if np.isnan(log_displacement).any():
        return summarise(log_displacement - np.nanmedian(log_displacement, axis=1, keepdims=True))
    return summarise(log_displacement - row_medians(log_displacement.swapaxes(1, 2)).swapaxes(1, 2))


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
