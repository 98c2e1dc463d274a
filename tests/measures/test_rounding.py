"""One rule for what is rounding among nearest neighbours: in a layer, in a neighbourhood and in a prompt's tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from layer_views import defined, layer_view

from topo_callback.capture.tokens import token_numbers
from topo_callback.geometry import point_norms
from topo_callback.measures.intrinsic_dimension import intrinsic_dimension, local_intrinsic_dimension
from topo_callback.measures.missing import Missing

NAMES = ("two_nn", "two_nn_ml", "gride_2", "gride_4", "local_two_nn", "token_two_nn")


def dimensions(cloud: np.ndarray, metric: str = "euclidean", norms: bool = True) -> dict[str, float]:
    """All intrinsic dimensions of a float32 cloud, its points taken for a prompt's tokens too."""
    points = torch.from_numpy(cloud)
    view = layer_view(cloud.astype(np.float64), metric)
    if norms:
        view = dataclasses.replace(view, norms=point_norms(points, metric=metric).numpy())
    found = {**intrinsic_dimension(view), **local_intrinsic_dimension(view)}
    found["token_two_nn"] = float(token_numbers(points[None], torch.tensor([len(cloud)]), ["token_two_nn"])[0, 0])
    return {name: found[name] for name in NAMES if not isinstance(found[name], Missing)}


def gaussian(shift: float = 4.0, points: int = 160) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((points, 32)) + shift).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 4.0, 400.0])
def test_points_equal_up_to_the_last_bit_are_equal(shift: float) -> None:
    exact, nearly = gaussian(shift), gaussian(shift)
    exact[:10] = exact[10:20]
    nearly[:10] = np.nextafter(nearly[10:20], np.float32(1e9))
    assert (exact != nearly).any()
    found = dimensions(nearly)
    assert set(found) == set(NAMES)
    assert found == pytest.approx(dimensions(exact), rel=1e-3)


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_so_are_points_of_equal_direction(metric: str) -> None:
    exact, nearly = gaussian(), gaussian()
    exact[:10] = exact[10:20]
    nearly[:10] = np.nextafter(nearly[10:20], np.float32(1e9))
    expected, found = dimensions(exact, metric), dimensions(nearly, metric)
    for name in NAMES[:-1]:
        assert found[name] == pytest.approx(expected[name], rel=1e-3)


def test_old_records_without_norms_are_judged_by_their_distances() -> None:
    exact, nearly = gaussian(), gaussian()
    exact[:10] = exact[10:20]
    nearly[:10] = np.nextafter(nearly[10:20], np.float32(1e9))
    nearly[50] *= exact[50] * 1000  # a point far away makes no other one coarser
    exact[50] *= exact[50] * 1000
    assert dimensions(nearly, norms=False) == pytest.approx(dimensions(exact, norms=False), rel=1e-3)


@pytest.mark.parametrize("radius", [1e-20, 1.0, 1e15])
def test_a_regular_polygon_has_no_dimension(radius: float) -> None:
    angles = np.arange(150) * 2 * np.pi / 150
    circle = (radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)
    found = dimensions(circle)
    assert not {"two_nn", "two_nn_ml", "local_two_nn"} & set(found)
    assert np.isnan(found["token_two_nn"])


def test_layer_and_tokens_agree_also_beside_a_far_point() -> None:
    cloud = gaussian(0.0)
    cloud[3] *= 1e4
    found = dimensions(cloud)
    assert found["token_two_nn"] == pytest.approx(found["two_nn_ml"], rel=1e-5)


def test_close_points_that_are_no_rounding_keep_their_ratio() -> None:
    cloud = 1e-3 * np.random.default_rng(1).random((200, 1)).astype(np.float32)
    cloud = np.concatenate([cloud, np.ones_like(cloud)], axis=1)  # spacing 5e-6 at norm 1
    found = defined(intrinsic_dimension(layer_view(cloud.astype(np.float64))))
    assert found["two_nn_ml"] == pytest.approx(1.0, rel=0.2)
