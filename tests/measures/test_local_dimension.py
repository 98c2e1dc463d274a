"""Local TwoNN: scikit-dimension's pointwise fit where it is installed, a reference, clouds of known dimension."""

from __future__ import annotations

import numpy as np
import pytest
from layer_views import defined, layer_view, reasons, rotated
from real_data import minilm_cloud
from scipy.spatial.distance import pdist, squareform

from topo_callback.measures.intrinsic_dimension import log_ratios, two_nn
from topo_callback.measures.local_dimension import NEIGHBOURHOOD, local_intrinsic_dimension, local_two_nn


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
