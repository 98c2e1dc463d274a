"""The permutation tests on cases whose p-values are known, and the properties that make them valid."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from comparison.simulated_runs import Design, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import f_oneway
from scipy.stats import permutation_test as scipy_permutation_test

from topo_callback.comparison.labelings import Labelings, blocks_of, labelings
from topo_callback.comparison.permutation import permutation_test, step_down


def one(values: list[list[float]] | np.ndarray) -> dict[str, dict[int | None, np.ndarray]]:
    return {"measure": {None: np.array(values, dtype=np.float64)}}


def ways(objectives: int, seeds: int, *, shared: bool = False) -> Labelings:
    design = Design(objectives=objectives, seeds=seeds, shared=shared)
    return labelings(design.labels, blocks_of(design.seed_numbers))


@pytest.mark.parametrize(
    ("objectives", "seeds", "shared", "smallest"),
    [
        (2, 3, False, 2 / 20),
        (2, 4, False, 2 / 70),
        (2, 5, True, 2 / 32),
        (3, 3, False, 6 / 1680),
        (3, 3, True, 6 / 216),
    ],
)
def test_groups_far_apart_have_the_smallest_p_value(objectives: int, seeds: int, shared: bool, smallest: float) -> None:
    design = Design(objectives=objectives, seeds=seeds, shared=shared)
    noise = np.random.default_rng(0).normal(size=(len(design.labels), 5))
    test = permutation_test(one(noise + 1e3 * np.array(design.labels)[:, None]), ways(objectives, seeds, shared=shared))
    assert test is not None
    assert test.together.p == test.measures["measure"].p == pytest.approx(smallest)
    assert test.steps["measure"].p.tolist() == pytest.approx([smallest] * 5)


def test_a_p_value_counted_by_hand() -> None:
    # means of {1, 2, 4} and {3, 5, 6}: of the 10 splits only {1, 2, 3}|{4, 5, 6} lies farther apart
    test = permutation_test(one([[1], [2], [4], [3], [5], [6]]), ways(2, 3))
    assert test is not None
    assert test.together.p == pytest.approx(2 / 10)
    # 3.5 is the mean: SS_between = 6 * (7/6)^2, SS_total = 17.5
    assert test.together.r_squared == pytest.approx(6 * (7 / 6) ** 2 / 17.5)


def test_within_blocks_a_p_value_counted_by_hand() -> None:
    # differences within seeds: 1, 2, 3, -1; of the 16 choices of sign, 6 have a sum of at least 5 in size
    values = np.array([[11.0], [22.0], [33.0], [39.0], [10.0], [20.0], [30.0], [40.0]])
    test = permutation_test(one(values), ways(2, 4, shared=True))
    assert test is not None
    assert test.together.p == pytest.approx(6 / 16)


def test_equal_numbers_are_ties_and_no_difference_is_no_test() -> None:
    tied = permutation_test(one([[0], [1], [0], [1]]), ways(2, 2))
    assert tied is not None
    assert tied.together.p == 1.0
    assert permutation_test(one([[3.0]] * 6), ways(2, 3)) is None
    assert permutation_test(one([[0.1], [0.2], [0.3], [0.1], [0.2], [0.3]]), ways(2, 3, shared=True)) is None


@pytest.mark.parametrize("objectives", [2, 3])
def test_it_is_the_exact_permutation_anova_of_scipy(objectives: int) -> None:
    values = np.random.default_rng(objectives).normal(size=(3 * objectives, 1))
    groups = values.reshape(objectives, 3)
    expected = scipy_permutation_test(
        tuple(groups),
        lambda *parts: f_oneway(*parts).statistic,
        vectorized=False,
        n_resamples=10**6,
        alternative="greater",
    )
    test = permutation_test(one(values), ways(objectives, 3))
    assert test is not None
    assert test.together.p == pytest.approx(expected.pvalue)
    f = (test.together.r_squared / (objectives - 1)) / ((1 - test.together.r_squared) / (3 * objectives - objectives))
    assert f == pytest.approx(expected.statistic)


def test_whole_curves_are_the_permanova_of_their_distances() -> None:
    from scipy.spatial.distance import pdist, squareform

    curves = np.random.default_rng(5).normal(size=(9, 7))
    squared = squareform(pdist(curves)) ** 2
    labels = np.repeat([0, 1, 2], 3)
    total = squared.sum() / 2 / 9
    within = sum(squared[np.ix_(labels == group, labels == group)].sum() / 2 / 3 for group in range(3))
    test = permutation_test(one(curves), ways(3, 3))
    assert test is not None
    assert test.measures["measure"].r_squared == pytest.approx(1 - within / total)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 3, False), (2, 4, True), (3, 3, True), (2, 4, False)]))
@settings(deadline=None, max_examples=25)
def test_p_values_do_not_depend_on_order_names_scale_or_block_effects(seed: int, layout: tuple[int, int, bool]) -> None:
    generator = np.random.default_rng(seed)
    design = Design(*layout)
    curves = simulate(design, generator, points=6)
    first = permutation_test(curves, ways(*layout[:2], shared=layout[2]))
    order = generator.permutation(len(design.labels))
    names = generator.permutation(design.objectives)
    moved = {
        measure: {layer: (7.0 * values - 3.0)[order] for layer, values in by_layer.items()}
        for measure, by_layer in curves.items()
    }
    if design.shared:
        of_seed = generator.normal(size=(design.seeds, 6))[design.seed_numbers][order]
        moved = {name: {layer: v + of_seed for layer, v in by_layer.items()} for name, by_layer in moved.items()}
    labels = [int(names[design.labels[run]]) for run in order]
    second = permutation_test(moved, labelings(labels, blocks_of([design.seed_numbers[run] for run in order])))
    assert first is not None
    assert second is not None
    assert second.together.p == first.together.p
    for measure, test in first.measures.items():
        assert second.measures[measure].p == test.p
        assert second.measures[measure].p_all == test.p_all
        np.testing.assert_allclose(second.steps[measure].p_all, first.steps[measure].p_all)
    assert {key: test.p_all for key, test in second.layers.items()} == {
        key: test.p_all for key, test in first.layers.items()
    }


@pytest.mark.parametrize("shared", [False, True])
def test_over_all_labelings_no_more_than_the_level_are_claimed(shared: bool) -> None:
    """Exchangeability: let every labeling be the true one; at most 5 % of them may give a p-value of 5 % or less."""
    design = Design(objectives=3, seeds=3, shared=shared)
    curves = simulate(design, np.random.default_rng(2), points=8)
    every = ways(3, 3, shared=shared)
    claimed = {"together": 0, "measure": 0, "layer": 0, "step": 0, "step, together": 0}
    for row in range(len(every.labels)):
        labels = np.concatenate([every.labels[row : row + 1], np.delete(every.labels, row, axis=0)])
        test = permutation_test(curves, Labelings(labels, every.blocks, every.possible, exact=True))
        assert test is not None
        claimed["together"] += test.together.p <= 0.05
        claimed["measure"] += min(found.p_all for found in test.measures.values()) <= 0.05
        claimed["layer"] += min(found.p_all for found in test.layers.values()) <= 0.05
        claimed["step"] += min(np.nanmin(found.p_all) for found in test.steps.values()) <= 0.05
        claimed["step, together"] += np.nanmin(test.together_steps.p) <= 0.05
    assert all(0 < count <= 0.05 * len(every.labels) for count in claimed.values()), claimed


@given(arrays(np.float64, (12, 4), elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9])))
@settings(deadline=None)
def test_step_down_is_the_algorithm_of_westfall_and_young(statistics: np.ndarray) -> None:
    order = sorted(range(4), key=lambda test: -statistics[0, test])
    expected = np.zeros(4)
    largest = 0.0
    for place, test in enumerate(order):
        count = sum(max(row[other] for other in order[place:]) >= statistics[0, test] for row in statistics)
        largest = max(largest, count / 12)
        expected[test] = largest
    np.testing.assert_allclose(step_down(statistics), expected)


def test_points_without_numbers_take_no_part() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4))
    whole = permutation_test(one(values), ways(2, 3))
    holed = np.insert(values, 2, np.nan, axis=1)
    with_hole = permutation_test(one(holed), ways(2, 3))
    assert whole is not None
    assert with_hole is not None
    assert with_hole.together == whole.together
    assert np.isnan(with_hole.steps["measure"].p[2])
    assert np.isnan(with_hole.together_steps.r_squared[2])
    np.testing.assert_array_equal(np.delete(with_hole.steps["measure"].p, 2), whole.steps["measure"].p)


@pytest.mark.parametrize(("objectives", "shared"), list(product((2, 3), (False, True))))
def test_false_claims_are_rare_on_autocorrelated_runs(objectives: int, shared: bool) -> None:
    """A short form of benchmarks/comparison.py: 200 comparisons, at most 5 % and its 99.9 % interval."""
    design = Design(objectives=objectives, seeds=4, shared=shared)
    every = labelings(design.labels, blocks_of(design.seed_numbers), most=200)
    generator = np.random.default_rng(11)
    claimed = 0
    for _ in range(200):
        test = permutation_test(simulate(design, generator, points=10), every)
        assert test is not None
        claimed += test.together.p <= 0.05
    assert claimed <= 21  # P(Binomial(200, 0.05) > 21) < 0.001
