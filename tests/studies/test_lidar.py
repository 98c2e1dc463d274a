"""LiDAR: closed forms, bounds, invariances, and a reference in NumPy, in both ways of computing it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from studies.readings import context, reading, rotated

from topo_callback.measures.missing import Missing
from topo_callback.studies.augmented_views import NO_DIRECTION, lidar, lidar_of


def value(views: np.ndarray) -> float:
    found = lidar_of(torch.from_numpy(views))
    assert isinstance(found, float)
    return found


def reference(views: np.ndarray) -> float:
    """Equations 1 to 4 of arXiv 2312.04000, [width, width] matrices and all, of points of length 1."""
    centred = views - views.mean(axis=(0, 1))
    unit = centred / np.linalg.norm(centred, axis=2, keepdims=True)
    means = unit.mean(axis=0)
    apart = means - means.mean(axis=0)
    between = apart.T @ apart / len(means)
    rest = (unit - means).reshape(-1, views.shape[2])
    within = rest.T @ rest / len(rest) + 1e-4 * np.eye(views.shape[2])
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    shares = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    shares = shares[shares > 0] / shares.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


@pytest.mark.parametrize("width", [5, 40, 200])  # below, between and above what 4 views of 20 prompts span
def test_it_is_the_definition(width: int) -> None:
    generator = np.random.default_rng(width)
    prompts = generator.normal(size=(1, 20, width)) * np.linspace(0.2, 2, width) + 1
    views = prompts + 0.3 * generator.normal(size=(4, 20, width))
    assert value(views) == pytest.approx(reference(views), rel=1e-8)


@pytest.mark.parametrize(("points", "width"), [(5, 5), (5, 100), (12, 12)])
def test_equal_views_of_a_simplex_count_all_its_directions(points: int, width: int) -> None:
    cloud = np.eye(points, width)
    assert value(np.stack([cloud] * 3)) == pytest.approx(points - 1, rel=1e-9)


def test_two_prompts_differ_in_one_direction() -> None:
    assert value(np.random.default_rng(0).normal(size=(4, 2, 6))) == pytest.approx(1, rel=1e-9)


def test_a_direction_that_views_blur_does_not_count() -> None:
    """Prompts in a plane: where one of its directions changes with the view, the other is left."""
    generator = np.random.default_rng(1)
    prompts = np.zeros((1, 60, 30))
    prompts[0, :, :2] = generator.normal(size=(60, 2))
    clear = prompts + 0.001 * generator.normal(size=(8, 60, 30))
    blurred = clear.copy()
    blurred[:, :, 1] += 2 * generator.normal(size=(8, 60))
    assert value(clear) > 1.9
    assert value(blurred) < 1.5


def test_it_is_at_least_1_and_at_most_the_rank() -> None:
    generator = np.random.default_rng(2)
    for points, width in ((10, 3), (4, 50)):
        assert 1 <= value(generator.normal(size=(5, points, width))) <= min(points - 1, width)


def test_shift_rotation_and_scale_change_nothing() -> None:
    generator = np.random.default_rng(3)
    for width in (6, 90):
        views = generator.normal(size=(1, 15, width)) + 0.2 * generator.normal(size=(4, 15, width))
        assert value(rotated(views)) == pytest.approx(value(views), rel=1e-7)


def test_what_has_no_direction_or_no_difference_is_missing() -> None:
    assert lidar_of(torch.full((3, 6, 4), 0.1, dtype=torch.float64)) == Missing(NO_DIRECTION)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    assert lidar_of(signs * torch.ones(2, 6, 4, dtype=torch.float64)) == Missing("the prompts do not differ")


def test_every_layer_has_its_number() -> None:
    clouds = np.stack([np.eye(6), np.repeat(np.eye(3, 6), 2, axis=0)])
    views = reading(clouds)
    found = lidar(context(6, layers=(2, 4)), views, (views,) * 3)
    assert found["lidar"][2] == pytest.approx(5, rel=1e-6)
    assert found["lidar"][4] == pytest.approx(2, rel=1e-6)
