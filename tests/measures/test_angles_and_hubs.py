"""Mean cosine as seen from the centroid, and hubness, against their definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import layer_view, reasons
from real_data import minilm_cloud
from scipy.stats import skew

from topo_callback.measures.angles import centred_cosine
from topo_callback.measures.hubness import hubness, in_degree_skewness


def by_definition(cloud: np.ndarray) -> float:
    centred = cloud - cloud.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return float((unit @ unit.T)[np.triu_indices(len(cloud), 1)].mean())


def test_cosines_are_those_of_the_centred_points() -> None:
    for cloud in (minilm_cloud(4, 80), np.random.default_rng(0).exponential(size=(40, 2)) + 5):
        assert centred_cosine(layer_view(cloud))["centred_cosine"] == pytest.approx(by_definition(cloud), abs=1e-6)


def test_unit_vectors_that_balance_have_the_lowest_mean_cosine() -> None:
    assert centred_cosine(layer_view(np.eye(6)))["centred_cosine"] == pytest.approx(-1 / 5)


def test_a_point_at_the_centroid_has_no_angle() -> None:
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    with_centre = np.concatenate([cross, np.zeros((1, 3))])
    assert centred_cosine(layer_view(with_centre))["centred_cosine"] == pytest.approx(by_definition(cross))


def test_undefined_cosines_are_missing() -> None:
    view = layer_view(np.eye(4))
    assert reasons(centred_cosine(dataclasses.replace(view, distances=None))) == {
        "the distances of the earlier sample are no longer kept"
    }
    flat = dataclasses.replace(view, distances=np.zeros(6, np.float32))
    assert reasons(centred_cosine(flat)) == {"fewer than two points, or than half of them, are away from the centroid"}


def test_hubness_is_the_skewness_of_the_in_degree() -> None:
    star = np.array([[1]] + [[0]] * 9, dtype=np.int32)
    assert in_degree_skewness(star) == pytest.approx(skew([9, 1, *[0] * 8]))
    view = layer_view(minilm_cloud(4, 100), k=5)
    degrees = np.bincount(view.neighbours.ravel(), minlength=100)
    assert hubness(view)["hubness"] == pytest.approx(skew(degrees))


def test_a_graph_in_which_all_are_listed_equally_often_has_no_hubness() -> None:
    ring = dataclasses.replace(layer_view(np.eye(5)), neighbours=np.roll(np.arange(5, dtype=np.int32), -1)[:, None])
    assert reasons(hubness(ring)) == {"every point is listed equally often"}


@pytest.mark.parametrize("times", [30, 3000, 1e5])
def test_far_points_take_no_angle_from_others(times: float) -> None:
    cloud = np.random.default_rng(3).standard_normal((60, 30))
    cloud[:2] = times * cloud[:1] * [[1], [-1]]  # balanced: the centroid stays among the others
    found = centred_cosine(layer_view(cloud))
    if times < 1e5:
        assert found["centred_cosine"] == pytest.approx(by_definition(cloud), abs=2e-3)
    else:  # the mean square of their distances to these two is rounded by more than they are apart
        assert reasons(found) == {"fewer than two points, or than half of them, are away from the centroid"}
