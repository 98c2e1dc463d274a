"""Maxmin landmarks: few points that cover a cloud, for homology that is too dear on all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.rips import Engine, checked_distances, rips_persistence

# beyond about so many points the H2 of the whole cloud costs more than a training run can spare
MOST_POINTS_FOR_H2 = 400


@dataclass(frozen=True)
class Landmarks:
    """Chosen points of a cloud, in the order in which they were chosen.

    Attributes:
        indices: int64 [landmarks], indices of points.
        covering_radius: the greatest distance from a point to its nearest landmark, in the unit of the distances.
            In a metric space the Gromov-Hausdorff distance to the whole cloud is at most this, so each bar of the
            landmarks' barcode is off by at most twice as much (Chazal, de Silva and Oudot, arXiv 1207.3885).
    """

    indices: Int64[np.ndarray, " landmarks"]
    covering_radius: float


@dataclass(frozen=True)
class LandmarkBarcode:
    """The exact barcode of a cloud's landmarks, with what it takes to judge it."""

    barcode: Barcode
    landmarks: Landmarks


def maxmin_landmarks(
    distances: Float[np.ndarray, "points points"], count: int, *, start: int | None = None
) -> Landmarks:
    """Choose `count` points, each as far as possible from those chosen before (de Silva and Carlsson, 2004).

    Deterministic: ties go to the lowest index. Stops early once every point coincides with a landmark.

    Args:
        distances: float [points, points], a valid distance matrix.
        count: how many, from 1 to the number of points.
        start: the first landmark; by default the most central point, the one whose greatest distance is smallest.

    Raises:
        ConfigurationError: `count` or `start` is out of range.
        ValueError: as `rips_persistence`.
    """
    checked = checked_distances(distances)
    points = len(checked)
    if not 1 <= count <= points:
        raise ConfigurationError(f"count is {count}; accepted is 1 to {points}, the number of points")
    if start is None:
        start = int(np.argmin(checked.max(axis=1)))
    if not 0 <= start < points:
        raise ConfigurationError(f"start is {start}; accepted is 0 to {points - 1}")
    indices = [start]
    to_nearest = checked[start].copy()
    while len(indices) < count:
        farthest = int(np.argmax(to_nearest))
        if to_nearest[farthest] == 0:
            break
        indices.append(farthest)
        np.minimum(to_nearest, checked[farthest], out=to_nearest)
    return Landmarks(np.array(indices, dtype=np.int64), float(to_nearest.max()))


def landmark_persistence(
    distances: Float[np.ndarray, "points points"],
    *,
    max_dimension: int = 2,
    count: int = MOST_POINTS_FOR_H2,
    engine: Engine = "auto",
) -> LandmarkBarcode:
    """The Vietoris-Rips barcode of at most `count` maxmin landmarks of a cloud, with their covering radius.

    Clouds of at most `count` points are taken whole, with covering radius 0. Arguments, errors and units as
    `rips_persistence` and `maxmin_landmarks`.
    """
    points = len(distances)
    if points <= count:
        chosen = Landmarks(np.arange(points, dtype=np.int64), 0.0)
        return LandmarkBarcode(rips_persistence(distances, max_dimension=max_dimension, engine=engine), chosen)
    chosen = maxmin_landmarks(distances, count)
    between = np.ascontiguousarray(distances[np.ix_(chosen.indices, chosen.indices)])
    return LandmarkBarcode(rips_persistence(between, max_dimension=max_dimension, engine=engine), chosen)
