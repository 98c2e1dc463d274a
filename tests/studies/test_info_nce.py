"""InfoNCE: closed forms, bounds, invariances, and a reference in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from studies.readings import context, reading, rotated

from topo_callback.measures.missing import Missing
from topo_callback.studies.augmented_views import NO_DIRECTION, info_nce, info_nce_of


def value(first: np.ndarray, second: np.ndarray) -> float:
    found = info_nce_of(torch.from_numpy(first), torch.from_numpy(second))
    assert isinstance(found, float)
    return found


def simplex(points: int) -> np.ndarray:
    """Points with equal distances from each other: cosines of -1 / (points - 1) as seen from their mean."""
    return np.eye(points)


@pytest.mark.parametrize("points", [2, 5, 64])
def test_identical_views_of_a_simplex_give_the_closed_form(points: int) -> None:
    other = math.exp((-1 / (points - 1) - 1) / 0.1)
    expected = math.log(points) - math.log1p((points - 1) * other)
    assert value(simplex(points), simplex(points)) == pytest.approx(expected, rel=1e-12)
    assert expected < math.log(points)


def test_identical_views_reach_log_n_where_prompts_are_far_apart() -> None:
    cloud = np.random.default_rng(0).normal(size=(40, 4000))
    assert value(cloud, cloud) == pytest.approx(math.log(40), abs=0.003)


def test_two_groups_that_views_tell_apart_give_log_2() -> None:
    """Ten prompts at each of two opposite points: of twenty, ten fit equally well."""
    cloud = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 10, axis=0)
    assert value(cloud, cloud) == pytest.approx(math.log(2) - math.log1p(math.exp(-20)), rel=1e-12)


def test_unrelated_views_say_nothing_and_exchanged_ones_less() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(2, 200, 3000))
    assert abs(value(first, second)) < 0.05
    expected = math.log(200) - math.log(math.exp(10) + 199)
    assert value(first, np.roll(first, 1, axis=0)) == pytest.approx(expected, abs=0.1)


def test_it_is_the_cross_entropy_of_both_directions() -> None:
    generator = np.random.default_rng(2)
    first = generator.normal(size=(30, 6)) + 3
    second = first + 0.4 * generator.normal(size=first.shape)
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
    a, b = ((each - middle) / np.linalg.norm(each - middle, axis=1, keepdims=True) for each in (first, second))
    logits = a @ b.T / 0.1
    losses = [-np.diag(table - np.log(np.exp(table).sum(axis=1, keepdims=True))).mean() for table in (logits, logits.T)]
    assert value(first, second) == pytest.approx(math.log(30) - np.mean(losses), rel=1e-12)
    assert value(second, first) == pytest.approx(value(first, second), rel=1e-12)


def test_shift_rotation_and_scale_change_nothing() -> None:
    generator = np.random.default_rng(3)
    views = generator.normal(size=(1, 25, 8)) + 0.2 * generator.normal(size=(2, 25, 8))
    moved = rotated(views)
    assert value(moved[0], moved[1]) == pytest.approx(value(views[0], views[1]), rel=1e-10)


def test_one_point_repeated_has_no_direction() -> None:
    cloud = np.full((6, 4), 0.1)
    assert info_nce_of(torch.from_numpy(cloud), torch.from_numpy(cloud)) == Missing(NO_DIRECTION)
    views = reading(np.stack([cloud, np.eye(6)[:, :4]]))
    found = info_nce(context(6, layers=(0, 3)), views, (views, views))
    assert found["info_nce"][0] == found["info_nce_share"][0] == Missing(NO_DIRECTION)


def test_every_layer_has_its_number_and_its_share() -> None:
    clouds = np.stack([np.eye(6), 3 * np.eye(6) + 1])
    views = reading(clouds)
    found = info_nce(context(6, layers=(2, 4)), views, (views, views))
    expected = math.log(6) - math.log1p(5 * math.exp(-12))
    for layer in (2, 4):
        assert found["info_nce"][layer] == pytest.approx(expected, rel=1e-6)
        assert found["info_nce_share"][layer] == pytest.approx(expected / math.log(6), rel=1e-6)
