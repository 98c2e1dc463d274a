"""Controls for zigzags: what is random comes from the seed, and what must not change does not."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.homology.neighbour_graphs import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.persistence_similarity import mean_similarity, stage_survival
from topo_callback.measures.zigzag_controls import (
    disjoint_subsets,
    gaussian_distances,
    neighbour_sweep,
    shuffled_stages,
    subset_descriptors,
    two_stage_survival,
)


def distances_of(cloud):
    return np.sqrt(np.maximum(((cloud[:, None] - cloud[None]) ** 2).sum(-1), 0))


@pytest.fixture(scope="module")
def drifting():
    """Distances of six stages of a slowly moving cloud of 60 points in the plane."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal((60, 2))
    return np.stack([distances_of(start + step * 0.015 * generator.standard_normal((60, 2))) for step in range(6)])


def stages_of(distances, k=4):
    return np.stack([nearest_neighbours(stage, k) for stage in distances])


def test_two_stage_survival_is_the_share_that_the_first_and_last_stage_have_in_common(drifting):
    stages = stages_of(drifting)
    survival = two_stage_survival(stages[0], stages[5])
    assert 0 < survival < 1
    assert two_stage_survival(stages[0], stages[0]) == 1
    # Stages in between can only lose features, so the full zigzag depends on how densely time is sampled.
    dense = stage_survival(zigzag_persistence(stages), 6)[5]
    assert dense < survival


def test_shuffling_keeps_the_stages_and_follows_the_seed(drifting):
    stages = stages_of(drifting)
    shuffled, order = shuffled_stages(stages, seed=1)
    assert sorted(order.tolist()) == list(range(6))
    assert shuffled.tolist() == stages[order].tolist()
    assert order.tolist() == shuffled_stages(stages, seed=1)[1].tolist()
    assert order.tolist() != shuffled_stages(stages, seed=2)[1].tolist()


def test_subsets_are_disjoint(drifting):
    subsets = disjoint_subsets(60, 3, 20, seed=0)
    assert sorted(subsets.reshape(-1).tolist()) == list(range(60))
    with pytest.raises(ValueError, match="60 points do not hold 4 disjoint subsets of 16"):
        disjoint_subsets(60, 4, 16, seed=0)
    scores = subset_descriptors(drifting, subsets, 3, mean_similarity)
    assert scores.shape == (3, 6)
    own = zigzag_persistence(stages_of(drifting[:, subsets[1]][:, :, subsets[1]], 3))
    np.testing.assert_array_equal(scores[1], mean_similarity(own, 6))


def test_sweep_over_k_equals_single_zigzags(drifting):
    scores = neighbour_sweep(drifting, [2, 5, 3], mean_similarity)
    for k, score in zip([2, 5, 3], scores, strict=True):
        np.testing.assert_array_equal(score, mean_similarity(zigzag_persistence(stages_of(drifting, k)), 6))


def test_gaussian_clouds_have_the_covariance_of_the_given_ones():
    generator = np.random.default_rng(0)
    # A far from Gaussian cloud: two tight clusters, stretched; and the same one turned by a right angle.
    cloud = np.sign(generator.standard_normal((400, 1))) * [3.0, 0.0] + 0.2 * generator.standard_normal((400, 2))
    turned = cloud[:, ::-1] * [1, -1]
    surrogate = gaussian_distances(np.stack([distances_of(cloud), distances_of(turned)]), seed=3)
    # The mean squared distance of a cloud is twice its total variance.
    assert (surrogate[0] ** 2).mean() == pytest.approx((distances_of(cloud) ** 2).mean(), rel=0.15)
    # A rotation leaves distances alone, and both stages are drawn with the same random numbers.
    np.testing.assert_allclose(surrogate[0], surrogate[1], atol=1e-5)
    assert np.diagonal(surrogate, axis1=1, axis2=2).max() == 0
    # The gap between the clusters is gone.
    gap = np.sort(distances_of(cloud)[0])
    assert np.diff(gap).max() > 3
    assert np.diff(np.sort(surrogate[0, 0])).max() < 1.5
