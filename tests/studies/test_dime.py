"""DiME: closed forms, bounds, invariances, and a reference in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from studies.readings import context, reading, rotated

from topo_callback.measures.missing import Missing
from topo_callback.probe.text_changes import Draws
from topo_callback.studies.augmented_views import NO_DIRECTION, PERMUTATIONS, dime, dime_of


def orders(points: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor([Draws(seed, number).order(points) for number in range(PERMUTATIONS)])


def value(first: np.ndarray, second: np.ndarray, given: torch.Tensor | None = None) -> float:
    found = dime_of(torch.from_numpy(first), torch.from_numpy(second), orders(len(first)) if given is None else given)
    assert isinstance(found, float)
    return found


def reference(first: np.ndarray, second: np.ndarray, permutations: np.ndarray) -> float:
    """The definition, written out."""

    def entropy(matrix: np.ndarray) -> float:
        shares = np.linalg.eigvalsh(matrix / np.trace(matrix))
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())

    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
    a, b = ((each - middle) / np.linalg.norm(each - middle, axis=1, keepdims=True) for each in (first, second))
    kernel, other = a @ a.T, b @ b.T
    mixed = []
    for order in permutations:
        matrix = np.zeros((len(order), len(order)))
        matrix[np.arange(len(order)), order] = 1
        mixed.append(entropy(kernel * (matrix @ other @ matrix.T)))
    return float(np.mean(mixed)) - entropy(kernel * other)


@pytest.mark.parametrize("groups", [3, 4, 8])
def test_equal_views_of_groups_have_a_closed_form(groups: int) -> None:
    """Groups at equal distances: cosines c = -1 / (G - 1). The permutation exchanges the group and the place in it, so
    that the permuted joint matrix is the Kronecker product of two equal ones, each with G - 1 equal eigenvalues."""
    cloud = np.repeat(np.eye(groups), groups, axis=0)
    crossed = torch.arange(groups * groups).reshape(groups, groups).T.reshape(1, -1)
    square = 1 / (groups - 1) ** 2
    shares = np.array([1 + (groups - 1) * square] + [1 - square] * (groups - 1)) / groups
    expected = 2 * math.log(groups - 1) + float((shares * np.log(shares)).sum())
    assert value(cloud, cloud, crossed) == pytest.approx(expected, abs=1e-12)


def test_many_groups_come_near_the_entropy_of_the_group() -> None:
    cloud = np.repeat(np.eye(12), 12, axis=0)
    crossed = torch.arange(144).reshape(12, 12).T.reshape(1, -1)
    assert value(cloud, cloud, crossed) == pytest.approx(math.log(12), rel=0.1)


def test_it_is_the_definition() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(20, 5)) + 2
    second = first + 0.5 * generator.normal(size=first.shape)
    given = orders(20)
    assert value(first, second) == pytest.approx(reference(first, second, given.numpy()), abs=1e-10)


def test_unrelated_views_share_nothing_and_no_views_more_than_log_n() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(2, 100, 10))
    assert abs(value(first, second)) < 0.05
    assert 0.3 < value(first, first) < math.log(100)


def test_orthogonal_prompts_leave_nothing_to_permute() -> None:
    cloud = np.random.default_rng(2).normal(size=(30, 20_000))
    assert abs(value(cloud, cloud)) < 0.01


def test_two_prompts_are_opposite_and_share_nothing() -> None:
    """Cosines of -1 become 1 in the joint matrix: clipping entries instead of eigenvalues would give another number."""
    assert value(np.eye(2), np.eye(2)) == pytest.approx(0, abs=1e-12)


def test_shift_rotation_and_scale_change_nothing() -> None:
    generator = np.random.default_rng(3)
    views = generator.normal(size=(1, 25, 8)) + 0.2 * generator.normal(size=(2, 25, 8))
    moved = rotated(views)
    assert value(moved[0], moved[1]) == pytest.approx(value(views[0], views[1]), rel=1e-9)


def test_the_study_draws_the_same_permutations_at_every_layer_and_time() -> None:
    cloud = np.random.default_rng(4).normal(size=(15, 4))
    views = reading(np.stack([cloud, cloud]))
    found = dime(context(15, layers=(1, 2)), views, (views, views))
    assert found["dime"][1] == found["dime"][2]
    assert found == dime(context(15, layers=(1, 2), step=9), views, (views, views))
    assert found != dime(context(15, layers=(1, 2), seed=1), views, (views, views))


def test_one_point_repeated_has_no_direction() -> None:
    cloud = torch.full((6, 4), 0.1, dtype=torch.float64)
    assert dime_of(cloud, cloud, orders(6)) == Missing(NO_DIRECTION)
