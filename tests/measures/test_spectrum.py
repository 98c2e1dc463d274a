"""The spectrum by closed forms, against the singular values of real clouds, and where it is undefined."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from layer_views import layer_view, reasons, rotated
from real_data import minilm_cloud
from scipy.spatial.distance import pdist

from topo_callback.measures import spectrum as module
from topo_callback.measures.missing import Missing
from topo_callback.measures.spectrum import layer_spectrum, matrix_entropy, spectral_decay, spectrum


def condensed(cloud: np.ndarray) -> np.ndarray:
    return pdist(cloud).astype(np.float32)


@pytest.mark.parametrize("directions", [1, 3, 20])
def test_equal_directions_are_counted(directions: int) -> None:
    cross = np.concatenate([np.eye(directions), -np.eye(directions)])
    numbers = layer_spectrum(layer_view(rotated(7 * cross, 25)))
    assert numbers["dataset_entropy"] == pytest.approx(math.log(directions), abs=1e-5)
    for name in ("effective_rank", "rankme", "participation_ratio"):
        assert numbers[name] == pytest.approx(directions, rel=1e-5)
    assert numbers["anisotropy"] == pytest.approx(1 / directions, rel=1e-5)


@pytest.mark.parametrize("outlier", [1.0, 1e3])
def test_a_plane_has_the_rank_of_the_plane_also_from_float32(outlier: float) -> None:
    cloud = np.random.default_rng(0).standard_normal((200, 5))
    cloud[0] *= outlier
    assert spectrum(condensed(rotated(cloud, 60))).size == 5


def test_real_eigenvalues_are_the_squared_singular_values() -> None:
    cloud = minilm_cloud(4)
    values = np.linalg.svd(cloud - cloud.mean(axis=0), compute_uv=False)[:139]
    found = spectrum(condensed(cloud))
    assert found.size == 139
    np.testing.assert_allclose(found, values**2, rtol=1e-4)
    share, root = values**2 / (values**2).sum(), values / values.sum()
    numbers = layer_spectrum(layer_view(cloud))
    assert numbers["effective_rank"] == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert numbers["rankme"] == pytest.approx(math.exp(-(root * np.log(root)).sum()), rel=1e-5)
    assert numbers["participation_ratio"] == pytest.approx(1 / (share**2).sum(), rel=1e-5)
    assert numbers["anisotropy"] == pytest.approx(share[0], rel=1e-5)
    assert 1 < numbers["participation_ratio"] < numbers["effective_rank"] < numbers["rankme"] < 139
    assert numbers["dataset_entropy"] <= math.log(139)


def test_an_isotropic_gaussian_has_the_participation_ratio_of_random_matrices() -> None:
    cloud = np.random.default_rng(1).standard_normal((400, 100))
    # 1 / width + 1 / points: the moments of the Marchenko-Pastur law
    assert layer_spectrum(layer_view(cloud))["participation_ratio"] == pytest.approx(1 / (1 / 100 + 1 / 400), rel=0.02)


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_a_power_law_is_found(decay: float) -> None:
    generator = np.random.default_rng(2)
    noise = generator.standard_normal((150, 120))
    directions = np.linalg.qr(noise - noise.mean(axis=0))[0]
    cloud = directions * np.arange(1, 121) ** (-decay / 2)
    assert layer_spectrum(layer_view(cloud))["spectral_decay"] == pytest.approx(decay, rel=1e-3)


def test_the_decay_needs_forty_eigenvalues_and_looks_no_further_than_half_of_them() -> None:
    law = np.arange(1.0, 101) ** -1.5
    assert spectral_decay(law[:39]) is None
    assert spectral_decay(law[:40]) == pytest.approx(1.5)
    bent = law.copy()
    bent[50:] *= 1e-3
    assert spectral_decay(bent) == pytest.approx(1.5)


def test_entropies_fall_with_their_order() -> None:
    values = np.random.default_rng(3).random(30)
    orders = [0.0, 0.5, 1.0, 1.0 + 1e-6, 2.0, 5.0, math.inf]
    found = [matrix_entropy(values, alpha) for alpha in orders]
    assert found[0] == pytest.approx(math.log(30))
    assert found[2] == pytest.approx(found[3], abs=1e-5)
    assert found[-1] == pytest.approx(-math.log(values.max() / values.sum()))
    assert all(one > other for one, other in pairwise(found))


@pytest.mark.parametrize(("values", "alpha"), [([1.0, 0.5], -1.0), ([1.0], math.nan), ([], 1.0), ([1.0, 0.0], 1.0)])
def test_entropies_that_are_undefined_are_refused(values: list[float], alpha: float) -> None:
    with pytest.raises(ValueError, match=r"order of an entropy|positive eigenvalues"):
        matrix_entropy(np.array(values, dtype=np.float64), alpha)


def test_scale_and_rotation_change_nothing() -> None:
    cloud = minilm_cloud(6, 100)
    expected = layer_spectrum(layer_view(cloud))
    assert layer_spectrum(layer_view(rotated(300 * cloud, 400))) == pytest.approx(expected, rel=1e-4)


def test_cosine_distances_give_the_spectrum_of_the_normalised_points() -> None:
    cloud = minilm_cloud(2, 60)
    unit = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    expected = layer_spectrum(layer_view(unit))
    assert layer_spectrum(layer_view(cloud, "cosine")) == pytest.approx(expected, rel=1e-3)


def test_a_cloud_without_shape_or_distances_has_no_spectrum() -> None:
    view = layer_view(np.random.default_rng(4).standard_normal((6, 3)))
    assert reasons(layer_spectrum(dataclasses.replace(view, distances=None))) == {
        "the distances of the earlier sample are no longer kept"
    }
    flat = layer_spectrum(dataclasses.replace(view, distances=np.zeros(15, np.float32)))
    assert reasons(flat) == {"all points are equal up to rounding"}


def test_of_very_many_points_some_evenly_spaced_ones_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = np.random.default_rng(5).standard_normal((31, 4))
    monkeypatch.setattr(module, "MOST_POINTS", 11)
    np.testing.assert_allclose(spectrum(condensed(cloud)), spectrum(condensed(cloud[::3])), rtol=1e-12)


def far_clouds() -> dict[str, np.ndarray]:
    """Clouds in which distances of very different size meet, by what is far; float32, as models give them."""
    generator = np.random.default_rng(11)
    wide = generator.standard_normal((120, 200)) * np.arange(1, 201) ** -0.4
    flat = generator.standard_normal((90, 12))
    clouds = {}
    for name, cloud in (("wide", wide), ("flat", flat)):
        for times in (30, 300, 1000, 10_000):
            clouds[f"{name}, one {times} times as long"] = np.concatenate([times * cloud[:1], cloud[1:]])
        clouds[f"{name}, two opposite"] = np.concatenate([30 * cloud[:1], -30 * cloud[:1], cloud[2:]])
        clouds[f"{name}, three of different size"] = (
            cloud * np.array([1e2, -1e3, 1e4] + [1] * (len(cloud) - 3))[:, None]
        )
        clouds[f"{name}, far from the origin"] = cloud + 100
    return {name: cloud.astype(np.float32) for name, cloud in clouds.items()}


@pytest.mark.parametrize("name", far_clouds())
def test_the_tail_is_that_of_the_cloud_in_float64_also_beside_points_far_away(name: str) -> None:
    cloud = far_clouds()[name].astype(np.float64)
    rank = min(len(cloud) - 1, cloud.shape[1])
    roots = np.linalg.svd(cloud - cloud.mean(axis=0), compute_uv=False)[:rank]
    view = layer_view(cloud)
    assert view.distances is not None
    found = spectrum(view.distances)
    assert found.size == rank
    np.testing.assert_allclose(found, roots**2, rtol=0.02)
    numbers = layer_spectrum(view)
    share, root = roots**2 / (roots**2).sum(), roots / roots.sum()
    assert numbers["effective_rank"] == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)
    assert numbers["participation_ratio"] == pytest.approx(1 / (share**2).sum(), rel=1e-4)
    assert numbers["anisotropy"] == pytest.approx(share[0], rel=1e-4)
    if rank == len(cloud) - 1 or not isinstance(numbers["rankme"], Missing):
        assert numbers["rankme"] == pytest.approx(math.exp(-(root * np.log(root)).sum()), rel=1e-3)
    if rank >= 40:
        assert numbers["spectral_decay"] == pytest.approx(spectral_decay(roots**2), rel=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_no_direction_is_made_of_rounding(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points, width = int(generator.integers(6, 150)), int(generator.integers(1, 5))
    cloud = generator.standard_normal((points, width))
    cloud[: generator.integers(0, 4)] *= 10.0 ** generator.integers(0, 7)
    cloud[points // 2 :] += generator.choice([0.0, 1e3])
    assert spectrum(condensed(rotated(cloud, 12))).size <= width


def test_numbers_that_rounding_decides_are_missing() -> None:
    cloud = np.random.default_rng(1).standard_normal((100, 300))
    cloud[0] *= 1e6
    numbers = layer_spectrum(layer_view(cloud))
    hidden = Missing("the distances, in float32, do not resolve the small eigenvalues beside the large ones")
    assert numbers["rankme"] == numbers["spectral_decay"] == hidden
    assert numbers["participation_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_neither_very_small_nor_very_large_clouds_lose_their_spectrum(scale: float) -> None:
    cloud = np.random.default_rng(6).standard_normal((50, 60))
    assert layer_spectrum(layer_view(scale * cloud)) == pytest.approx(layer_spectrum(layer_view(cloud)), rel=1e-4)


@pytest.mark.parametrize("kind", ["plain", "outlier", "large coordinate", "low rank", "duplicates", "steep"])
def test_what_needs_no_vectors_is_what_the_vectors_say(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    spectra = []
    for points, width in ((12, 40), (60, 90), (60, 61), (60, 59)):
        cloud = generator.standard_normal((points, 8 if kind == "low rank" else width))
        if kind == "outlier":
            cloud[0] *= 1e4
        elif kind == "large coordinate":
            cloud[:, 0] *= 1e3
        elif kind == "duplicates":
            cloud[1] = cloud[2]
        elif kind == "steep":
            cloud *= np.exp(-8 * np.arange(width) / width)
        spectra.append((condensed(cloud), module.resolved_spectrum(condensed(cloud))))
    # never sure, so always by the vectors
    monkeypatch.setattr(module._Rounding, "most", lambda rounding, points: math.inf)
    for distances, quick in spectra:
        slow = module.resolved_spectrum(distances)
        np.testing.assert_allclose(quick.values, slow.values, rtol=0, atol=1e-12 * slow.values[0])
        assert quick.hidden == slow.hidden
        assert quick.hidden_sum >= slow.hidden_sum * (1 - 1e-6)
        if quick.hidden_sum > slow.hidden_sum * (1 + 1e-6):  # bounded without vectors, where it does not count
            assert math.sqrt(quick.hidden * quick.hidden_sum) <= 1e-3 * float(np.sqrt(quick.values).sum())
    if kind in ("plain", "large coordinate", "duplicates"):
        assert spectra[1][1].hidden == (kind == "duplicates")
