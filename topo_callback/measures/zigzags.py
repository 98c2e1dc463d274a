"""Persistence along depth and time: how long features live among layers and samples, beside what chance would keep.

What chance keeps is measured in Gaussian clouds of equal covariance, where nothing but the covariance is at work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int32, Integer

from topo_callback.measures.missing import Missing, Number, all_missing, or_missing
from topo_callback.measures.registry import DepthView, LayerView, TimeView, depth_measure, pair_measure, time_measure

DRAWS = 4  # their mean has half the spread of one; what more would cost is in docs/measures.md
MOST_POINTS_DRAWN = 1000
_USERS = ("survival_gaussian",)  # measures that need these clouds


def uses_gaussian_clouds(measures: Sequence[str]) -> bool:
    """Whether one of the measures needs the Gaussian cloud; it costs 16 points^3 operations for each layer."""
    return any(name in _USERS for name in measures)


def gaussian_distances(
    gram: Float64[np.ndarray, "points points"], seed: int, draw: int = 0
) -> Float64[np.ndarray, "points points"]:
    """Euclidean distances of a Gaussian cloud with the covariance of the cloud behind a Gram matrix.

    With X the centred cloud [points, width] and W one matrix of independent standard normal entries [points, points],
    the new cloud is W X / sqrt(points). Its Gram matrix is W B W^T / points with B = X X^T, so that no cloud is
    needed. The same seed gives the same W: the clouds of several layers or steps are then jointly Gaussian, with the
    covariance between layers or steps, too, that of the X, in expectation.

    Args:
        gram: from `gram_matrix`.
        seed: of W, and of nothing else.
        draw: which of the independent W of this seed.
    """
    points = len(gram)
    mixing = _mixing(points, seed, draw)
    mixed = mixing @ gram @ mixing.T / points
    norms = np.diagonal(mixed)
    # rounding leaves values around zero on the diagonal and for equal points
    distances: Float64[np.ndarray, "points points"] = np.sqrt(np.maximum(norms[:, None] + norms - 2 * mixed, 0))
    distances = np.maximum(distances, distances.T)  # the product is symmetric up to rounding only
    np.fill_diagonal(distances, 0)
    return distances


def gaussian_neighbours(gram: Float64[np.ndarray, "points points"], k: int, seed: int) -> Int32[np.ndarray, "points k"]:
    """Nearest neighbours in the cloud of `gaussian_distances`."""
    from topo_callback.homology.neighbours import nearest_neighbours

    return nearest_neighbours(gaussian_distances(gram, seed).astype(np.float32), k)


def gaussian_draws(
    gram: Float64[np.ndarray, "points points"], k: int, seed: int
) -> Int32[np.ndarray, "points draws_times_k"]:
    """Nearest neighbours in several independent Gaussian clouds side by side: k columns for each.

    `DRAWS` clouds, the first being that of `gaussian_neighbours`; one of more than `MOST_POINTS_DRAWN` points, where
    draws differ little and cost much.
    """
    from topo_callback.homology.neighbours import nearest_neighbours

    draws = DRAWS if len(gram) <= MOST_POINTS_DRAWN else 1
    clouds = [gaussian_distances(gram, seed, draw).astype(np.float32) for draw in range(draws)]
    return np.concatenate([nearest_neighbours(cloud, k) for cloud in clouds], axis=1)


@lru_cache(maxsize=DRAWS)
def _mixing(points: int, seed: int, draw: int) -> Float64[np.ndarray, "points points"]:
    generator = np.random.default_rng(seed if draw == 0 else (seed, draw))
    return generator.standard_normal((points, points))


@depth_measure("depth_persistence")
def depth_persistence(view: DepthView) -> Mapping[str, Mapping[int | None, Number]]:
    """What the depth zigzag says of every layer, H1.

    `depth_similarity_h1` of layer i is r(i) = mean over j of S(i, j) / beta(j), j = i included, the normalisation of
    the code released with arXiv 2410.11042; quotients with beta(j) = 0 are missing and left out of the mean. It is the
    share of each layer's features that also live in layer i. `betti_h1` counts independent loops.
    `inter_layer_persistence_h1` is Z(i), the mean over j of S(i, j) / beta(i): the share of this layer's loops that
    also live in the others. `depth_births_h1` is the share of all loops that are born at this layer, in the order of
    depth. Both are those of the ICML version with alpha = 0. `depth_correlation_length_h1`, one number for the whole
    depth, is the distance in layers at which similarity has fallen to 1/e.
    """
    from topo_callback.homology.descriptors import (
        births_relative_frequency,
        correlation_length,
        inter_layer_persistence,
        mean_similarity,
        shared_features,
    )

    if view.zigzag is None:
        return {}
    stages = len(view.layers)
    bars = view.zigzag
    loops = np.diag(shared_features(bars, stages)).tolist()
    born_at = births_relative_frequency(bars, stages).tolist()
    similarity, persistence = mean_similarity(bars, stages).tolist(), inter_layer_persistence(bars, stages).tolist()
    length = or_missing(correlation_length(bars, stages), "similarity does not fall to 1/e within these layers")
    names = ("betti_h1", "depth_similarity_h1", "inter_layer_persistence_h1", "depth_births_h1")
    numbers: dict[str, dict[int | None, Number]] = {name: {} for name in names}
    for place, layer in enumerate(view.layers):
        numbers["betti_h1"][layer] = float(loops[place])
        numbers["depth_similarity_h1"][layer] = or_missing(similarity[place], "no layer has loops")
        numbers["inter_layer_persistence_h1"][layer] = (
            persistence[place] if loops[place] else Missing("the layer has no loops")
        )
        numbers["depth_births_h1"][layer] = or_missing(born_at[place], "no loop is born at a layer")
    return {**numbers, "depth_correlation_length_h1": {None: length}}


@time_measure("time_persistence")
def time_persistence(view: TimeView) -> dict[str, Number]:
    """What the time zigzag of one layer says of its newest sample, H1.

    `time_survival_h1` is S(0, t) / beta(0): the share of the loops of the earliest sample that lived through every
    sample since; it depends on how densely time is sampled, unlike two-stage survival. `time_births_h1` is the share of
    the loops of the newest sample that were not in the one before. `time_similarity_h1` is the mean over samples j of
    S(j, t) / beta(j), t itself included, as `depth_similarity_h1` is over layers.
    """
    from topo_callback.homology.descriptors import mean_similarity, persistence_similarity

    stages = len(view.steps)
    own = persistence_similarity(view.zigzag, stages, dimension=1, normalisation="own")
    similarity = float(mean_similarity(view.zigzag, stages, dimension=1)[-1])
    return {
        "time_survival_h1": or_missing(float(own[0, -1]), "the earliest sample has no loops"),
        "time_births_h1": or_missing(1 - float(own[-1, -2]), "the newest sample has no loops"),
        "time_similarity_h1": or_missing(similarity, "no sample has loops"),
    }


_NO_LOOPS = "the earlier neighbour graph has no loops"


def two_stage_survival(
    first: Integer[np.ndarray, "points k"], later: Integer[np.ndarray, "points k"], dimension: int = 1
) -> float:
    """S(0, t) / Betti number of stage 0 of the zigzag of these two stages alone; NaN where stage 0 has no features.

    Independent of how densely the time between the stages was sampled, unlike survival in a zigzag over all samples.
    """
    from topo_callback.homology.descriptors import stage_survival
    from topo_callback.homology.zigzag import zigzag_persistence

    barcode = zigzag_persistence(np.stack([first, later]), max_dimension=dimension)
    return float(stage_survival(barcode, 2, dimension)[1])


@pair_measure("survival")
def survival(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """Two-stage survival: the share of the earlier neighbour graph's loops (H1) that are alive now, 0 to 1."""
    return {"survival_h1": or_missing(two_stage_survival(earlier.neighbours, now.neighbours), _NO_LOOPS)}


