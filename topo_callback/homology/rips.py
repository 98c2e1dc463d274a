"""Vietoris-Rips persistence over Z/2, of a whole cloud or of its maxmin landmarks: input checked, engine chosen."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int64

from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.jit_kernels import for_kernels
from topo_callback.homology.machine import ThreadTeam, allowed_threads, triangle_shares
from topo_callback.homology.native_rips import (
    FEWEST_POINTS_FOR_THREADS,
    NotADistanceMatrixError,
    batch_persistence,
    native_persistence,
)
from topo_callback.homology.native_rips_kernels import first_bad_entry, is_distance_matrix

Engine = Literal["auto", "native", "gudhi", "ripser", "redzed"]
# beyond about so many points the H2 of the whole cloud costs more than a training run can spare
MOST_POINTS_FOR_H2 = 400


def rips_persistence(
    distances: Float[np.ndarray, "points points"],
    *,
    max_dimension: int = 1,
    threshold: float = math.inf,
    engine: Engine = "auto",
    threads: int | None = None,
) -> Barcode:
    """The barcode of the Vietoris-Rips filtration of a finite metric (or merely symmetric) space, over Z/2.

    A simplex enters at the length of its longest edge. Edges longer than `threshold`, and infinite ones, never enter;
    a class that is alive once all others have entered has death `inf`. The result is exact for the distances given
    and deterministic: the same multiset of bars of positive length from every engine and any number of threads.

    Args:
        distances: float16, float32 or float64 [points, points], symmetric, zero diagonal, any unit; `inf` allowed off
            the diagonal; at least one point. The triangle inequality is not needed.
        max_dimension: the highest homological dimension, 0 or more.
        threshold: the longest edge that enters, in the unit of the distances; 0 or more.
        engine: "native" (this package's own, dimensions 0 and 1), "gudhi", "ripser", "redzed", or "auto": native up
            to dimension 1, gudhi beyond. From dimension 2 on, a cloud of more than about 400 points is a case for
            `landmark_persistence`.
        threads: how many the native engine uses, by default one for each core allowed; the others use one.

    Returns:
        Barcode: dimensions 0 .. max_dimension, float64 births and deaths in the unit of the distances.

    Raises:
        ValueError: the matrix is not square, has no point, or has a wrong entry; the first one is named.
        ConfigurationError: an unknown engine, a negative dimension or threshold, or a dimension the engine lacks.
        MissingExtraError: the engine's package is not installed.
        MemoryError: the native engine would need more than about a gigabyte; says how much, and what to do.

    Source: Koyama, Memoli, Robins and Turner, arXiv 2307.16333 (the native algorithm).
    """
    chosen = _checked_settings(max_dimension, threshold, engine)
    with ThreadTeam(threads or allowed_threads()) as team:
        checked = checked_distances(distances, team)
        return _computed(checked, chosen, max_dimension, rounded_down(threshold, checked.dtype), team)


def rips_persistence_batch(
    distances: Float[np.ndarray, "clouds points points"],
    *,
    max_dimension: int = 1,
    threshold: float = math.inf,
    engine: Engine = "auto",
    threads: int | None = None,
) -> list[Barcode]:
    """`rips_persistence` of each of many clouds of equal size, such as sub-samples: a thread takes a cloud at a time.

    Args:
        distances: float16, float32 or float64 [clouds, points, points], each as in `rips_persistence`.
        max_dimension, threshold, engine: as in `rips_persistence`.
        threads: how many clouds are worked on at once, by default one for each core allowed; ripser.py lets no two run.

    Returns:
        One Barcode for each cloud, in order.

    Raises:
        As `rips_persistence`; the cloud of a wrong entry is named as well.
    """
    if distances.ndim != 3:
        raise ValueError(f"distances have shape {distances.shape}; expected is [clouds, points, points]")
    chosen = _checked_settings(max_dimension, threshold, engine)

    def check(cloud: int, alone: ThreadTeam | None = None) -> Float[np.ndarray, "points points"]:
        return checked_distances(distances[cloud], alone, f"distances[{cloud}]")

    members = min(threads or allowed_threads(), max(1, len(distances)))
    if chosen == "native" and max_dimension == 1 and _is_for_batch(distances):
        try:
            return batch_persistence(distances, threshold=rounded_down(threshold, distances.dtype), threads=members)
        except NotADistanceMatrixError as error:
            check(error.cloud)  # says what is wrong

    def compute(cloud: int) -> Barcode:
        with ThreadTeam(1) as alone:
            checked = check(cloud, alone)
            return _computed(checked, chosen, max_dimension, rounded_down(threshold, checked.dtype), alone)

    if members == 1:
        return [compute(cloud) for cloud in range(len(distances))]
    with ThreadPoolExecutor(members) as pool:
        return list(pool.map(compute, range(len(distances))))


def _is_for_batch(distances: Float[np.ndarray, "clouds points points"]) -> bool:
    """Small clouds in single precision, whose bit patterns are their keys."""
    single, small = distances.dtype == np.float32, 2 <= distances.shape[1] < FEWEST_POINTS_FOR_THREADS
    return len(distances) > 0 and single and small and distances.shape[1] == distances.shape[2]


def _checked_settings(max_dimension: int, threshold: float, engine: str) -> str:
    """The engine to use, once all settings are known to be in range."""
    if engine not in get_args(Engine):
        raise ConfigurationError(f"engine is {engine!r}; accepted are {', '.join(map(repr, get_args(Engine)))}")
    if max_dimension < 0:
        raise ConfigurationError(f"max_dimension is {max_dimension}; accepted is 0 or more")
    if not threshold >= 0:
        raise ConfigurationError(f"threshold is {threshold}; accepted is 0 or more, inf for none")
    if engine == "auto":
        engine = "native" if max_dimension <= 1 else "gudhi"
    return engine


def _computed(
    checked: Float[np.ndarray, "points points"], engine: str, max_dimension: int, threshold: float, team: ThreadTeam
) -> Barcode:
    if engine == "native":
        return native_persistence(checked, max_dimension=max_dimension, threshold=threshold, team=team)
    if engine == "ripser":
        from topo_callback.homology.other_engines import ripser_persistence

        return ripser_persistence(checked, max_dimension=max_dimension, threshold=threshold)
    if engine == "redzed":
        from topo_callback.homology.other_engines import redzed_persistence

        return redzed_persistence(checked, max_dimension=max_dimension, threshold=threshold)
    from topo_callback.homology.other_engines import gudhi_persistence

    return gudhi_persistence(checked, max_dimension=max_dimension, threshold=threshold)


def checked_distances(
    distances: np.ndarray, team: ThreadTeam | None = None, name: str = "distances"
) -> Float[np.ndarray, "points points"]:
    """`distances` in rows without gaps (float16 as float32) once every entry is known to be that of a distance matrix.

    Raises:
        ValueError: names what is wrong and the first offending entry, row by row.
    """
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"{name} has shape {distances.shape}; expected is a square matrix [points, points]")
    if distances.shape[0] == 0:
        raise ValueError(f"{name} has shape (0, 0); expected is at least one point")
    if distances.dtype == np.float16:
        distances = distances.astype(np.float32)
    if distances.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} has dtype {distances.dtype}; expected is float16, float32 or float64")
    distances = for_kernels(distances)
    shares = triangle_shares(len(distances), team.members if team else 1)
    good = [False] * len(shares)

    def check(member: int) -> None:
        good[member] = bool(is_distance_matrix(distances, *shares[member]))

    if team:
        team.run(check)
    else:
        check(0)
    if not all(good):
        raise ValueError(_described_bad_entry(distances, name))
    return distances


def rounded_down(threshold: float, dtype: np.dtype[Any]) -> float:
    """The greatest number of type `dtype` up to `threshold`, so that comparing in that type lets in no longer edge."""
    if threshold >= np.finfo(dtype).max:
        return math.inf
    rounded = dtype.type(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, dtype.type(0)))


def _described_bad_entry(distances: Float[np.ndarray, "points points"], name: str) -> str:
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
    """The exact barcode of a cloud's landmarks, with what it takes to judge it.

    Attributes:
        barcode: of the landmarks alone, in the unit of the distances.
        landmarks: which points they are, and how well they cover the cloud.
    """

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

    Returns:
        The landmarks, at most `count`, with their covering radius.

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

    Clouds of at most `count` points are taken whole, with covering radius 0. Exact for the landmarks and deterministic.

    Args:
        distances: as in `rips_persistence`.
        max_dimension: the highest homological dimension, 0 or more.
        count: how many landmarks at most.
        engine: as in `rips_persistence`; dimension 2 needs another one than "native", and "auto" takes gudhi for it.

    Returns:
        The barcode in the unit of the distances, with the landmarks and their covering radius.

    Raises:
        As `rips_persistence` and `maxmin_landmarks`.

    Source: de Silva and Carlsson, Topological estimation using witness complexes, 2004 (the choice of landmarks).
    """
    points = len(distances)
    if points <= count:
        chosen = Landmarks(np.arange(points, dtype=np.int64), 0.0)
        return LandmarkBarcode(rips_persistence(distances, max_dimension=max_dimension, engine=engine), chosen)
    chosen = maxmin_landmarks(distances, count)
    between = np.ascontiguousarray(distances[np.ix_(chosen.indices, chosen.indices)])
    return LandmarkBarcode(rips_persistence(between, max_dimension=max_dimension, engine=engine), chosen)
