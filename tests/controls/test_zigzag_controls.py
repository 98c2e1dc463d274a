"""Subsets are disjoint, and a sweep over k is many zigzags."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.controls.variations import (
    disjoint_subsets,
    subset_descriptors,
    sweep_of_neighbours,
)
from topo_callback.homology.descriptors import mean_similarity
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence


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
    with pytest.raises(ValueError, match=r"neighbours for k of \[2, 6\]; each point lists 5"):
        sweep_of_neighbours(stages_of(drifting, 5), [2, 6], mean_similarity)
    scores = sweep_of_neighbours(stages_of(drifting, 5), [2, 5, 3], mean_similarity)
    for k, score in zip([2, 5, 3], scores, strict=True):
        np.testing.assert_array_equal(score, mean_similarity(zigzag_persistence(stages_of(drifting, k)), 6))
