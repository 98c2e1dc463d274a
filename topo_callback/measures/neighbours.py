"""Neighbourhoods: which prompts stay neighbours, over samples and depth, and whether a few are neighbours of many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int32, Int64, Integer
from scipy.sparse import csr_array

from topo_callback.measures.missing import Missing, Number, or_missing
from topo_callback.measures.registry import DepthView, LayerView, depth_measure, layer_measure, pair_measure


def mutual_knn(first: Int32[np.ndarray, "points k"], second: Int32[np.ndarray, "points k"]) -> float:
    """Mean share of common nearest neighbours, mean_i |N_A(i) ∩ N_B(i)| / k, in [0, 1].

    Wolfram and Schein, arXiv 2504.08775; by chance k / (points - 1). The order of neighbours does not matter.

    Raises:
        ValueError: the two arrays differ in points or k.
    """
    if first.shape != second.shape:
        raise ValueError(f"neighbours of equal points and k are needed; got shapes {first.shape} and {second.shape}")
    points, k = first.shape
    stride = int(max(first.max(), second.max())) + 1
    rows = np.arange(points, dtype=np.int64)[:, None] * stride
    common = np.intersect1d(rows + first, rows + second, assume_unique=True)
    return float(common.size / (points * k))


@pair_measure("mutual_knn")
def layer_mutual_knn(now: LayerView, earlier: LayerView) -> dict[str, float]:
    """Mutual kNN of one layer between two samples."""
    return {"mutual_knn": mutual_knn(now.neighbours, earlier.neighbours)}


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


def in_degree_skewness(neighbours: Integer[np.ndarray, "points k"]) -> float | None:
    """Skewness of the in-degree of the k-nearest-neighbour graph, E(N - k)^3 / sd(N)^3 with divisor points.

    N_i is how many points list i among their k nearest, its mean is k. Radovanovic et al., JMLR 11 (2010), equation 1:
    above 0 there are hubs, which high dimension alone brings about.

    Returns:
        None where every point is listed equally often.
    """
    points, k = neighbours.shape
    deviation = np.bincount(neighbours.ravel(), minlength=points) - float(k)
    variance = float(np.mean(deviation**2))
    return float(np.mean(deviation**3)) / variance**1.5 if variance > 0 else None


@layer_measure("hubness")
def hubness(view: LayerView) -> dict[str, Number]:
    """`hubness`: skewness of the in-degree among the recorded neighbours, no unit; compare it at equal k only."""
    value = in_degree_skewness(view.neighbours)
    return {"hubness": or_missing(value, "every point is listed equally often")}


@depth_measure("depth_overlap")
def depth_overlap(view: DepthView) -> Mapping[str, Mapping[int | None, Number]]:
    """Neighbourhood overlap between the layers of one step: shares of common nearest neighbours, 0 to 1.

    `overlap_below` of a layer is its overlap with the read layer before it (Valeriani et al., arXiv 2302.00294, there
    k = 30 and adjacent layers: fewer layers read overlap less); the first layer has none. `overlap_depth` is the mean
    of its overlap with each of the other layers. By chance k / (points - 1), k as recorded.
    Cost: layers^2 * points * k operations.
    """
    if len(view.layers) < 2:
        alone: dict[int | None, Number] = dict.fromkeys(view.layers, Missing("fewer than two layers have a shape"))
        return {"overlap_below": alone, "overlap_depth": alone} if alone else {}
    neighbours = np.stack([view.views[layer].neighbours for layer in view.layers])
    overlap = affinity_matrix(neighbours, neighbours)
    others = (overlap.sum(axis=1) - np.diagonal(overlap)) / (len(view.layers) - 1)
    below: dict[int | None, Number] = dict(zip(view.layers[1:], np.diagonal(overlap, 1).tolist(), strict=True))
    below[view.layers[0]] = Missing("no layer below it is read")
    return {"overlap_below": below, "overlap_depth": dict(zip(view.layers, others.tolist(), strict=True))}
