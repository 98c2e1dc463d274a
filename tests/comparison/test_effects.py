"""Effect sizes, distances and the map on cases with known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import energy_distance as energy_distance_of_numbers
from scipy.stats import mannwhitneyu

from topo_callback.comparison.effects import (
    cliffs_delta,
    curve_distances,
    effect_sizes,
    energy_distance,
    hedges_g,
    joint_distances,
    run_map,
)


def test_hedges_g_by_hand() -> None:
    # means 2 and 5, pooled standard deviation 1, 4 degrees of freedom: J = Gamma(2) / (sqrt(2) Gamma(1.5))
    correction = math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))
    assert float(hedges_g(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))) == pytest.approx(-3 * correction)


def test_hedges_g_is_unbiased_where_cohens_d_is_not() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(1.0, 1.0, (40_000, 4)), generator.normal(0.0, 1.0, (40_000, 4))
    assert hedges_g(first, second).mean() == pytest.approx(1.0, abs=0.02)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_cliffs_delta_is_the_u_statistic(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 6, 5).astype(float), generator.integers(0, 6, 7).astype(float)
    u = mannwhitneyu(first, second).statistic
    assert float(cliffs_delta(first, second)) == pytest.approx(2 * u / 35 - 1)


def test_an_effect_without_spread_is_missing_and_one_run_has_no_g() -> None:
    flat = effect_sizes(np.ones(3), np.zeros(3), paired=False, intervals=True)
    assert (flat.hedges_g, flat.cliffs_delta) == (None, 1.0)
    single = effect_sizes(np.ones(1), np.array([0.0, 3.0]), paired=False, intervals=True)
    assert (single.hedges_g, single.cliffs_delta) == (None, 0.0)


@pytest.mark.parametrize(("first", "second", "interval"), [(4, 5, False), (5, 4, False), (5, 5, True)])
def test_there_is_no_interval_below_five_seeds(first: int, second: int, interval: bool) -> None:
    generator = np.random.default_rng(0)
    found = effect_sizes(generator.normal(size=first), generator.normal(size=second), paired=False, intervals=True)
    assert (found.hedges_g_interval is not None) == interval
    assert (found.cliffs_delta_interval is not None) == interval


def test_intervals_hold_the_effect_and_repeat() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(1.0, 1.0, 12), generator.normal(0.0, 1.0, 12)
    found = effect_sizes(first, second, paired=False, intervals=True)
    assert found == effect_sizes(first, second, paired=False, intervals=True)
    assert found.hedges_g is not None
    assert found.hedges_g_interval is not None
    assert found.hedges_g_interval[0] < found.hedges_g < found.hedges_g_interval[1]


def test_paired_seeds_are_resampled_together() -> None:
    seeds = np.arange(8.0) * 10
    paired = effect_sizes(seeds + 1, seeds, paired=True, intervals=True)
    unpaired = effect_sizes(seeds + 1, seeds, paired=False, intervals=True)
    assert paired.hedges_g_interval is not None
    assert unpaired.hedges_g_interval is not None
    # the difference within every seed is 1, so g is positive in every paired resample
    assert paired.hedges_g_interval[0] > 0 > unpaired.hedges_g_interval[0]


def test_distances_are_root_mean_squares_over_the_points_with_numbers() -> None:
    found = curve_distances(np.array([[0.0, np.nan, 0.0], [3.0, np.nan, 4.0]]))
    assert found is not None
    assert found.tolist() == [[0, pytest.approx(math.sqrt(12.5))], [pytest.approx(math.sqrt(12.5)), 0]]
    assert curve_distances(np.full((2, 2), np.nan)) is None


def test_together_every_measure_counts_the_same() -> None:
    generator = np.random.default_rng(2)
    one, two = (squareform(pdist(generator.normal(size=(5, 3)))) for _ in range(2))
    joint = joint_distances([one, two])
    assert joint is not None
    np.testing.assert_allclose(joint_distances([1e6 * one, two, np.zeros((5, 5))]), joint)
    assert np.mean(joint[np.triu_indices(5, 1)] ** 2) == pytest.approx(1.0)
    assert joint_distances([np.zeros((5, 5))]) is None


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_the_energy_distance_is_that_of_scipy_in_one_dimension(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=9)
    distances = np.abs(values[:, None] - values)
    found = energy_distance(distances, [0, 1, 2, 3], [4, 5, 6, 7, 8])
    # scipy gives the root
    assert math.sqrt(found) == pytest.approx(energy_distance_of_numbers(values[:4], values[4:]))


@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
@settings(deadline=None, max_examples=25)
def test_a_plane_is_mapped_without_stress(seed: int, runs: int) -> None:
    distances = squareform(pdist(np.random.default_rng(seed).normal(size=(runs, 2))))
    found = run_map(distances)
    np.testing.assert_allclose(squareform(pdist(found.coordinates)), distances, atol=1e-6)
    assert found.stress == pytest.approx(0.0, abs=1e-6)
    assert sum(found.explained) == pytest.approx(1.0)
    np.testing.assert_allclose(found.coordinates.mean(axis=0), 0.0, atol=1e-9)


def test_a_simplex_has_no_plane() -> None:
    found = run_map(1.0 - np.eye(5))
    assert found.explained == pytest.approx((0.25, 0.25))
    assert found.stress > 0.2
