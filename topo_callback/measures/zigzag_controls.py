"""Controls for zigzags: other orders, other halves of the prompts, other k, and Gaussian clouds of equal covariance.

A trend in a zigzag means something only where these do not show it too. Random choices come from the seed given, and
from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbour_graphs import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.persistence_similarity import stage_survival

Descriptor = Callable[[Barcode, int], Float[np.ndarray, "..."]]


def two_stage_survival(
    first: Integer[np.ndarray, "points k"], later: Integer[np.ndarray, "points k"], dimension: int = 1
) -> float:
    """S(0, t) / Betti number of stage 0 of the zigzag of these two stages alone; NaN where stage 0 has no features.

    Independent of how densely the time between the stages was sampled, unlike survival in a zigzag over all samples.
    """
    barcode = zigzag_persistence(np.stack([first, later]), max_dimension=dimension)
    return float(stage_survival(barcode, 2, dimension)[1])


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


def gaussian_distances(
    distances: Float[np.ndarray, "stages points points"], seed: int
) -> Float[np.ndarray, "stages points points"]:
    """Euclidean distances of Gaussian clouds with the same joint covariance as the clouds behind the given distances.

    With X_s the centred cloud of stage s and G one matrix of independent standard normal entries [points, points],
    the cloud of stage s is G X_s / sqrt(points): covariance within every stage and between stages is that of the X_s in
    expectation. Its Gram matrix is G B_s G^T / points with B_s = X_s X_s^T, which follows from distances by double
    centring (classical scaling), so that no cloud is needed. The floor for two-stage survival.
    """
    points = distances.shape[1]
    mixing = np.random.default_rng(seed).standard_normal((points, points))
    clouds = np.empty(distances.shape, np.float64)
    for stage, own in enumerate(distances):
        squared = own.astype(np.float64) ** 2
        gram = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
        mixed = mixing @ gram @ mixing.T / points
        norms = np.diagonal(mixed)
        # Rounding leaves values around zero on the diagonal and for equal points.
        clouds[stage] = np.sqrt(np.maximum(norms[:, None] + norms - 2 * mixed, 0))
        np.fill_diagonal(clouds[stage], 0)
    return clouds


def _zigzag(distances: Float[np.ndarray, "stages points points"], k: int, dimension: int) -> Barcode:
    neighbours = np.stack([nearest_neighbours(np.ascontiguousarray(stage), k) for stage in distances])
    return zigzag_persistence(neighbours, max_dimension=dimension)
