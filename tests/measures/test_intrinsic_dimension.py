"""TwoNN, of the cloud and of neighbourhoods, and GRIDE: closed forms, known dimensions, the likelihood, peers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from layer_views import defined, layer_view, reasons, rotated
from real_data import minilm_cloud
from scipy.spatial.distance import pdist, squareform

from topo_callback.measures.intrinsic_dimension import (
    NEIGHBOURHOOD,
    gride,
    intrinsic_dimension,
    local_intrinsic_dimension,
    local_two_nn,
    log_ratios,
    two_nn,
    two_nn_ml,
)
from topo_callback.measures.missing import NOT_KEPT, Missing


def test_ratios_of_a_pareto_law_give_its_exponent_exactly() -> None:
    share = np.arange(1, 51) / 50
    ratios = np.append(-np.log1p(-share[:45]) / 7.5, np.full(5, 99.0))  # the top 10 percent are left out
    assert two_nn(np.random.default_rng(0).permutation(ratios)) == pytest.approx(7.5)


def test_maximum_likelihood_by_closed_form() -> None:
    assert two_nn_ml(np.array([0.1, 0.2, 0.3, 0.4])) == pytest.approx(3.0)


@pytest.mark.parametrize(("near", "far"), [(1, 2), (2, 4), (3, 7), (16, 32)])
def test_gride_is_where_the_likelihood_is_greatest(near: int, far: int) -> None:
    logs = np.random.default_rng(near).exponential(0.2 / near, 40) + 0.01

    def log_likelihood(dimension: float) -> float:
        bent = (far - near - 1) * np.log(np.expm1(dimension * logs)).sum()
        return float((logs.size - 1) * math.log(dimension) + bent - ((far - 1) * dimension + 1) * logs.sum())

    found = gride(logs, near, far)
    assert found is not None
    assert log_likelihood(found) > max(log_likelihood(0.999 * found), log_likelihood(1.001 * found))
    if far == 2:
        assert found == pytest.approx(two_nn_ml(logs))


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_a_cube_has_its_dimension_at_every_scale(dimension: int) -> None:
    cube = np.random.default_rng(0).random((700, dimension))
    numbers = intrinsic_dimension(layer_view(rotated(cube, 30)))
    assert set(numbers) == {"two_nn", "two_nn_ml", "gride_2", "gride_4", "gride_8", "gride_16"}
    for value in numbers.values():
        assert value == pytest.approx(dimension, rel=0.15)


def test_noise_is_seen_at_the_small_scale_only() -> None:
    generator = np.random.default_rng(1)
    line = np.zeros((600, 6))
    line[:, 0] = 600 * generator.random(600)
    numbers = intrinsic_dimension(layer_view(line + 0.7 * generator.standard_normal(line.shape)))
    assert numbers["two_nn"] > 1.5
    assert numbers["gride_16"] == pytest.approx(1, rel=0.15)


def test_real_ratios_are_those_of_sorted_float64_distances() -> None:
    cloud = minilm_cloud(4)
    rows = np.sort(squareform(pdist(cloud)), axis=1)
    for found, (near, far) in zip(
        log_ratios(pdist(cloud).astype(np.float32), ((1, 2), (8, 16))), ((1, 2), (8, 16)), strict=True
    ):
        np.testing.assert_allclose(found, np.log(rows[:, far] / rows[:, near]), atol=1e-6)


def test_they_agree_with_scikit_dimension() -> None:
    estimators = pytest.importorskip("skdim.id")
    cloud = minilm_cloud(6)
    numbers = intrinsic_dimension(layer_view(cloud))
    assert numbers["two_nn"] == pytest.approx(estimators.TwoNN().fit(cloud).dimension_, rel=1e-4)
    assert numbers["two_nn_ml"] == pytest.approx(estimators.GRIDE(n1=1).fit(cloud).dimension_, rel=1e-4)
    for scale in (2, 4, 8, 16):
        assert numbers[f"gride_{scale}"] == pytest.approx(estimators.GRIDE(n1=scale).fit(cloud).dimension_, rel=1e-4)


def test_scale_and_rotation_change_nothing_and_cosine_is_that_of_the_normalised_points() -> None:
    cloud = minilm_cloud(2, 100)
    expected = intrinsic_dimension(layer_view(cloud))
    assert intrinsic_dimension(layer_view(rotated(50 * cloud, 400))) == pytest.approx(expected, rel=1e-3)
    unit = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    expected = intrinsic_dimension(layer_view(unit))
    assert intrinsic_dimension(layer_view(cloud, "cosine")) == pytest.approx(expected, rel=1e-3)


def test_repeated_points_have_no_ratio() -> None:
    cloud = np.random.default_rng(2).random((30, 2))
    both = np.concatenate([cloud, cloud[:5]])
    (ratios,) = log_ratios(pdist(both).astype(np.float32), ((1, 2),))
    assert ratios.size == 25  # ten points have a twin


def test_undefined_dimensions_are_missing() -> None:
    view = layer_view(np.random.default_rng(3).random((4, 2)))
    assert set(defined(intrinsic_dimension(view))) == {"two_nn", "two_nn_ml"}  # no fourth neighbour for a wider scale
    assert intrinsic_dimension(view)["gride_2"] == Missing("4 points have no neighbour number 4")
    assert reasons(intrinsic_dimension(dataclasses.replace(view, distances=None))) == {NOT_KEPT}
    assert reasons(intrinsic_dimension(layer_view(np.array([[0.0], [1.0]])))) == {"fewer than 3 points"}
    assert not defined(intrinsic_dimension(layer_view(np.eye(5))))  # all ratios are 1
    assert not defined(intrinsic_dimension(dataclasses.replace(view, distances=np.zeros(6, np.float32))))


def by_hand(cloud: np.ndarray, neighbourhood: int) -> np.ndarray:
    """TwoNN of the coordinates of each neighbourhood."""
    distances = squareform(pdist(cloud))
    found = []
    for row in distances:
        near = cloud[np.argsort(row, kind="stable")[1 : neighbourhood + 1]]
        value = two_nn(log_ratios(pdist(near), ((1, 2),))[0])
        found.append(np.nan if value is None else value)
    return np.array(found)


def test_it_is_two_nn_of_every_neighbourhood() -> None:
    cloud = np.random.default_rng(0).standard_normal((60, 5))
    found = local_two_nn(squareform(pdist(cloud)), 20)
    np.testing.assert_allclose(found, by_hand(cloud, 20), rtol=1e-10)


def test_real_clouds_equal_the_reference() -> None:
    cloud = minilm_cloud(4)
    view = layer_view(cloud)
    expected = by_hand(cloud, NEIGHBOURHOOD)
    found = local_intrinsic_dimension(view)
    assert found["local_two_nn"] == pytest.approx(np.nanmean(expected), rel=1e-3)
    assert found["local_two_nn_std"] == pytest.approx(np.nanstd(expected), rel=1e-2)


def test_agreement_with_scikit_dimension() -> None:
    skdim = pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    cloud = np.random.default_rng(3).standard_normal((300, 4))
    expected = skdim.id.TwoNN().fit_pw(cloud, n_neighbors=100).dimension_pw_
    np.testing.assert_allclose(local_two_nn(squareform(pdist(cloud)), 100), expected, rtol=1e-6)


def test_a_sheet_and_a_line_differ_point_by_point() -> None:
    generator = np.random.default_rng(1)
    line, sheet = np.zeros((200, 3)), np.zeros((200, 3))
    line[:, 0] = 200 * generator.random(200)
    sheet[:, :2] = 14 * generator.random((200, 2))
    cloud = rotated(np.concatenate([line, sheet + 1e4]), 10)
    found = local_two_nn(squareform(pdist(cloud)), 128)
    # 128 points are few for one estimate, and neighbouring ones share most of them
    assert 0.9 < found[:200].mean() < 1.4
    assert 1.6 < found[200:].mean() < 2.6


def test_it_depends_on_neither_scale_nor_rotation() -> None:
    cloud = np.random.default_rng(2).standard_normal((150, 3))
    found = local_intrinsic_dimension(layer_view(cloud))
    assert local_intrinsic_dimension(layer_view(rotated(37 * cloud, 6))) == pytest.approx(found, rel=1e-4)


def test_undefined_dimensions_are_missing_with_the_reason() -> None:
    few = local_intrinsic_dimension(layer_view(np.random.default_rng(0).random((129, 2))))
    assert reasons(few) == {"neighbourhoods of 128 need 130 points, here are 129"}
    same = local_intrinsic_dimension(layer_view(np.eye(130)))  # all ratios are 1
    assert not defined(same)
    pairs = np.repeat(np.random.default_rng(0).standard_normal((70, 2)), 2, axis=0)  # every nearest one is at 0
    assert not defined(local_intrinsic_dimension(layer_view(pairs)))
