"""H0 and H1 of Vietoris-Rips filtrations by this package's own engine, exact over Z/2.

An edge with an empty lune belongs to the relative neighbourhood graph; it merges two components or gives birth to a
class. The edges of that graph are all that gives birth (Koyama, Memoli, Robins and Turner, arXiv 2307.16333). What
kills is looked for next to the few edges that carry a live class (`annotation_kernels`); where these are many, as on a
noisy circle, all edges are swept in their order instead, and a small matrix of relations is reduced
(`native_rips_threads`). Both take one total order of the edges, by (length, indices), which settles every tie.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt, UInt32, UInt64

from topo_callback.errors import ConfigurationError
from topo_callback.homology.annotation_kernels import class_deaths
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.jit_kernels import for_kernels
from topo_callback.homology.machine import ThreadTeam
from topo_callback.homology.native_rips_kernels import bars_of_clouds, cloud_graph
from topo_callback.homology.native_rips_threads import (
    WITHOUT_SIGN,
    annotated_bars,
    greatest_key_that_matters,
    threaded_bars,
)
from topo_callback.homology.rips_graph_kernels import MOST_POINTS, count_edges, packed_triangle, rank_keys, tree_keys

GREATEST_FINITE_KEY = 0x7F7FFFFF
GREATEST_FINITE_LONG_KEY = 0x7FEFFFFFFFFFFFFF
# below so many points, handing work to another thread costs more than it saves
FEWEST_POINTS_FOR_THREADS = 300
# about how many edges are swept before the next look at whether all classes are dead, in a small cloud
SMALL_BUCKET_EDGES = 2048
MOST_BYTES = 1_000_000_000
# so many edges have 10,000 points; without a copy in central order each of them takes longer
MOST_EDGES_WITHOUT_COPY = 50_000_000
FEWEST_SCANS = 10_000
# pairs that are looked at to name a threshold
SAMPLED_PAIRS = 1 << 20
# shares for each thread: a thread that other work holds up leaves the rest to the others
SHARES = 4


@dataclass(frozen=True)
class KeyedDistances:
    """Distances as integers of the same order, which is all that the kernels look at.

    Attributes:
        keys: uint32 [points, points], the bit patterns of single-precision distances or ranks; or uint64, those of
            double precision.
        values: float64 [keys], what each rank stands for; None for bit patterns.
    """

    keys: UInt32[np.ndarray, "points points"] | UInt64[np.ndarray, "points points"]
    values: Float64[np.ndarray, " ranks"] | None

    def limit(self, threshold: float) -> Any:
        """The greatest key of a finite distance up to `threshold`: np.uint32, or np.uint64 for keys of that type."""
        if self.values is not None:
            highest = np.nextafter(threshold, -np.inf) if np.isinf(threshold) else threshold
            return np.uint32(np.searchsorted(self.values, highest, side="right") - 1)
        if self.keys.dtype == np.uint64:
            return np.uint64(GREATEST_FINITE_LONG_KEY if np.isinf(threshold) else np.float64(threshold).view(np.uint64))
        return np.uint32(GREATEST_FINITE_KEY if np.isinf(threshold) else np.float32(threshold).view(np.uint32))

    def decoded(self, keys: UInt[np.ndarray, " bars"]) -> Float64[np.ndarray, " bars"]:
        """The distances that these keys stand for."""
        if self.values is not None:
            distances: Float64[np.ndarray, " bars"] = self.values[keys]
            return distances
        return lengths_of(keys)


def lengths_of(patterns: UInt[np.ndarray, " bars"]) -> Float64[np.ndarray, " bars"]:
    """The numbers that have these bit patterns, of single precision or, in 64 bits, of double precision."""
    precision: Any = np.float64 if patterns.dtype == np.uint64 else np.float32
    lengths: Float64[np.ndarray, " bars"] = patterns.view(precision).astype(np.float64)
    return lengths


def keyed(distances: Float[np.ndarray, "points points"]) -> KeyedDistances:
    """Distances as keys of 32 bits: the bit patterns of float32, which are ordered as numbers are, or else ranks."""
    single = _in_single_precision(distances)
    if single is None:
        values = packed_triangle(for_kernels(distances))
        return KeyedDistances(*rank_keys(values, np.argsort(values, kind="stable"), len(distances)))
    return KeyedDistances(single.view(np.uint32), None)


def bit_patterns(distances: Float[np.ndarray, "points points"]) -> KeyedDistances:
    """Distances as keys: their bit patterns, in single precision where that holds all of them."""
    single = _in_single_precision(distances)
    keys = for_kernels(distances).view(np.uint64) if single is None else single.view(np.uint32)
    return KeyedDistances(without_sign(keys), None)


def _in_single_precision(distances: Float[np.ndarray, "points points"]) -> Float32[np.ndarray, "points points"] | None:
    distances = for_kernels(distances)
    if distances.dtype == np.float32:
        return distances
    with np.errstate(over="ignore"):
        single = distances.astype(np.float32)
    return single if np.array_equal(single, distances) else None


def without_sign(keys: UInt[np.ndarray, "*shape"]) -> UInt[np.ndarray, "*shape"]:
    """The bit patterns of lengths; -0 has one above all others, which is rare and worth a copy."""
    greatest = keys.dtype.type(WITHOUT_SIGN if keys.dtype == np.uint32 else 0x7FFFFFFFFFFFFFFF)
    return keys & greatest if keys.max() > greatest else keys


def most_scans(points: int) -> int:
    """After looking so often for the next triangle of an edge, sweeping all edges takes no longer: about 30 ns each.

    At least so often that a small cloud is never swept, since the sweep may have to be compiled.
    """
    return max(FEWEST_SCANS, int(points * (points - 1) / 2 * 30 / (60 + 0.15 * points)))


def native_persistence(
    distances: Float[np.ndarray, "points points"], *, max_dimension: int, threshold: float, team: ThreadTeam
) -> Barcode:
    """The Vietoris-Rips barcode in dimensions 0 and 1 of a matrix that has been checked.

    The same whatever the number of threads. The global interpreter lock is released nearly all the time. Needs little
    memory on top of the matrix, unless so many edges carry a class that all are swept: then up to 7 bytes for each
    entry of a float32 matrix, and about three times as much for float64 that single precision cannot hold.

    Args:
        distances: float32 or float64 [points, points], a valid distance matrix, `inf` allowed off the diagonal.
        max_dimension: 0 or 1.
        threshold: the longest edge that enters, as a number of the same precision.
        team: the threads to use.

    Raises:
        ConfigurationError: another dimension.
        MemoryError: all edges have to be swept, need more than about a gigabyte, and more than 50,000,000 of them
            matter; or there are more than 65,536 points.
    """
    if max_dimension > 1:
        raise ConfigurationError(
            f"max_dimension is {max_dimension} with engine 'native'; accepted is 0 or 1, use 'gudhi' beyond"
        )
    points = len(distances)
    if points == 1:
        return Barcode(np.zeros(1, np.int64), np.zeros(1), np.full(1, np.inf))
    source = bit_patterns(distances)
    limit = source.limit(threshold)
    if max_dimension == 0:
        deaths = tree_keys(source.keys, limit)
        none = np.empty(0, deaths.dtype)
        return barcode_of_bars(source, points, deaths, none, none, np.empty(0, np.bool_))
    bars = None
    if points <= MOST_POINTS:
        alone = points < FEWEST_POINTS_FOR_THREADS or team.members == 1
        bars = annotated_bars(source.keys, limit, most_scans(points), None if alone else team)
    if bars is None:
        source = keyed(distances)
        limit = source.limit(threshold)
        renumber = room_for_copy(source, limit, team)
        bars = threaded_bars(source.keys, limit, bucket_edges(points, team.members), team, renumber=renumber)
    return barcode_of_bars(source, points, *bars)


def difference_lengths(
    own: Float[np.ndarray, "points points"], smaller: Float[np.ndarray, "points points"]
) -> Float64[np.ndarray, " bars"] | None:
    """The lengths of the H1 bars of the Rips filtration of `smaller`, over which that of `own` is filled by a cone.

    The cone's point is there from 0 on, and with it the edges to all others; it and an edge make a triangle from the
    length of the edge in `own` on. All bars end.

    Args:
        own, smaller: float32 or float64, one type, valid distance matrices without `inf`; `smaller` nowhere greater.

    Returns:
        The lengths, those of 0 among them; None where so many edges carry a class that annotations give up.
    """
    if not 2 <= len(own) <= MOST_POINTS:
        return np.empty(0) if len(own) < 2 else None
    unsigned = np.uint32 if own.dtype == np.float32 else np.uint64
    keys = [without_sign(for_kernels(distances).view(unsigned)) for distances in (own, smaller)]
    cones, edges = keys
    cut = cones.max()
    _, graph = cloud_graph(edges, cut)
    places = graph >> 16, graph & 0xFFFF
    # the point of the cone joins all components at once, so every edge closes a cycle, some of which are filled at once
    births = edges[places]
    closes = cones[places] > births
    deaths, _, finished = class_deaths(edges, cones, True, graph, closes, cut, most_scans(len(own)))
    if not finished:
        return None
    lengths: Float64[np.ndarray, " bars"] = lengths_of(deaths) - lengths_of(births[closes])
    return lengths


def bucket_edges(points: int, members: int) -> int:
    """How many edges make one bucket: about 32 groups of one bucket for each thread, but no tiny ones."""
    return max(SMALL_BUCKET_EDGES, points * (points - 1) // 2 // (32 * members))


def barcode_of_bars(
    source: KeyedDistances,
    points: int,
    deaths: UInt[np.ndarray, " components"],
    births: UInt[np.ndarray, " classes"],
    class_deaths: UInt[np.ndarray, " classes"],
    dies: np.ndarray,
) -> Barcode:
    """The barcode of what `cloud_bars` gives."""
    components = np.concatenate([source.decoded(deaths), np.full(points - deaths.size, np.inf)])
    loops = np.where(dies, source.decoded(class_deaths), np.inf)
    return Barcode(
        np.repeat(np.array([0, 1]), [points, births.size]),
        np.concatenate([np.zeros(points), source.decoded(births)]),
        np.concatenate([components, loops]),
    )


def room_for_copy(source: KeyedDistances, limit: np.uint32, team: ThreadTeam) -> bool:
    """Whether there is room for a copy of the keys in central order; without one, only few edges are accepted.

    Raises:
        MemoryError: not even without; says what is needed and which threshold would do.
    """
    points = len(source.keys)
    pairs = points * (points - 1) // 2
    copy, graph = 4 * points**2, team.members * points**2 // 8
    if points <= MOST_POINTS and copy + graph + 4 * pairs <= MOST_BYTES:
        return True
    cut = greatest_key_that_matters(source.keys, limit, team)
    edges = int(count_edges(source.keys, cut, np.uint32(0), 31, 0, points).sum())
    if points <= MOST_POINTS and copy + graph + 4 * edges <= MOST_BYTES:
        return True
    fewest = min(MOST_EDGES_WITHOUT_COPY, (MOST_BYTES - graph) // 4)
    if points <= MOST_POINTS and edges <= fewest:
        return False
    advice = "Take maxmin landmarks (landmark_persistence) or a smaller threshold"
    if points <= MOST_POINTS and fewest > 0:
        advice += f": about {_threshold_for(source, fewest / pairs):.4g} would do"
    raise MemoryError(
        f"{points} points with {edges} edges up to the threshold would need {(copy + graph + 4 * edges) / 1e9:.1f} GB "
        f"besides the distances; accepted are {MOST_BYTES / 1e9:.0f} GB or {max(fewest, 0)} edges, and {MOST_POINTS} "
        f"points. {advice}"
    )


def _threshold_for(source: KeyedDistances, share: float) -> float:
    """About the distance up to which this share of the pairs lies, with a tenth to spare; from evenly spread rows."""
    points = len(source.keys)
    rows = np.linspace(0, points - 1, max(1, min(points, SAMPLED_PAIRS // points))).astype(int)
    sample = np.sort(source.keys[rows], axis=None)[rows.size :]  # without the diagonal
    place = int(0.9 * share * sample.size)
    return float(source.decoded(sample[place : place + 1])[0])


class NotADistanceMatrixError(Exception):
    """A cloud has a wrong entry; `cloud` is its index."""

    def __init__(self, cloud: int) -> None:
        super().__init__(cloud)
        self.cloud = cloud


def batch_persistence(
    distances: Float32[np.ndarray, "clouds points points"], *, threshold: float, threads: int
) -> list[Barcode]:
    """The barcodes in dimensions 0 and 1 of clouds of at least two points, checked on the way.

    The bars of `native_persistence`. The global interpreter lock is held only to make the results.

    Raises:
        NotADistanceMatrixError: names the first cloud with a wrong entry.
    """
    distances = for_kernels(distances)
    clouds, points = distances.shape[:2]
    limit = keyed(distances[0]).limit(threshold)
    scans = most_scans(points)
    ends = np.unique(np.linspace(0, clouds, min(clouds, threads * SHARES) + 1).astype(int)).tolist()

    def compute(share: tuple[int, int]) -> list[Barcode]:
        first, last = share
        part = distances[first:last]
        keys = without_sign(part.view(np.uint32))
        wrong, *rest = bars_of_clouds(part, keys, limit, scans)
        if wrong >= 0:
            raise NotADistanceMatrixError(first + int(wrong))
        return barcodes_of_bars(tuple(rest), lambda place: part[place], threshold)

    shares = list(pairwise(ends))
    if threads == 1:
        return [barcode for share in shares for barcode in compute(share)]
    with ThreadPoolExecutor(threads) as pool:
        return [barcode for found in pool.map(compute, shares) for barcode in found]


def barcodes_of_bars(
    bars: tuple[Any, ...],
    cloud: Callable[[int], Float[np.ndarray, "points points"]],
    threshold: float,
) -> list[Barcode]:
    """The barcodes of what `bars_of_clouds` gives; `cloud` gives the distances of one that was given up."""
    starts, components, births, deaths = bars
    born, died = lengths_of(births), lengths_of(deaths)
    died[deaths == np.iinfo(deaths.dtype).max] = np.inf
    found = []
    for place, merged in enumerate(components.tolist()):
        if merged < 0:
            with ThreadTeam(1) as alone:
                found.append(native_persistence(cloud(place), max_dimension=1, threshold=threshold, team=alone))
            continue
        start, end = int(starts[place]), int(starts[place + 1])
        dimension = np.zeros(end - start, np.int64)
        dimension[merged:] = 1
        found.append(Barcode.ordered(dimension, born[start:end], died[start:end]))
    return found
