"""Do two models, or two steps, see the same neighbours at corresponding depths? Affinity of all pairs of layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer
from scipy.sparse import csr_array

NEAR = 0.05
FAR = 0.3


@dataclass(frozen=True)
class DiagonalTest:
    """Whether layers at corresponding relative depth agree more than layers paired at random.

    Attributes:
        statistic: mean affinity of every layer with the layer of the other model that is nearest in relative depth.
        expected: mean of the same over the permutations.
        p_value: share of permutations, the given order counted as one, with a statistic at least as large.
        permutations: how many were drawn.
    """

    statistic: float
    expected: float
    p_value: float
    permutations: int


def affinity_matrix(
    first: Integer[np.ndarray, "layers points k"], second: Integer[np.ndarray, "other_layers other_points other_k"]
) -> Float64[np.ndarray, "layers other_layers"]:
    """Mutual kNN of every layer of one with every layer of the other, m(i, j) = mean_p |N_i(p) ∩ N_j(p)| / k.

    Wolfram and Schein, arXiv 2504.08775, figure 1: there with cosine distances, k = 10, the embedding left out; by
    chance k / (points - 1). With the same neighbours twice, the agreement of the layers of one model with each other.

    Args:
        first, second: neighbours of the same prompts, every k of them different; leave layers that are not ok out.

    Raises:
        ValueError: different points or k, or a negative neighbour, which marks a layer without any.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"neighbours of equal points and k are needed; got shapes {first.shape} and {second.shape}")
    points, k = first.shape[1:]
    if min(first.min(), second.min()) < 0:
        raise ValueError("a layer has no neighbours (-1); leave layers that are not ok out")
    keys = np.concatenate([_keys(first), _keys(second)])
    edges, place = np.unique(keys, return_inverse=True)
    starts = np.arange(0, keys.size + 1, points * k)
    listed = csr_array((np.ones(keys.size), place.ravel(), starts), shape=(len(starts) - 1, edges.size))
    common = listed[: len(first)] @ listed[len(first) :].T
    found: Float64[np.ndarray, "layers other_layers"] = common.toarray() / (points * k)
    return found


def _keys(neighbours: Integer[np.ndarray, "layers points k"]) -> Int64[np.ndarray, " _"]:
    points = neighbours.shape[1]
    keys: Int64[np.ndarray, " _"] = (np.arange(points, dtype=np.int64)[:, None] * points + neighbours).ravel()
    return keys


def relative_depth_difference(layers: int, other_layers: int) -> Float64[np.ndarray, "layers other_layers"]:
    """|i / (layers - 1) - j / (other_layers - 1)| of all pairs; a single layer is at depth 0."""
    depth, other_depth = (np.arange(count) / max(count - 1, 1) for count in (layers, other_layers))
    difference: Float64[np.ndarray, "layers other_layers"] = np.abs(depth[:, None] - other_depth)
    return difference


def diagonal_summary(affinity: Float64[np.ndarray, "layers other_layers"]) -> dict[str, float]:
    """Mean affinity `near` the diagonal, |relative depth difference| < .05, and `far` from it, > .3.

    The summary published in arXiv 2504.08775; without a pair in a range its mean is left out.
    """
    difference = relative_depth_difference(*affinity.shape)
    chosen = {"near": difference < NEAR, "far": difference > FAR}
    return {name: float(affinity[pairs].mean()) for name, pairs in chosen.items() if pairs.any()}


def diagonal_test(
    affinity: Float64[np.ndarray, "layers other_layers"], permutations: int = 2000, seed: int = 0
) -> DiagonalTest:
    """Permutation test of diagonal structure: do corresponding relative depths agree?

    The layers of the second model are put in random order, which keeps all its affinities and breaks only their
    correspondence in depth. Neighbouring layers are alike, so a small p says that depths correspond in order, not
    that every layer finds its own partner; see `diagonal_summary` for how sharply they do.

    Args:
        affinity: from `affinity_matrix`, of two different models; at least 2 layers each.
        permutations: drawn from `seed`; p is at least 1 / (permutations + 1).

    Raises:
        ValueError: fewer than 2 layers, or fewer than 1 permutation.
    """
    if min(affinity.shape) < 2 or permutations < 1:
        raise ValueError(
            f"at least 2 layers each and 1 permutation are needed; got {affinity.shape} and {permutations}"
        )
    pairs = _corresponding(relative_depth_difference(*affinity.shape))
    statistic = float(affinity[pairs].mean())
    generator = np.random.default_rng(seed)
    orders = generator.permuted(np.tile(np.arange(affinity.shape[1]), (permutations, 1)), axis=1)
    rows, columns = np.nonzero(pairs)
    drawn = affinity[rows, orders[:, columns]].mean(axis=1)
    # equal up to rounding is equal: the given order is among the permutations
    reached = int((drawn >= statistic - 1e-12).sum())
    return DiagonalTest(statistic, float(drawn.mean()), (1 + reached) / (1 + permutations), permutations)


def _corresponding(
    difference: Float64[np.ndarray, "layers other_layers"],
) -> Bool[np.ndarray, "layers other_layers"]:
    """Pairs of which one is the nearest in depth to the other; ties all count."""
    rounding = 1e-9
    nearest_of_row = difference <= difference.min(axis=1, keepdims=True) + rounding
    nearest_of_column = difference <= difference.min(axis=0, keepdims=True) + rounding
    pairs: Bool[np.ndarray, "layers other_layers"] = nearest_of_row | nearest_of_column
    return pairs