@pair_measure("survival_gaussian")
def survival_gaussian(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """The floor for `survival`: the same of two Gaussian clouds that have the covariance of the two samples jointly.

    A survival no higher than this is explained by how the cloud's covariance moved. `survival_h1_gaussian` is the mean
    over `DRAWS` draws of the Gaussian clouds, the same draws for the whole run, and
    `survival_h1_gaussian_error` its standard error over them, s / sqrt(draws); missing with a single draw, which
    records of more than 1,000 points, or that an older version began, have.
    """
    names = ("survival_h1_gaussian", "survival_h1_gaussian_error")
    if now.gaussian_neighbours is None or earlier.gaussian_neighbours is None:
        return all_missing(names, "no Gaussian cloud of the earlier sample")
    k = now.neighbours.shape[1]
    draws = min(now.gaussian_neighbours.shape[1], earlier.gaussian_neighbours.shape[1]) // k
    columns = [slice(k * draw, k * (draw + 1)) for draw in range(draws)]
    each = [
        two_stage_survival(earlier.gaussian_neighbours[:, part], now.gaussian_neighbours[:, part]) for part in columns
    ]
    values = np.array(each)[~np.isnan(each)]
    if values.size == 0:
        return all_missing(names, _NO_LOOPS)
    error = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else Missing("a single Gaussian draw")
    return {names[0]: float(values.mean()), names[1]: error}
