"""Gaussian clouds of equal covariance: second moments are kept, everything else is gone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from topo_callback.measures import zigzags as gaussian
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.zigzags import gaussian_distances, gaussian_draws, gaussian_neighbours


def two_clusters(points: int = 400) -> np.ndarray:
    generator = np.random.default_rng(0)
    side = np.sign(generator.standard_normal((points, 1)))
    return side * [3.0, 0.0] + 0.2 * generator.standard_normal((points, 2))


def test_they_have_the_covariance_of_the_given_cloud_and_nothing_of_its_shape() -> None:
    cloud = two_clusters()
    surrogate = gaussian_distances(gram_matrix(pdist(cloud)), seed=3)
    # the mean squared distance of a cloud is twice its total variance
    assert (surrogate**2).mean() == pytest.approx((squareform(pdist(cloud)) ** 2).mean(), rel=0.15)
    assert np.diagonal(surrogate).max() == 0
    # the gap between the clusters is gone
    assert np.diff(np.sort(squareform(pdist(cloud))[0])).max() > 3
    assert np.diff(np.sort(surrogate[0])).max() < 1.5


def test_clouds_of_one_seed_move_together() -> None:
    cloud = two_clusters()
    turned = cloud[:, ::-1] * [1, -1]
    here, there = (gaussian_distances(gram_matrix(pdist(each)), seed=3) for each in (cloud, turned))
    # a rotation leaves the Gram matrix alone
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert not np.allclose(here, gaussian_distances(gram_matrix(pdist(cloud)), seed=4))


def test_the_joint_covariance_of_two_stages_is_kept() -> None:
    """Points that moved by a known linear map: the Gaussian points move by the same map."""
    first = two_clusters(300)
    later = first @ np.array([[0.6, 0.3], [-0.2, 1.1]])
    points = len(first)
    mixing = np.random.default_rng(9).standard_normal((points, points))  # the one of seed 9
    by_hand = [mixing @ (each - each.mean(axis=0)) / np.sqrt(points) for each in (first, later)]
    for each, drawn in zip((first, later), by_hand, strict=True):
        np.testing.assert_allclose(
            gaussian_distances(gram_matrix(pdist(each)), seed=9), squareform(pdist(drawn)), atol=1e-5
        )
    np.testing.assert_allclose(by_hand[1], by_hand[0] @ np.array([[0.6, 0.3], [-0.2, 1.1]]))


def test_neighbours_are_those_of_its_distances() -> None:
    gram = gram_matrix(pdist(two_clusters(50)))
    distances = gaussian_distances(gram, seed=1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(gaussian_neighbours(gram, 4, seed=1), np.argsort(distances, axis=1)[:, :4])


def test_draws_are_independent_and_the_first_is_that_of_the_seed() -> None:
    gram = gram_matrix(pdist(two_clusters(60)))
    draws = gaussian_draws(gram, 4, seed=7)
    assert draws.shape == (60, 16)
    np.testing.assert_array_equal(draws[:, :4], gaussian_neighbours(gram, 4, seed=7))
    parts = [draws[:, start : start + 4] for start in range(0, 16, 4)]
    chance = 4 / 59
    for one, other in combinations(parts, 2):
        shared = np.mean([np.intersect1d(mine, theirs).size / 4 for mine, theirs in zip(one, other, strict=True)])
        assert shared < 3 * chance
    np.testing.assert_array_equal(draws, gaussian_draws(gram, 4, seed=7))


def test_of_very_many_points_one_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "MOST_POINTS_DRAWN", 59)
    assert gaussian_draws(gram_matrix(pdist(two_clusters(60))), 4, seed=7).shape == (60, 4)
