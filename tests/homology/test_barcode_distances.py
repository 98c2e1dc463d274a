"""The 2-Wasserstein distance is the true optimum, on a line and in the plane, with a proof of its own."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from topo_callback.homology.barcode_distances import (
    UnfinishedMatchingError,
    optimal_matching,
    wasserstein_distance,
    wasserstein_distances,
)


def dense_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The oracle: one dense assignment in which every bar has its own place on the diagonal."""
    rows, columns = len(first), len(second)
    cost = np.zeros((rows + columns, columns + rows))
    cost[:rows, :columns] = ((first[:, None, :] - second[None, :, :]) ** 2).sum(axis=2)
    cost[:rows, columns:] = np.inf
    cost[rows:, :columns] = np.inf
    cost[np.arange(rows), columns + np.arange(rows)] = (first[:, 1] - first[:, 0]) ** 2 / 2
    cost[rows + np.arange(columns), np.arange(columns)] = (second[:, 1] - second[:, 0]) ** 2 / 2
    return math.sqrt(cost[linear_sum_assignment(cost)].sum())


def random_bars(generator: np.random.Generator, bars: int, longest: float) -> np.ndarray:
    birth = generator.uniform(0, 1, bars)
    return np.stack([birth, birth + longest * generator.exponential(size=bars) + 1e-9], axis=1)


whole_bars = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=9).map(
    lambda rows: np.array([(birth, birth + lifetime) for birth, lifetime in rows], dtype=np.float64).reshape(-1, 2)
)


@given(whole_bars, whole_bars)
@settings(max_examples=300, deadline=None)
def test_plane_equals_the_dense_assignment_with_many_ties(first: np.ndarray, second: np.ndarray) -> None:
    assert wasserstein_distance(first, second) == pytest.approx(dense_distance(first, second), abs=1e-9)


@given(st.lists(st.integers(1, 60), max_size=12), st.lists(st.integers(1, 60), max_size=12), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_line_equals_the_dense_assignment(first: list[int], second: list[int], birth: int) -> None:
    """Lifetimes of very different size, so that small bars go to the diagonal from the middle of the order."""
    one, other = (
        np.array([(birth, birth + life) for life in lives], dtype=np.float64).reshape(-1, 2)
        for lives in (first, second)
    )
    assert wasserstein_distance(one, other) == pytest.approx(dense_distance(one, other), abs=1e-9)


@pytest.mark.parametrize("longest", [0.003, 0.05, 0.5, 5.0])
@pytest.mark.parametrize(("rows", "columns"), [(300, 300), (40, 250), (250, 40)])
def test_plane_equals_the_dense_assignment_at_size(longest: float, rows: int, columns: int) -> None:
    generator = np.random.default_rng(rows + columns)
    first, second = random_bars(generator, rows, longest), random_bars(generator, columns, longest)
    assert wasserstein_distance(first, second) == pytest.approx(dense_distance(first, second), rel=1e-10)


@pytest.mark.parametrize("most", [3, 20])
def test_many_equal_bars_at_size(most: int) -> None:
    """More bars than are matched at once, most of which are equal to another."""
    generator = np.random.default_rng(most)
    for rows, columns in ((150, 170), (170, 90), (41, 130)):
        first, second = (
            np.stack([births, births + generator.integers(1, most, bars)], axis=1).astype(np.float64)
            for bars in (rows, columns)
            for births in [generator.integers(0, most, bars)]
        )
        assert wasserstein_distance(first, second) == pytest.approx(dense_distance(first, second), rel=1e-10)
        assert wasserstein_distance(first, first[::-1]) == 0


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.05])
def test_one_barcode_and_its_jittered_copy(noise: float) -> None:
    """Two checkpoints that are close: nearly all bars are matched."""
    generator = np.random.default_rng(5)
    first = random_bars(generator, 400, 0.05)
    second = np.sort(first + noise * generator.standard_normal(first.shape), axis=1)
    assert wasserstein_distance(first, second) == pytest.approx(dense_distance(first, second), rel=1e-9)


@given(whole_bars, whole_bars)
@settings(max_examples=100, deadline=None)
def test_the_matching_and_its_lower_bound_meet(first: np.ndarray, second: np.ndarray) -> None:
    found = optimal_matching(first, second)
    assert found.lower_bound == pytest.approx(found.cost, abs=1e-9)
    assert len(set(found.pairs[:, 0].tolist())) == len(set(found.pairs[:, 1].tolist())) == len(found.pairs)
    alone = [np.delete(first, found.pairs[:, 0], axis=0), np.delete(second, found.pairs[:, 1], axis=0)]
    spent = ((first[found.pairs[:, 0]] - second[found.pairs[:, 1]]) ** 2).sum()
    assert found.cost == pytest.approx(spent + sum((np.diff(bars) ** 2).sum() / 2 for bars in alone), abs=1e-9)


