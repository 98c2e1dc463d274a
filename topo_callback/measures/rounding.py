"""Which differences of distances are rounding: one rule for every measure that looks at nearest neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

# A coordinate x in float32 is right to 2^-24 |x| at best, so two points of norm s that a model computes to be equal may
# lie 2^-24 (s + s) = 2^-23 s apart: one unit in the last place of every coordinate. A forward pass rounds more than
# once; four such units, 2^-21 s, are taken for rounding.
POINT_ROUNDING = 2.0**-21
# Where squared distances are differences of products in float32 (devices without float64), they are right to some
# 2^-24 s^2 times a few, hence distances to 2^-10 s or so.
COARSE_ROUNDING = 2.0**-9.5


def rounding_floors(
    distances: Float[np.ndarray, "points points"], norms: Float[np.ndarray, " points"] | None
) -> Float64[np.ndarray, " points"]:
    """The difference of distances of each point that is no more than the rounding of coordinates, 2^-21 of its norm.

    Args:
        distances: square, Euclidean.
        norms: of the points, as recorded; see `Sample.norms`. None in older records: the median distance of the point
            stands in, which is too low a norm for a cloud that is small for its distance to the origin.
    """
    size = np.median(distances, axis=1) if norms is None else norms
    floors: Float64[np.ndarray, " points"] = POINT_ROUNDING * size.astype(np.float64)
    return floors


def log_ratio(
    near: Float64[np.ndarray, " points"], far: Float64[np.ndarray, " points"], floors: Float64[np.ndarray, " points"]
) -> Float64[np.ndarray, " defined"]:
    """log(far / near) of the points that have a ratio.

    Distances that differ by no more than the floor are the same: a point whose near neighbour is no further than it
    is equal to that neighbour and has no ratio, and where far exceeds near by no more than it, the ratio is 1.
    """
    defined = near > floors
    near, far, floors = near[defined], far[defined], floors[defined]
    return np.where(far - near > floors, np.log(far / near), 0.0)
