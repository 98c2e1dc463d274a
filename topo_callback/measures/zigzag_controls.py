"""Controls for zigzags: descriptors of other subsets of the prompts, and for other k.

A trend in a zigzag means something only where these do not show it too; see also `gaussian.py`. Random choices come
from the seed given, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence

Descriptor = Callable[[Barcode, int], Float[np.ndarray, "..."]]


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

    `mean_and_deviation` of these is what the paper reports.
    """
    return np.stack(
        [descriptor(_zigzag(distances[:, chosen][:, :, chosen], k, dimension), len(distances)) for chosen in subsets]
    )


def mean_and_deviation(
    values: Float[np.ndarray, " subsets *rest"],
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Mean and standard deviation (of a sample: n - 1) over axis 0; NaN is left out, and the result where too few are.

    A mean needs one value, a deviation two.
    """
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(present, values, 0).sum(axis=0), count, out=mean, where=count > 0)
    squares = np.where(present, (values - mean) ** 2, 0).sum(axis=0)
    variance = np.full(count.shape, np.nan)
    np.divide(squares, count - 1, out=variance, where=count > 1)
    return mean, np.sqrt(variance)


def sweep_of_neighbours(
    widest: Integer[np.ndarray, "stages points widest"],
    neighbour_counts: Sequence[int],
    descriptor: Descriptor,
    dimension: int = 1,
) -> Float[np.ndarray, "sweep ..."]:
    """A descriptor for every number of neighbours. Compare the shapes of its curves over k, never their levels.

    Neighbours are nearest first, so those for a smaller k are the first of those for the largest.

    Raises:
        ValueError: a number of neighbours that is not between 1 and the widest.
    """
    if min(neighbour_counts) < 1 or max(neighbour_counts) > widest.shape[2]:
        raise ValueError(f"neighbours for k of {list(neighbour_counts)}; each point lists {widest.shape[2]}")
    return np.stack(
        [
            descriptor(zigzag_persistence(np.ascontiguousarray(widest[:, :, :k]), max_dimension=dimension), len(widest))
            for k in neighbour_counts
        ]
    )


def _zigzag(distances: Float[np.ndarray, "stages points points"], k: int, dimension: int) -> Barcode:
    neighbours = np.stack([nearest_neighbours(np.ascontiguousarray(stage), k) for stage in distances])
    return zigzag_persistence(neighbours, max_dimension=dimension)
