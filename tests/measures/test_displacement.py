"""Bottleneck, sliced Wasserstein and the change of distances: closed forms, slow references, clouds of a real model."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys

import numpy as np
import pytest
from layer_views import defined, layer_view, reasons, rotated
from real_data import minilm_cloud
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist, squareform
from scipy.stats import wasserstein_distance as one_dimensional

from topo_callback.errors import MissingExtraError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.barcode_distances import bottleneck_distance, sliced_wasserstein_distance
from topo_callback.homology.rips import rips_persistence
from topo_callback.measures.displacement import bottleneck, distance_change, sliced_wasserstein
from topo_callback.measures.registry import LayerView

NONE = np.empty((0, 2))


def random_bars(bars: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    birth = generator.random(bars)
    return np.stack([birth, birth + generator.exponential(0.3, bars)], axis=1)


def real_view(layer: int) -> LayerView:
    cloud = minilm_cloud(layer, 60)
    return layer_view(cloud, barcode=rips_persistence(squareform(pdist(cloud).astype(np.float32)), max_dimension=1))


def dense_bottleneck(first: np.ndarray, second: np.ndarray) -> float:
    """The least threshold under which a perfect matching exists, each bar with its own place on the diagonal."""
    rows, columns = len(first), len(second)
    cost = np.zeros((rows + columns, columns + rows))
    cost[:rows, :columns] = np.abs(first[:, None] - second).max(axis=2)
    cost[:rows, columns:] = np.inf
    cost[rows:, :columns] = np.inf
    cost[np.arange(rows), columns + np.arange(rows)] = (first[:, 1] - first[:, 0]) / 2
    cost[rows + np.arange(columns), np.arange(columns)] = (second[:, 1] - second[:, 0]) / 2
    for threshold in np.unique(cost):
        too_far = (cost > threshold).astype(np.float64)
        if too_far[linear_sum_assignment(too_far)].sum() == 0:
            return float(threshold)
    raise AssertionError


def by_directions(first: np.ndarray, second: np.ndarray, directions: int) -> float:
    """The definition, one direction after the other; SciPy's distance has mass 1 for all bars together."""
    one = np.concatenate([first, np.repeat(second.mean(axis=1)[:, None], 2, axis=1)])
    other = np.concatenate([second, np.repeat(first.mean(axis=1)[:, None], 2, axis=1)])
    found = []
    for angle in np.linspace(0, math.pi, directions, endpoint=False):
        line = np.array([math.cos(angle), math.sin(angle)])
        found.append(len(one) * one_dimensional(one @ line, other @ line))
    return float(np.mean(found))


def test_bottleneck_by_closed_form() -> None:
    assert bottleneck_distance(np.array([[1.0, 3.0]]), NONE) == 1
    assert bottleneck_distance(np.array([[1.0, 3.0], [0.0, 9.0]]), np.array([[0.5, 9.0]])) == 1
    assert bottleneck_distance(np.array([[0.0, math.inf]]), NONE) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_bottleneck_equals_the_dense_search(seed: int) -> None:
    first, second = random_bars(12, seed), random_bars(9, seed + 100)
    assert bottleneck_distance(first, second) == pytest.approx(dense_bottleneck(first, second))


def test_without_gudhi_the_distance_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"topo_callback\[engines\]\", or take wasserstein"):
        bottleneck_distance(NONE, NONE)


def test_a_bar_and_nothing_differ_by_the_mean_of_the_cosine() -> None:
    # the bar lies lifetime / sqrt 2 from the diagonal, and |cos| has the mean 2 / pi
    assert sliced_wasserstein_distance(np.array([[1.0, 4.0]]), NONE) == pytest.approx(
        3 / math.sqrt(2) * 2 / math.pi, rel=1e-3
    )


@pytest.mark.parametrize("seed", range(3))
def test_sliced_wasserstein_equals_the_definition(seed: int) -> None:
    first, second = random_bars(30, seed), random_bars(20, seed + 50)
    expected = by_directions(first, second, 4000)
    assert sliced_wasserstein_distance(first, second) == pytest.approx(expected, rel=3e-3)
    assert sliced_wasserstein_distance(first, second, directions=4000) == pytest.approx(expected, rel=1e-5)


def test_sliced_wasserstein_refuses_endless_bars() -> None:
    with pytest.raises(ValueError, match="finite bars"):
        sliced_wasserstein_distance(np.array([[0.0, math.inf]]), NONE)


