"""Linear CKA from distances equals that of the points; the debiased one equals its definition over quadruples."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import numpy as np
import pytest
from layer_views import defined, layer_view, reasons, rotated
from real_data import minilm_cloud
from scipy.spatial.distance import pdist

from topo_callback.measures.cka import cka, debiased_cka


def squared(cloud: np.ndarray) -> np.ndarray:
    return pdist(cloud) ** 2


def of_points(first: np.ndarray, second: np.ndarray) -> float:
    """Kornblith et al., equation 3: |Y^T X|^2 / (|X^T X| |Y^T Y|), Frobenius."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    norm = np.linalg.norm
    return float(norm(second.T @ first) ** 2 / (norm(first.T @ first) * norm(second.T @ second)))


def over_quadruples(first: np.ndarray, second: np.ndarray) -> float:
    """HSIC as a mean over different i, j, q, r of K_ij (L_ij + L_qr - 2 L_iq): unbiased term by term."""
    one, other = first @ first.T, second @ second.T
    terms = [
        one[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in permutations(range(len(first)), 4)
    ]
    return float(np.mean(terms))


def test_biased_cka_is_that_of_the_points() -> None:
    first, second = minilm_cloud(2, 90), minilm_cloud(6, 90)
    numbers = cka(layer_view(first), layer_view(second))
    assert numbers["cka_biased"] == pytest.approx(of_points(first, second), rel=1e-5)


def test_debiased_cka_is_its_definition() -> None:
    generator = np.random.default_rng(0)
    first = generator.standard_normal((7, 3)) + 1
    second = first[:, :2] + 0.5 * generator.standard_normal((7, 2))
    expected = over_quadruples(first, second) / np.sqrt(over_quadruples(first, first) * over_quadruples(second, second))
    assert debiased_cka(squared(first), squared(second)) == pytest.approx(expected, rel=1e-9)


def test_scale_rotation_and_shift_change_nothing() -> None:
    cloud = minilm_cloud(4, 80)
    assert cka(layer_view(cloud), layer_view(rotated(9 * cloud, 400))) == pytest.approx(
        {"cka": 1.0, "cka_biased": 1.0}, abs=1e-6
    )


def test_unrelated_wide_clouds_look_alike_only_to_the_biased_one() -> None:
    generator = np.random.default_rng(1)
    numbers = cka(*(layer_view(generator.standard_normal((60, 500))) for _ in range(2)))
    assert numbers["cka_biased"] > 0.8
    assert abs(numbers["cka"]) < 0.05


def test_cosine_is_that_of_the_normalised_points() -> None:
    clouds = [minilm_cloud(layer, 60) for layer in (2, 6)]
    units = [cloud / np.linalg.norm(cloud, axis=1, keepdims=True) for cloud in clouds]
    found = cka(*(layer_view(cloud, "cosine") for cloud in clouds))
    assert found == pytest.approx(cka(*(layer_view(unit) for unit in units)), rel=1e-4)


def test_undefined_alignments_are_missing() -> None:
    view = layer_view(np.random.default_rng(2).standard_normal((3, 2)))
    assert set(defined(cka(view, view))) == {"cka_biased"}  # the debiased one needs four points
    simplex = layer_view(np.eye(8))
    # equal distances: nothing left but the bias
    assert defined(cka(simplex, simplex)) == pytest.approx({"cka_biased": 1.0})
    assert simplex.distances is not None
    rounded = simplex.distances.copy()
    rounded[::3] = np.nextafter(rounded[::3], np.float32(2))  # equal up to rounding
    assert set(defined(cka(simplex, dataclasses.replace(simplex, distances=rounded)))) == {"cka_biased"}
    both = dataclasses.replace(simplex, distances=rounded)
    assert set(defined(cka(both, both))) == {"cka_biased"}
    assert reasons(cka(view, dataclasses.replace(view, distances=None))) == {
        "the distances of the earlier sample are no longer kept"
    }
    flat = cka(view, dataclasses.replace(view, distances=np.zeros(3, np.float32)))
    assert "all points of a cloud are equal" in reasons(flat)


def test_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="got 5 and 6 points"):
        debiased_cka(squared(np.eye(5)), squared(np.eye(6)))
