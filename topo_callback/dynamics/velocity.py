"""Velocity: displacement over what the weights' path predicts, for every layer and over depth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from topo_callback.dynamics.clock import comparable
from topo_callback.dynamics.response import fit_response
from topo_callback.dynamics.series import HEADLINE, Series

_FEWEST = 3


def layer_velocities(series: Series, measure: str = HEADLINE) -> Float64[np.ndarray, "intervals layers"]:
    """Velocity of every layer in every interval: 1 is as predicted, 6 is six times as far.

    Each layer has its own response to the path, fitted on all intervals there are; so velocities of early intervals
    change a little as the run goes on. NaN where the displacement is missing or 0, where the weights hardly moved, and
    in layers with fewer than three intervals.

    Raises:
        KeyError: the run has no such measure.
    """
    velocities: np.ndarray = np.exp(log_layer_velocities(series.log_displacement(measure), series.path))
    return velocities


def depth_velocity(velocities: Float64[np.ndarray, "intervals layers"]) -> Float64[np.ndarray, " intervals"]:
    """Median over layers; NaN where no layer has a velocity."""
    present = np.isfinite(velocities).any(axis=1)
    median = np.full(len(velocities), np.nan)
    median[present] = np.nanmedian(velocities[present], axis=1)
    return median


def log_layer_velocities(
    log_displacement: Float64[np.ndarray, "intervals layers"], path: Float64[np.ndarray, " intervals"]
) -> Float64[np.ndarray, "intervals layers"]:
    """The natural logarithm of the velocities, from arrays."""
    velocity = np.full_like(log_displacement, np.nan)
    usable = comparable(path)
    for layer in range(log_displacement.shape[1]):
        kept = np.flatnonzero(usable & np.isfinite(log_displacement[:, layer]))
        if len(kept) >= _FEWEST:
            values, log_path = log_displacement[kept, layer], np.log(path[kept])
            velocity[kept, layer] = values - fit_response(values[None], log_path).predict(log_path)[0]
    return velocity
