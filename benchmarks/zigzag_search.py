"""The neighbour search beside scikit-learn's, and the whole way from clouds to a barcode beside the published one."""

from __future__ import annotations

import os

import numpy as np
import torch
from zigzag_inputs import best_time, drifting_clouds
from zigzag_peers import limited, published_route, verdict

from topo_callback.homology import cloud_neighbours, zigzag_persistence
from topo_callback.homology.machine import allowed_threads
from topo_callback.pruning.scores import zigzag_of_clouds

POINTS = (256, 1000, 2000, 5000, 10_000, 20_000)
WIDTHS = (3, 8, 16, 64, 384, 1024)
MOST_ENTRIES = 8 * 10**6  # of a cloud
K = 5


def route_row(clouds, points, width, limit, max_dimension=1, drift=0.02):
    """The product's way, as `topo-callback prune` goes it, against the published route; from the same clouds.

    Pruning asks for H1; higher dimensions, as published with cliques of 5 vertices, from the same neighbours.
    """
    arrays = drifting_clouds(points, width, clouds, drift=drift)
    tensors = torch.from_numpy(np.stack(arrays))
    zigzag_of_clouds(tensors[:2, :100], K)  # compiled, or read from the cache
    if max_dimension == 1:
        seconds, found = best_time(lambda: zigzag_of_clouds(tensors, K))
    else:
        zigzag_persistence(np.array([[[1], [2], [0]]]), max_dimension=max_dimension)
        seconds, found = best_time(
            lambda: zigzag_persistence(
                np.stack([cloud_neighbours(cloud, K) for cloud in arrays]), max_dimension=max_dimension
            )
        )
    search, _ = best_time(lambda: [cloud_neighbours(cloud, K) for cloud in arrays])
    small = drifting_clouds(50, 4, 2, latent=2)
    taken, other = limited(published_route, (small, K, max_dimension), (arrays, K, max_dimension), limit)
    what = "H1" if max_dimension == 1 else f"cliques of {max_dimension + 2}"
    head = f"| {clouds} clouds of {points:,} x {width}, k={K}, {what}, drift {drift} | {seconds:.3f} | {search:.3f} |"
    return head + verdict(seconds, taken, other == found, limit)


def search_rows(points=POINTS, widths=WIDTHS):
    """One row for each size: seconds of both in float32 and float64; no ratio unless the neighbours are equal."""
    from sklearn.neighbors import kneighbors_graph

    generator = np.random.default_rng(0)
    for count in points:
        for width in widths:
            if count * width > MOST_ENTRIES:
                continue
            cells = []
            for dtype in (np.float32, np.float64):
                cloud = generator.standard_normal((count, width)).astype(dtype)
                cloud_neighbours(cloud[:100], K)
                kneighbors_graph(cloud[:100], K)
                repeats = 10 if count <= 2000 else 3
                seconds, found = best_time(lambda cloud=cloud: cloud_neighbours(cloud, K), repeats)
                taken, graph = best_time(lambda cloud=cloud: kneighbors_graph(cloud, K), repeats)
                equal = same_neighbours(cloud, found, graph.indices.reshape(count, K))
                cells.append(f" {seconds:.4f} | {taken:.4f} | {f'{taken / seconds:.1f}x' if equal else 'void'} |")
            yield f"| {count:,} | {width:,} |" + "".join(cells)


def same_neighbours(cloud, first, second):
    """Whether all neighbours are the same, but for others at the same distance in float32."""
    for point in np.flatnonzero((np.sort(first) != np.sort(second)).any(axis=1)):
        sides = [np.linalg.norm(cloud[side[point]].astype(float) - cloud[point], axis=1) for side in (first, second)]
        if (np.sort(sides[0]).astype(np.float32) != np.sort(sides[1]).astype(np.float32)).any():
            return False
    return True


def thread_counts():
    """What both take by default, in words."""
    from threadpoolctl import threadpool_info

    told = ", ".join(f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info())
    chosen = os.environ.get("OMP_NUM_THREADS", "not set")
    return f"Threads at their defaults: ours {allowed_threads()}; libraries {told}; OMP_NUM_THREADS {chosen}."