@pytest.mark.parametrize("most_steps", [0, 1000, 30_000, 100_000, 250_000])
def test_a_distance_that_is_given_up_says_between_which_bounds_it_lies(most_steps: int) -> None:
    generator = np.random.default_rng(7)
    first, second = random_bars(generator, 200, 2.0), random_bars(generator, 180, 2.0)
    exact = wasserstein_distance(first, second)
    with pytest.raises(
        UnfinishedMatchingError, match=f"200 and 180 bars was given up after {most_steps} steps"
    ) as given_up:
        wasserstein_distance(first, second, most_steps=most_steps)
    least, most = given_up.value.least, given_up.value.most
    assert least < exact < most
    # endless bars are part of both bounds
    endless = [np.concatenate([bars, [[birth, np.inf]]]) for bars, birth in ((first, 1.0), (second, 4.0))]
    with pytest.raises(UnfinishedMatchingError) as with_endless:
        wasserstein_distance(*endless, most_steps=most_steps)
    assert with_endless.value.least == pytest.approx(np.hypot(least, 3.0))
    assert with_endless.value.most == pytest.approx(np.hypot(most, 3.0))


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    generator = np.random.default_rng(8)
    first, second = random_bars(generator, 50, 0.5), random_bars(generator, 60, 0.5)
    assert wasserstein_distance(first, second, most_steps=10**9) == wasserstein_distance(first, second)


@given(whole_bars, whole_bars, whole_bars)
@settings(max_examples=100, deadline=None)
def test_it_is_a_metric(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    there = wasserstein_distance(first, second)
    assert there == pytest.approx(wasserstein_distance(second, first), abs=1e-9)
    assert wasserstein_distance(first, first) == 0
    assert there <= wasserstein_distance(first, third) + wasserstein_distance(third, second) + 1e-9


@given(whole_bars, whole_bars, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_order_of_the_bars_does_not_matter_and_scale_scales(
    first: np.ndarray, second: np.ndarray, random: object
) -> None:
    expected = wasserstein_distance(first, second)
    assert wasserstein_distance(first[::-1], np.roll(second, 1, axis=0)) == pytest.approx(expected, abs=1e-12)
    assert wasserstein_distance(4 * first, 4 * second) == pytest.approx(4 * expected, rel=1e-12)


def test_closed_forms() -> None:
    nothing = np.empty((0, 2))
    bar = np.array([[1.0, 3.0]])
    assert wasserstein_distance(nothing, nothing) == 0
    assert wasserstein_distance(bar, nothing) == pytest.approx(math.sqrt(2))
    assert wasserstein_distance(bar, np.array([[1.0, 4.0]])) == pytest.approx(1)
    assert wasserstein_distance(bar, np.array([[2.0, 4.0]])) == pytest.approx(math.sqrt(2))
    far = np.array([[11.0, 13.0]])
    assert wasserstein_distance(bar, far) == pytest.approx(2)


def test_bars_that_never_die_pair_with_each_other() -> None:
    first = np.array([[0.0, np.inf], [5.0, np.inf], [0.0, 1.0]])
    second = np.array([[2.0, np.inf], [1.0, np.inf], [0.0, 1.0]])
    assert wasserstein_distance(first, second) == pytest.approx(math.sqrt(1 + 9))


def test_different_numbers_of_bars_that_never_die_give_a_missing_value() -> None:
    assert math.isnan(wasserstein_distance(np.array([[0.0, np.inf]]), np.array([[0.0, np.inf], [0.0, np.inf]])))
    assert math.isnan(wasserstein_distance(np.array([[0.0, np.inf]]), np.empty((0, 2))))


@pytest.mark.parametrize("bars", [[[np.nan, 1.0]], [[0.0, np.nan]], [[1.0, 0.0]], [[-np.inf, 0.0]], [[np.inf, np.inf]]])
def test_impossible_bars_are_named(bars: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"second\[0\]"):
        wasserstein_distance(np.array([[0.0, 1.0]]), np.array(bars))


def test_threads_do_not_change_the_numbers() -> None:
    generator = np.random.default_rng(1)
    pairs = [(random_bars(generator, 60, 0.1), random_bars(generator, 50, 0.1)) for _ in range(12)]
    one = wasserstein_distances(pairs, threads=1)
    np.testing.assert_array_equal(one, wasserstein_distances(pairs, threads=3))
    np.testing.assert_array_equal(one, [wasserstein_distance(first, second) for first, second in pairs])
    assert wasserstein_distances([]).shape == (0,)


@pytest.mark.parametrize("longest", [0.01, 0.3])
def test_equals_hera(longest: float) -> None:
    hera = pytest.importorskip("gudhi.hera")
    generator = np.random.default_rng(3)
    first, second = random_bars(generator, 120, longest), random_bars(generator, 100, longest)
    expected = hera.wasserstein_distance(first, second, order=2, internal_p=2, delta=1e-4)
    assert wasserstein_distance(first, second) == pytest.approx(expected, rel=2e-4)


def test_loads_no_torch() -> None:
    """The worker process must stay small."""
    code = (
        "import sys, numpy as np; from topo_callback.homology.barcode_distances import wasserstein_distance; "
        "wasserstein_distance(np.ones((1, 2)) * [1, 2], np.ones((1, 2)) * [1, 3]); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'ot', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