@pytest.mark.parametrize("measure", [bottleneck, sliced_wasserstein])
def test_displacements_of_real_layers_are_symmetric_free_of_scale_and_bounded(measure) -> None:  # type: ignore[no-untyped-def]
    one, other = real_view(2), real_view(4)
    found = measure(one, other)
    assert set(found) == {f"{measure.__name__}_h{dimension}" for dimension in (0, 1)}
    assert all(value > 0 for value in found.values())
    assert found == pytest.approx(measure(other, one))
    assert list(measure(one, one).values()) == [0, 0]
    scaled = layer_view(8 * minilm_cloud(2, 60), barcode=Barcode(
        one.barcode.dimension, 8 * one.barcode.birth, 8 * one.barcode.death
    ))  # fmt: skip
    assert measure(scaled, other) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("measure", [bottleneck, sliced_wasserstein])
def test_bars_that_never_die_must_have_partners(measure) -> None:  # type: ignore[no-untyped-def]
    ended = Barcode(np.array([0]), np.array([0.0]), np.array([1.0]))
    endless = Barcode(np.array([0]), np.array([0.0]), np.array([math.inf]))
    found = measure(layer_view(np.eye(4), barcode=ended), layer_view(np.eye(4), barcode=endless))
    assert defined(found) == {f"{measure.__name__}_h1": 0.0}
    assert "never die" in found[f"{measure.__name__}_h0"].reason


def integrated(first: np.ndarray, second: np.ndarray) -> float:
    """The sliced distance of one bar each by adaptive quadrature with the kinks given: an independent integral."""

    def distance(angle: float) -> float:
        line = np.array([math.cos(angle), math.sin(angle)])
        one = sorted([float(first[0] @ line), float(second[0].mean() * line.sum())])
        other = sorted([float(second[0] @ line), float(first[0].mean() * line.sum())])
        return abs(one[0] - other[0]) + abs(one[1] - other[1])

    grid = np.linspace(-math.pi / 2, math.pi / 2, 4001)
    parts = [quad(distance, low, high)[0] for low, high in itertools.pairwise(grid)]
    return float(np.sum(parts)) / math.pi


@pytest.mark.parametrize("death", [1.1, 1.0001, 5.0])
def test_the_sliced_distance_of_two_bars_is_the_integral(death: float) -> None:
    first, second = np.array([[0.0, 1.0]]), np.array([[0.2, death]])
    assert sliced_wasserstein_distance(first, second) == pytest.approx(integrated(first, second), rel=5e-4)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_the_sliced_distance_is_as_exact_as_it_says(noise: float) -> None:
    generator = np.random.default_rng(int(100 * noise))
    for _ in range(5):
        cloud = generator.standard_normal((60, 20))
        clouds = (cloud, cloud + noise * generator.standard_normal(cloud.shape))
        barcodes = [rips_persistence(squareform(pdist(each).astype(np.float32))) for each in clouds]
        for dimension in (0, 1):
            bars = [barcode.of(dimension) for barcode in barcodes]
            one, other = (each[np.isfinite(each[:, 1])] for each in bars)
            many = sliced_wasserstein_distance(one, other, directions=12_000)
            assert sliced_wasserstein_distance(one, other) == pytest.approx(many, rel=5e-4)


def test_by_closed_form() -> None:
    # distances 1, 2, 3 (median 2) and 2, 2, 4 (median 2)
    line, other = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [4.0]])
    assert distance_change(layer_view(line), layer_view(other)) == pytest.approx(
        {"distance_change": np.sqrt((0.5**2 + 0.5**2 + 0.0**2) / 3)}
    )


def test_scale_rotation_and_shift_are_no_change_but_swapped_prompts_are() -> None:
    cloud = minilm_cloud(4, 70)
    view = layer_view(cloud)
    assert distance_change(layer_view(rotated(5 * cloud, 400)), view)["distance_change"] < 1e-6
    assert distance_change(layer_view(cloud[::-1]), view)["distance_change"] > 0.1


def test_a_step_in_depth_is_a_change_and_the_way_back_is_as_long() -> None:
    one, other = layer_view(minilm_cloud(2, 70)), layer_view(minilm_cloud(4, 70))
    assert distance_change(one, other) == pytest.approx(distance_change(other, one))
    assert 0.01 < distance_change(one, other)["distance_change"] < 1


def test_it_is_missing_without_the_earlier_distances() -> None:
    view = layer_view(np.eye(4))
    assert reasons(distance_change(view, dataclasses.replace(view, distances=None))) == {
        "the distances of the earlier sample are no longer kept"
    }
