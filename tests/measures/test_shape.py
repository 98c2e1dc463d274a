"""How large a cloud is, and the angles as seen from its centroid, against its coordinates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import layer_view, reasons
from real_data import minilm_cloud
from scipy.spatial.distance import pdist

from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.shape import centred_cosine, scale


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_total_variance_is_that_of_the_points_that_the_metric_sees(metric: str) -> None:
    cloud = np.random.default_rng(0).standard_normal((50, 8)) + 1.5
    points = cloud - cloud.mean(axis=1, keepdims=True) if metric == "correlation" else cloud
    if metric != "euclidean":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    view = layer_view(cloud, metric)
    found = scale(view)
    assert view.distances is not None
    assert found["total_variance"] == pytest.approx(points.var(axis=0).sum(), rel=1e-5)
    assert found["total_variance"] == pytest.approx(np.trace(gram_matrix(view.distances, metric)) / 50, rel=1e-5)
    assert found["diameter"] == pytest.approx(pdist(cloud, metric).max(), rel=1e-5)


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


@pytest.mark.parametrize("times", [30, 3000, 1e5])
def test_far_points_take_no_angle_from_others(times: float) -> None:
    cloud = np.random.default_rng(3).standard_normal((60, 30))
    cloud[:2] = times * cloud[:1] * [[1], [-1]]  # balanced: the centroid stays among the others
    found = centred_cosine(layer_view(cloud))
    if times < 1e5:
        assert found["centred_cosine"] == pytest.approx(by_definition(cloud), abs=2e-3)
    else:  # the mean square of their distances to these two is rounded by more than they are apart
        assert reasons(found) == {"fewer than two points, or than half of them, are away from the centroid"}
