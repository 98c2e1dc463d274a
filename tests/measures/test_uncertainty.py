"""Errors over prompts: which parts of the prompts are taken, and what the numbers of parts say, by closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import t

from topo_callback.measures.registry import layer_measures, pair_measures
from topo_callback.measures.uncertainty import (
    HALVES,
    LEFT_OUT,
    QUARTERS,
    RULES,
    Method,
    mean_error,
    parts_of_prompts,
    recorded_error,
    standard_error,
)

METHODS = (LEFT_OUT, HALVES, QUARTERS)
VALUES = np.random.default_rng(3).lognormal(size=128)


def error_of_mean(values: np.ndarray, parts: list[np.ndarray], method: Method, *, relative: bool = False) -> float:
    of_parts = np.array([[values[part].mean()] for part in parts])
    whole = np.array([values.mean()])
    return float(standard_error(whole, of_parts, len(values), method, relative=relative)[0])


def test_leaving_each_prompt_out_gives_the_standard_error_of_a_mean_exactly() -> None:
    single = Method("each", len(VALUES), 1, True, 2.0)
    parts = [np.delete(np.arange(len(VALUES)), place) for place in range(len(VALUES))]
    expected = VALUES.std(ddof=1) / np.sqrt(len(VALUES))
    assert error_of_mean(VALUES, parts, single) == pytest.approx(expected, rel=1e-12)


def test_blocks_give_the_standard_error_of_the_mean_of_block_means() -> None:
    parts = list(parts_of_prompts(len(VALUES), LEFT_OUT))
    blocks = [np.setdiff1d(np.arange(len(VALUES)), part) for part in parts]
    means = np.array([VALUES[block].mean() for block in blocks])
    assert error_of_mean(VALUES, parts, LEFT_OUT) == pytest.approx(means.std(ddof=1) / np.sqrt(8), rel=1e-12)


@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize(("points", "groups"), [(6, 2), (6, 3), (7, 2), (7, 3)])
def test_over_all_orders_the_variance_is_that_of_the_mean_also_where_prompts_are_left_over(
    points: int, groups: int, left_out: bool
) -> None:
    values, size = VALUES[:points], points // groups
    method = Method("any", groups, 1, left_out, 2.0)
    variances = []
    for order in itertools.permutations(range(points)):
        blocks = np.array(order[: groups * size]).reshape(groups, size)
        parts = [np.setdiff1d(order, block) if left_out else block for block in blocks]
        variances.append(error_of_mean(values, parts, method) ** 2)
    assert np.mean(variances) == pytest.approx(values.var(ddof=1) / points, rel=1e-9)


def test_relative_errors_go_with_the_number_and_need_positive_ones() -> None:
    parts = list(parts_of_prompts(len(VALUES), HALVES))
    of_parts = np.array([[VALUES[part].mean(), 7 * VALUES[part].sum(), -1.0] for part in parts])
    whole = np.array([VALUES.mean(), 7 * VALUES.sum(), -1.0])
    found = standard_error(whole, of_parts, len(VALUES), HALVES, relative=True)
    # a sum is as uncertain as the mean, for its size, and the splits are balanced: the means of parts are the mean
    assert found[:2] / whole[:2] == pytest.approx(error_of_mean(VALUES, parts, HALVES) / VALUES.mean(), rel=1e-12)
    assert np.isnan(found[2])


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
@pytest.mark.parametrize("points", [64, 100, 257])
def test_groups_are_equally_many_prompts_without_a_common_one(method: Method, points: int) -> None:
    parts = parts_of_prompts(points, method)
    assert len(parts) == method.count
    everyone = set(range(points))
    for split in range(method.splits):
        groups = [set(part.tolist()) for part in parts[split * method.groups :][: method.groups]]
        groups = [everyone - group if method.left_out else group for group in groups]
        assert {len(group) for group in groups} == {points // method.groups}
        assert len(set().union(*groups)) == points // method.groups * method.groups
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len({part.tobytes() for part in parts}) == method.count


def test_the_parts_are_these_on_every_machine() -> None:
    assert parts_of_prompts(32, HALVES)[0].tolist() == PART_OF_32


PART_OF_32 = [1, 2, 3, 6, 8, 11, 13, 15, 17, 18, 19, 20, 21, 24, 25, 31]


def test_small_probes_have_no_parts() -> None:
    assert parts_of_prompts(31, LEFT_OUT) == parts_of_prompts(31, HALVES) == parts_of_prompts(63, QUARTERS) == ()
    assert all(parts_of_prompts(64, method) for method in METHODS)


@pytest.mark.parametrize(("method", "freedom"), [(LEFT_OUT, 7), (HALVES, 8), (QUARTERS, 6)])
def test_twice_the_recorded_error_is_the_interval_of_student(method: Method, freedom: int) -> None:
    assert 2 * recorded_error(np.array([1.0]), method.wide)[0] == pytest.approx(t.ppf(0.975, freedom), abs=1e-4)


@pytest.mark.parametrize("count", [16, 64, 1000])
def test_the_error_of_a_mean_over_prompts(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    expected = values.std(ddof=1) / np.sqrt(count) * t.ppf(0.975, count - 1) / 2
    assert mean_error(values) == pytest.approx(expected, rel=4e-4)
    assert mean_error(values[:15]) is None


def test_rules_are_of_registered_measures_and_name_no_number_twice() -> None:
    assert RULES.keys() <= layer_measures.keys() | pair_measures.keys()
    names = [name for rule in RULES.values() for name in (*rule.absolute, *rule.relative)]
    assert len(names) == len(set(names))
