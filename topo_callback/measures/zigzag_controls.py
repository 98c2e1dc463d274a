"""Controls for zigzags: other orders, other halves of the prompts, other k.

A trend in a zigzag means something only where these do not show it too; see also `gaussian.py`. Random choices come
from the seed given, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbour_graphs import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence

Descriptor = Callable[[Barcode, int], Float[np.ndarray, "..."]]


def shuffled_stages(
    neighbours: Integer[np.ndarray, "stages points k"], seed: int
) -> tuple[Integer[np.ndarray, "stages points k"], Int[np.ndarray, " stages"]]:
    """The stages in random order, and that order: shuffled layers or shuffled checkpoints."""
    order = np.random.default_rng(seed).permutation(neighbours.shape[0])
    return neighbours[order], order


def disjoint_subsets(points: int, subsets: int, size: int, seed: int) -> Int[np.ndarray, "subsets size"]:
    """Random disjoint subsets of points, each sorted; 16 of 500 are published.

    Disjoint, because the spread over overlapping subsets says how many were drawn, not how the prompts vary.

    Raises:
        ValueError: there are fewer than subsets * size points.
    """
    if subsets < 1 or size < 1 or subsets * size > points:
        raise ValueError(f"{points} points do not hold {subsets} disjoint subsets of {size}")
    chosen = np.random.default_rng(seed).permutation(points)[: subsets * size]
    return np.sort(chosen.reshape(subsets, size), axis=1)


def subset_descriptors(
    distances: Float[np.ndarray, "stages points points"],
    subsets: Int[np.ndarray, "subsets size"],
    k: int,
    descriptor: Descriptor,
    dimension: int = 1,
) -> Float[np.ndarray, "subsets ..."]:
    """A descriptor (a function of barcode and number of stages) for every subset, neighbours found within the subset.

    Its mean and standard deviation over axis 0 are what the paper reports.
    """
    return np.stack(
        [descriptor(_zigzag(distances[:, chosen][:, :, chosen], k, dimension), len(distances)) for chosen in subsets]
    )


def neighbour_sweep(
    distances: Float[np.ndarray, "stages points points"],
    neighbour_counts: Sequence[int],
    descriptor: Descriptor,
    dimension: int = 1,
) -> Float[np.ndarray, "sweep ..."]:
    """A descriptor for every number of neighbours. Compare the shapes of its curves over k, never their levels."""
    # Neighbours are sorted from the nearest, so those for a smaller k are the first of those for the largest.
    widest = np.stack([nearest_neighbours(stage, max(neighbour_counts)) for stage in distances])
    return np.stack(
        [
            descriptor(
                zigzag_persistence(np.ascontiguousarray(widest[:, :, :k]), max_dimension=dimension), len(distances)
            )
            for k in neighbour_counts
        ]
    )


def _zigzag(distances: Float[np.ndarray, "stages points points"], k: int, dimension: int) -> Barcode:
    neighbours = np.stack([nearest_neighbours(np.ascontiguousarray(stage), k) for stage in distances])
    return zigzag_persistence(neighbours, max_dimension=dimension)
