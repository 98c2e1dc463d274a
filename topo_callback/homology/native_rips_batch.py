"""Many small clouds on several threads: each takes some clouds at a time through the kernels in one go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.native_rips import bucket_edges, keyed
from topo_callback.homology.native_rips_kernels import bars_of_clouds

# shares for each thread: a thread that other work holds up leaves the rest to the others
SHARES = 4


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
    distances = np.ascontiguousarray(distances)
    clouds, points = distances.shape[:2]
    limit = keyed(distances[0]).limit(threshold)
    size = bucket_edges(points, 1)
    ends = np.unique(np.linspace(0, clouds, min(clouds, threads * SHARES) + 1).astype(int)).tolist()

    def compute(share: tuple[int, int]) -> list[Barcode]:
        first, last = share
        part = distances[first:last]
        wrong, starts, components, births, deaths = bars_of_clouds(part, part.view(np.uint32), limit, size)
        if wrong >= 0:
            raise NotADistanceMatrixError(first + int(wrong))
        births, deaths = births.astype(np.float64), deaths.astype(np.float64)
        found = []
        for start, end, merged in zip(starts[:-1].tolist(), starts[1:].tolist(), components.tolist(), strict=True):
            dimension = np.zeros(end - start, np.int64)
            dimension[merged:] = 1
            found.append(Barcode.ordered(dimension, births[start:end], deaths[start:end]))
        return found

    shares = list(pairwise(ends))
    if threads == 1:
        return [barcode for share in shares for barcode in compute(share)]
    with ThreadPoolExecutor(threads) as pool:
        return [barcode for found in pool.map(compute, shares) for barcode in found]
