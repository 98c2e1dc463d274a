"""Every number of a cloud, from float32 distances, against the cloud itself in float64, where rounding is hardest.

A number may be missing there; it may not be wrong. The clouds are float32, as models give them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from topo_callback.geometry import condensed_distances, point_norms
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.paired_topology import representation_topology_divergence, tree_divergences
from topo_callback.homology.rips import rips_persistence
from topo_callback.measures import layer_measures, pair_measures
from topo_callback.measures.cka import cka
from topo_callback.measures.displacement import distance_change, rtd, rtd_lite
from topo_callback.measures.distances import POINT_ROUNDING, gram_matrix
from topo_callback.measures.missing import Missing
from topo_callback.measures.registry import LayerView
from topo_callback.measures.zigzags import gaussian_neighbours

POINTS, WIDTH, K = 150, 40, 4
NO_BARS = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))
Change = Callable[[np.ndarray, np.random.Generator], None]


def far(times: float, *points: int) -> Change:
    def change(cloud: np.ndarray, generator: np.random.Generator) -> None:
        cloud[list(points)] *= times

    return change


def shifted(by: float) -> Change:
    def change(cloud: np.ndarray, generator: np.random.Generator) -> None:
        cloud += by

    return change


def scaled(by: float) -> Change:
    def change(cloud: np.ndarray, generator: np.random.Generator) -> None:
        cloud *= by

    return change


def balanced(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[1] = -1000 * cloud[0]
    cloud[0] *= 1000


def one_coordinate(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[:, 7] *= 300


def two_clusters(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[POINTS // 2 :, 3] += 500


def duplicates(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[:30] = cloud[30:60]


def near_duplicates(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[:30] = cloud[30:60] * (1 + 1e-7 * generator.standard_normal((30, WIDTH)))


def plane(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[:, 2:] = cloud[:, :2] @ generator.standard_normal((2, WIDTH - 2))


def line(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[:] = cloud[:, :1] * np.arange(1.0, WIDTH + 1)


def few_apart(cloud: np.ndarray, generator: np.random.Generator) -> None:
    cloud[60:] = cloud[60]


CLOUDS: dict[str, Change] = {
    "as it is": far(1.0, 0),
    "one at 1e2": far(1e2, 3),
    "one at 1e4": far(1e4, 3),
    "one at 1e8": far(1e8, 3),
    "three": far(1e3, 3, 50, 99),
    "two that balance": balanced,
    "shifted by 1e3": shifted(1e3),
    "shifted by 1e6": shifted(1e6),
    "tiny": scaled(1e-18),
    "huge": scaled(1e18),
    "one coordinate": one_coordinate,
    "two clusters": two_clusters,
    "duplicates": duplicates,
    "near-duplicates": near_duplicates,
    "a plane": plane,
    "a line": line,
    "many equal": few_apart,
}


def cloud_of(name: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    cloud = generator.standard_normal((POINTS, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.3
    CLOUDS[name](cloud, generator)
    return cloud.astype(np.float32)


def view_of(cloud: np.ndarray, metric: str) -> LayerView:
    points = torch.from_numpy(cloud)
    distances = condensed_distances(points, metric=metric).numpy()
    neighbours = nearest_neighbours(squareform(distances), K)
    norms = point_norms(points, metric=metric).numpy()
    return LayerView(3, NO_BARS, neighbours, float(np.median(distances)), metric, distances, norms)


def seen(cloud: np.ndarray, metric: str) -> np.ndarray:
    """The points that the metric sees, in float64."""
    points = cloud.astype(np.float64)
    if metric == "correlation":
        points = points - points.mean(axis=1, keepdims=True)
        points = points - points.mean(axis=1, keepdims=True)
    return points if metric == "euclidean" else points / np.linalg.norm(points, axis=1, keepdims=True)


def distances_of(points: np.ndarray) -> np.ndarray:
    """From differences, which lose nothing."""
    found: np.ndarray = squareform(pdist(points))
    return found


def truths(points: np.ndarray, norms: np.ndarray, metric: str) -> dict[str, float]:
    """The numbers from coordinates: singular values, cosines at the centroid, sorted distances."""
    centred = points - points.mean(axis=0)
    centred = centred - centred.mean(axis=0)
    roots = np.linalg.svd(centred, compute_uv=False)[: min(len(points) - 1, points.shape[1])]
    roots = roots[roots > 1e-12 * roots[0]]
    shares, parts = roots**2 / (roots**2).sum(), roots / roots.sum()
    distances = distances_of(points)
    recorded = distances if metric == "euclidean" else distances**2 / 2
    upper = recorded[np.triu_indices(len(points), 1)]
    entropy = -float(np.sum(shares * np.log(shares)))
    ordered = np.sort(distances, axis=1)[:, 1:]
    floors = POINT_ROUNDING * norms
    near = ordered[:, 0] > floors
    apart = ordered[near, 1] - ordered[near, 0] > floors[near]
    logs = np.where(apart, np.log(ordered[near, 1] / ordered[near, 0]), 0.0)
    lengths = np.linalg.norm(centred, axis=1)
    away = lengths > 1e-9 * lengths.max()
    unit = centred[away] / lengths[away, None]
    count = len(unit)
    return {
        "effective_rank": math.exp(entropy),
        "dataset_entropy": entropy,
        "rankme": math.exp(-float(np.sum(parts * np.log(parts)))),
        "participation_ratio": 1 / float((shares**2).sum()),
        "anisotropy": float(shares[0]),
        "total_variance": float((centred**2).sum() / len(points)),
        "mean_distance": float(upper.mean()),
        "diameter": float(upper.max()),
        "two_nn_ml": (len(logs) - 1) / logs.sum() if logs.sum() > 0 else math.nan,
        "centred_cosine": float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1))),
    }


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
@pytest.mark.parametrize("name", CLOUDS)
def test_numbers_of_a_layer_are_those_of_the_cloud_or_missing(name: str, metric: str) -> None:
    cloud = cloud_of(name, 0)
    view = view_of(cloud, metric)
    assert view.norms is not None
    found = {}
    for measure in ("spectrum", "scale", "intrinsic_dimension", "centred_cosine"):
        found.update(layer_measures[measure](view))
    for number, expected in truths(seen(cloud, metric), view.norms.astype(np.float64), metric).items():
        value = found[number]
        if not isinstance(value, Missing):
            loose = number in ("rankme", "centred_cosine")
            near = 1e-5 if number == "dataset_entropy" else 0.0
            assert value == pytest.approx(expected, rel=0.1 if loose else 2e-3, abs=2e-3 if loose else near), number
    for number, value in found.items():
        assert isinstance(value, Missing) or math.isfinite(value), number


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", [name for name in CLOUDS if name != "many equal"])
def test_numbers_of_a_pair_are_those_of_the_clouds_or_missing(name: str, metric: str) -> None:
    first, later = cloud_of(name, 0), cloud_of(name, 0)
    later = (later * (1 + 0.1 * np.random.default_rng(9).standard_normal(later.shape))).astype(np.float32)
    found = {**cka(view_of(later, metric), view_of(first, metric))}
    found.update(distance_change(view_of(later, metric), view_of(first, metric)))
    points = [seen(each, metric) for each in (later, first)]
    centred = [each - each.mean(axis=0) for each in points]
    one, other = (each @ each.T for each in centred)
    biased = (one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum())
    if not isinstance(found["cka_biased"], Missing):
        assert found["cka_biased"] == pytest.approx(biased, abs=1e-4)
    if not isinstance(found["cka"], Missing):
        assert found["cka"] == pytest.approx(debiased(points[0], points[1]), abs=0.02)
    recorded = [distances_of(each) if metric == "euclidean" else distances_of(each) ** 2 / 2 for each in points]
    ratios = [each[np.triu_indices(POINTS, 1)] / np.median(each[np.triu_indices(POINTS, 1)]) for each in recorded]
    change = math.sqrt(float(np.mean((ratios[0] - ratios[1]) ** 2)))
    assert found["distance_change"] == pytest.approx(change, rel=1e-3)
    divergence = representation_topology_divergence(*(squareform(each) for each in recorded))
    assert rtd(view_of(later, metric), view_of(first, metric))["rtd"] == pytest.approx(divergence, rel=1e-3, abs=1e-3)
    trees = tree_divergences(*(squareform(each) for each in recorded))
    assert trees is not None
    lengths = rtd_lite(view_of(later, metric), view_of(first, metric))
    assert lengths == pytest.approx(dataclasses.asdict(trees), rel=1e-3, abs=1e-3)


def debiased(first: np.ndarray, second: np.ndarray) -> float:
    """Song et al.'s estimator from Gram matrices about the median point, in long double."""

    def hsic(one: np.ndarray, other: np.ndarray) -> float:
        n = len(one)
        rows = one.sum(axis=0) @ other.sum(axis=0)
        total = one.sum() * other.sum() / ((n - 1) * (n - 2))
        return float(((one * other).sum() + total - 2 * rows / (n - 2)) / (n * (n - 3)))

    grams = []
    for points in (first, second):
        wide = (points - np.median(points, axis=0)).astype(np.longdouble)
        gram = wide @ wide.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    return hsic(grams[0], grams[1]) / math.sqrt(hsic(grams[0], grams[0]) * hsic(grams[1], grams[1]))


