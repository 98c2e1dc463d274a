"""H0 and H1 of parts of one cloud by index, by this package's own engine; many large ones share one look at it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int64

from topo_callback.homology.annotation_kernels import class_deaths
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.native_rips import SHARES, barcodes_of_bars, bit_patterns, most_scans
from topo_callback.homology.native_rips_kernels import add_bars, cloud_graph, graph_classes
from topo_callback.homology.rips_graph_kernels import MOST_POINTS
from topo_callback.homology.rips_part_kernels import MOST_PARTS, edges_of_parts, part_graph, part_keys

# parts with so many times as many pairs as the cloud share one look at it
SHARED_FROM = 3


def parts_persistence(
    distances: Float[np.ndarray, "points points"],
    parts: Sequence[Int64[np.ndarray, " _"]],
    *,
    threshold: float,
    threads: int,
) -> list[Barcode]:
    """The barcodes in dimensions 0 and 1 of parts of at least two points of a matrix that has been checked.

    Args:
        distances: float32 or float64 [points, points].
        parts: of each its points, ascending.
        threshold: as in `native_persistence`.
        threads: how many parts are worked on at once.
    """
    source = bit_patterns(distances)
    limit = source.limit(threshold)
    pairs = sum(len(part) ** 2 for part in parts)
    shared = pairs >= SHARED_FROM * len(distances) ** 2 and len(distances) <= MOST_POINTS

    def compute(share: tuple[int, int]) -> list[Barcode]:
        here = parts[share[0] : share[1]]
        sizes = [len(part) for part in here]
        starts, components = np.zeros(len(here) + 1, np.int64), np.zeros(len(here), np.int64)
        births, deaths = np.empty(2 * sum(sizes), source.keys.dtype), np.empty(2 * sum(sizes), source.keys.dtype)
        for place, part in enumerate(here):
            cloud = part_keys(source.keys, part)
            if shared:
                cut, graph = part_graph(cloud, len(distances), part, share[0] + place - first, *edges, limit)
            else:
                cut, graph = cloud_graph(cloud, limit)
            merged, born, closes = graph_classes(cloud, graph)
            ended = class_deaths(cloud, cloud, False, graph, closes, cloud.dtype.type(cut), most_scans(sizes[place]))
            found = merged, born, *ended
            births, deaths = add_bars(found, sizes[place], place, starts, components, births, deaths)
        bars = starts, components, births[: starts[-1]], deaths[: starts[-1]]
        return barcodes_of_bars(bars, lambda place: distances[np.ix_(here[place], here[place])], threshold)

    found: list[Barcode] = []
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(parts), MOST_PARTS):
            last = min(first + MOST_PARTS, len(parts))
            if shared:
                bounds = np.append(0, np.cumsum([len(part) for part in parts[first:last]]))
                edges = edges_of_parts(source.keys, np.concatenate(parts[first:last]), bounds, limit)
            if threads == 1:
                found += compute((first, last))
                continue
            ends = np.linspace(first, last, min(last - first, threads * SHARES) + 1).astype(int).tolist()
            found += [barcode for share in pool.map(compute, pairwise(ends)) for barcode in share]
    return found
