"""Which items are chosen: layers, steps and pictures evenly spaced, points of sub-samples drawn; without torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from topo_callback.errors import ConfigurationError


def evenly_spaced(available: int, count: int) -> list[int]:
    """`count` different indices of 0 .. available-1, evenly spaced with both ends; all of them if count is larger.

    One index alone is the last.
    """
    if count >= available:
        return list(range(available))
    if count == 1:
        return [available - 1]
    # integer rounding half up: the same on every platform
    return [(2 * i * (available - 1) + (count - 1)) // (2 * (count - 1)) for i in range(count)]


def subsample_indices(points: int, size: int, count: int, seed: int) -> Int[np.ndarray, "{count} {size}"]:
    """Draw `count` sub-samples of `size` different points each; the same for the same arguments, always.

    Each sub-sample is the `size` points with the smallest of `points` raw 64-bit draws of PCG64, whose stream numpy
    guarantees across versions (that of `Generator.choice` it does not). Own generator: no global state is read or
    moved. A larger `count` only appends sub-samples.

    Returns:
        int64, each row increasing, uniform over all subsets.

    Raises:
        ConfigurationError: size outside 1..points, or a negative count.
    """
    if not 1 <= size <= points:
        raise ConfigurationError(f"subsample size {size}; accepted: 1 to {points}, the number of points")
    if count < 0:
        raise ConfigurationError(f"{count} sub-samples; accepted: at least 0")
    bits = np.random.PCG64(seed)
    indices = np.empty((count, size), dtype=np.int64)
    for row in indices:
        row[:] = np.sort(np.argsort(bits.random_raw(points), kind="stable")[:size])
    return indices


def median_distance(condensed: Float[np.ndarray, " pairs"]) -> float:
    """Median of the distances, averaged in float64 when their number is even; NaN when one of them is NaN.

    Raises:
        ConfigurationError: there are no distances.
    """
    if condensed.size == 0:
        raise ConfigurationError("no distances: a median needs at least two points")
    lower = (condensed.size - 1) // 2
    upper = condensed.size // 2
    if np.isnan(condensed).any():
        return float("nan")
    parts = np.partition(condensed, (lower, upper))
    return (float(parts[lower]) + float(parts[upper])) / 2