@pytest.mark.parametrize("name", ["as it is", "one at 1e2", "one at 1e4", "three", "shifted by 1e3", "one coordinate"])
def test_gaussian_neighbours_are_those_of_the_mixed_coordinates(name: str) -> None:
    cloud = seen(cloud_of(name, 0), "euclidean")
    view = view_of(cloud_of(name, 0), "euclidean")
    assert view.distances is not None
    found = gaussian_neighbours(gram_matrix(view.distances), K, seed=5)
    mixing = np.random.default_rng(5).standard_normal((POINTS, POINTS))
    mixed = mixing @ (cloud - cloud.mean(axis=0)) / math.sqrt(POINTS)
    expected = nearest_neighbours(distances_of(mixed).astype(np.float32), K)
    shared = [np.intersect1d(mine, theirs).size for mine, theirs in zip(found, expected, strict=True)]
    assert np.mean(shared) > 0.99 * K


SMALL = {
    "points in general position": np.random.default_rng(0).standard_normal((5, 3)),
    "all but one equal": np.concatenate([np.ones((4, 3)), [[2.0, 2.0, 3.0]]]),
    "collinear": np.arange(5.0)[:, None] * [[1.0, 2.0, -3.0]] + 1,
    "a simplex": np.eye(5),
    "two pairs and one": np.array([[0.0, 1], [0, 1], [5, 2], [5, 2], [9, 4]]),
    "a square and its middle": np.array([[0.0, 0], [0, 2], [2, 0], [2, 2], [1, 1]]) + 1,
}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", SMALL)
def test_the_fewest_points_give_finite_numbers_or_reasons(name: str, metric: str) -> None:
    """k + 1 points, through every measure of a layer and of a pair."""
    cloud = SMALL[name].astype(np.float32)
    views = []
    for each in (cloud, cloud * np.float32(1.5)):
        distances = condensed_distances(torch.from_numpy(each), metric=metric).numpy()
        square = squareform(distances)
        graph = nearest_neighbours(square, K)
        norms = point_norms(torch.from_numpy(each), metric=metric).numpy()
        median = float(np.median(distances)) or 1.0
        views.append(LayerView(1, rips_persistence(square), graph, median, metric, distances, norms, graph))
    numbers: dict[str, float | Missing] = {}
    for measure in layer_measures.values():
        numbers.update(measure(views[0]))
    for pair in pair_measures.values():
        numbers.update(pair(views[1], views[0]))
    for number, value in numbers.items():
        assert isinstance(value, Missing) or math.isfinite(value), number
    if name in ("a simplex", "two pairs and one"):
        assert isinstance(numbers["two_nn"], Missing)
    if name == "collinear" and metric == "euclidean":
        assert numbers["effective_rank"] == pytest.approx(1.0, abs=1e-5)
    if not isinstance(numbers["cka_biased"], Missing):
        assert numbers["cka_biased"] == pytest.approx(1.0, abs=1e-6)
