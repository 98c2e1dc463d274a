"""Affinity of all pairs of layers is mutual kNN; its diagonal structure is found where there is one, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from real_data import minilm_neighbours

from topo_callback.measures.neighbours import mutual_knn
from topo_callback.scan.affinity import (
    affinity_matrix,
    diagonal_summary,
    diagonal_test,
    relative_depth_difference,
)


def random_neighbours(layers: int, points: int, k: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    others = np.array([[j for j in range(points) if j != i] for i in range(points)])
    chosen = generator.permuted(np.tile(others, (layers, 1, 1)), axis=2)[:, :, :k]
    return np.ascontiguousarray(chosen, dtype=np.int32)


def test_every_entry_is_the_mutual_knn_of_two_layers() -> None:
    first, second = random_neighbours(4, 25, 5, 0), random_neighbours(3, 25, 5, 1)
    second[2] = first[1]
    expected = [[mutual_knn(one, other) for other in second] for one in first]
    np.testing.assert_allclose(affinity_matrix(first, second), expected)
    assert affinity_matrix(first, second)[1, 2] == 1


def test_by_chance_it_is_k_over_the_others() -> None:
    found = affinity_matrix(random_neighbours(8, 60, 6, 2), random_neighbours(8, 60, 6, 3))
    assert found.mean() == pytest.approx(6 / 59, abs=0.005)


def test_a_real_model_agrees_with_itself_most_at_equal_depth() -> None:
    neighbours = minilm_neighbours()
    affinity = affinity_matrix(neighbours, neighbours)
    np.testing.assert_allclose(np.diagonal(affinity), 1)
    np.testing.assert_allclose(affinity, affinity.T)
    summary = diagonal_summary(affinity)
    assert summary["near"] == pytest.approx(1)
    assert 5 / 995 < summary["far"] < 0.9
    test = diagonal_test(affinity, permutations=999)
    assert test.p_value < 0.01
    assert test.statistic == pytest.approx(1)
    assert test.expected < 0.9


def test_corresponding_depths_are_found_in_models_of_different_depth() -> None:
    difference = relative_depth_difference(13, 9)
    affinity = 0.4 - 0.2 * difference + 0.01 * np.random.default_rng(4).random((13, 9))
    assert diagonal_test(affinity).p_value < 0.01
    assert diagonal_test(affinity[:, ::-1].copy()).p_value > 0.9


def test_without_structure_p_is_uniform() -> None:
    generator = np.random.default_rng(5)
    p_values = [diagonal_test(generator.random((6, 6)), permutations=199, seed=seed).p_value for seed in range(200)]
    assert 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.10
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_equal_affinities_have_no_structure_and_a_seed_gives_one_answer() -> None:
    assert diagonal_test(np.full((5, 5), 0.3)).p_value == 1
    affinity = np.random.default_rng(6).random((5, 7))
    assert diagonal_test(affinity, seed=3) == diagonal_test(affinity, seed=3)


def test_a_range_without_pairs_has_no_mean() -> None:
    assert diagonal_summary(np.array([[0.5]])) == {"near": 0.5}
    assert set(diagonal_summary(np.full((2, 3), 0.5))) == {"near", "far"}


def test_what_cannot_be_compared_is_refused() -> None:
    found = random_neighbours(2, 10, 3, 7)
    with pytest.raises(ValueError, match="equal points and k"):
        affinity_matrix(found, found[:, :, :2])
    with pytest.raises(ValueError, match="no neighbours"):
        affinity_matrix(found, np.full_like(found, -1))
    with pytest.raises(ValueError, match="at least 2 layers"):
        diagonal_test(np.ones((1, 4)))
