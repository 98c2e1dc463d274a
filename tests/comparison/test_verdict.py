"""The verdict, its differences and its numbers of seeds, on cases with known answers and in small simulations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from comparison.simulated_runs import Design, simulate, write_run, write_runs
from scipy.stats import binom, ttest_ind, ttest_rel

from topo_callback.comparison import compare_runs, load_runs
from topo_callback.comparison.effects import difference, largest_excluded, paired_order
from topo_callback.comparison.explained import share_of_points
from topo_callback.comparison.labelings import blocks_of, labelings
from topo_callback.comparison.own_spread import LEVEL, NOTHING, _level, levels
from topo_callback.comparison.permutation import Curves, permutation_test
from topo_callback.comparison.seeds import SeedsNeeded, seeds_needed
from topo_callback.errors import ConfigurationError


def medians(design: Design, generator: np.random.Generator) -> Curves:
    return {name: {None: by_layer[None]} for name, by_layer in simulate(design, generator, points=10).items()}


def test_unequal_groups_are_compared_by_the_t_of_welch() -> None:
    numbers = np.random.default_rng(0).normal(size=12) * np.repeat([3.0, 1.0], [3, 9])
    centred = numbers - numbers.mean()
    labels = np.array([[0] * 3 + [1] * 9])
    share = float(share_of_points((centred / np.linalg.norm(centred))[None, :, None], labels)[0, 0, 0])
    t = ttest_ind(numbers[:3], numbers[3:], equal_var=False).statistic
    assert share / (1 - share) * 10 == pytest.approx(t**2)


@pytest.mark.parametrize(
    ("sizes", "times"),
    [((3, 9), 60), *(pytest.param(sizes, 300, marks=pytest.mark.slow) for sizes in ((3, 9), (9, 3), (4, 6), (5, 5)))],
)
def test_objectives_of_one_mean_are_not_told_apart_by_their_spread(sizes: tuple[int, int], times: int) -> None:
    """A short form of benchmarks/comparison_spread.py: the first objective spreads three times as far."""
    design, generator = Design(sizes=sizes, spreads=(3.0, 1.0)), np.random.default_rng(16)
    ways = labelings(design.labels, [0] * sum(sizes))
    claimed = 0
    for draw in range(times):
        curves = medians(design, generator)
        test = permutation_test(curves, ways)
        assert test is not None
        p = test.together.p
        claimed += p <= LEVEL and p <= levels(curves, ways, seed=draw).together  # which is LEVEL at most, and slow
    assert claimed <= binom.ppf(0.999, times, LEVEL)


def test_equal_spreads_leave_the_level_near_5_percent() -> None:
    design, generator = Design(sizes=(5, 5)), np.random.default_rng(2)
    ways = labelings(design.labels, [0] * 10)
    found = [levels(medians(design, generator), ways, seed=draw).together for draw in range(20)]
    assert np.mean(found) > 0.04
    assert max(found) <= LEVEL


def test_unequal_spreads_lower_the_level() -> None:
    """As many runs of one mean as there are reach 5 % with the widest three against nine; the level is below it."""
    design, generator = Design(sizes=(3, 9), spreads=(3.0, 1.0)), np.random.default_rng(3)
    ways = labelings(design.labels, [0] * 12)
    found = [levels(medians(design, generator), ways, seed=draw).together for draw in range(10)]
    assert np.mean(found) < 0.025


def test_an_objective_with_one_run_is_never_claimed() -> None:
    curves = {"measure": {None: np.random.default_rng(0).normal(size=(21, 3)) + 100.0 * np.eye(21)[:, :1]}}
    ways = labelings([0] + [1] * 20, [0] * 21)
    test = permutation_test(curves, ways)
    assert test is not None
    assert test.together.p <= LEVEL
    assert levels(curves, ways) == NOTHING


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_are_those_of_welch_or_of_the_pairs(paired: bool) -> None:
    generator = np.random.default_rng(4)
    first, second = generator.normal(1.0, 3.0, 6), generator.normal(size=6)
    found = difference(first, second, paired=paired, comparisons=5)
    expected = ttest_rel(first, second) if paired else ttest_ind(first, second, equal_var=False)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(1 - 0.05 / 5)))
    assert found.spread == pytest.approx(math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
    # the 95 % bound of the size on the side where the estimate lies
    upper = max(abs(bound) for bound in expected.confidence_interval(0.90))
    assert found.excluded == pytest.approx(upper / found.spread)


def test_the_largest_difference_is_rarely_above_its_bound() -> None:
    generator = np.random.default_rng(5)
    wrong = 0
    for _ in range(1_000):
        runs = generator.normal(size=(3, 20, 2))
        runs[0, :, 0] += 1.0  # the first of three measures differs by one spread
        found = {str(number): difference(*each.T, paired=False, comparisons=3) for number, each in enumerate(runs)}
        largest = largest_excluded(found)
        assert largest is not None
        wrong += largest[1] <= 1.0
    assert wrong <= binom.ppf(0.999, 1_000, LEVEL)


def test_a_difference_without_spread_excludes_nothing() -> None:
    assert difference(np.ones(3), np.zeros(3), paired=False, comparisons=1).excluded == math.inf
    assert difference(np.ones(1), np.zeros(3), paired=False, comparisons=1).interval is None
    assert paired_order([1, 2, 3], [3, 1, 2]) == [1, 2, 0]
    assert paired_order([1, 2, None], [1, 2, None]) is None


def test_the_seeds_needed_grow_as_the_difference_shrinks() -> None:
    design = Design(sizes=(12, 12))
    curves, labels = medians(design, np.random.default_rng(6)), np.array(design.labels)
    needed = {size: seeds_needed(curves, labels, (0,) * 24, size) for size in (0.5, 1.0, 2.0)}
    finds, excludes = ([getattr(needed[size], name) for size in needed] for name in ("find", "exclude"))
    assert finds == sorted(finds, reverse=True)
    assert excludes == sorted(excludes, reverse=True)
    # one number differs by one spread: 17 each find it at 5 % in 4 of 5 cases; four measures take fewer
    assert 4 <= needed[1.0].find <= 17 < needed[0.5].find  # type: ignore[operator]
    assert needed[1.0].claim == 4
    blocks = blocks_of([*range(12), *range(12)])
    assert seeds_needed(curves, labels, blocks, 1.0).claim == 6
    assert seeds_needed(curves, np.array([0] + [1] * 23), (0,) * 24, 1.0) == SeedsNeeded(None, None, 4)


def test_the_seeds_that_are_named_find_it_in_4_of_5_cases() -> None:
    generator = np.random.default_rng(7)
    design = Design(sizes=(30, 30))
    needed = seeds_needed(medians(design, generator), np.array(design.labels), (0,) * 60, 1.0).find
    assert needed is not None
    planted = Design(sizes=(needed, needed))
    ways = labelings(planted.labels, [0] * 2 * needed, most=300)
    reference = medians(Design(sizes=(200, 0), objectives=1), generator)
    found = 0
    for _ in range(60):
        curves = {}
        for name, by_layer in medians(planted, generator).items():
            spread = reference[name][None].mean(axis=1).std()
            curves[name] = {None: by_layer[None] + spread * np.array(planted.labels)[:, None]}
        test = permutation_test(curves, ways)
        assert test is not None
        found += test.together.p <= LEVEL
    assert 0.6 <= found / 60 <= 0.95


def test_three_verdicts_of_written_runs(tmp_path: Path) -> None:
    runs = load_runs(write_runs(tmp_path / "one", Design(2, 5), np.random.default_rng(0)))
    for size, kind in ((4.0, "no difference"), (0.5, "undecided")):
        found = compare_runs(runs, size=size).verdict
        assert (found.kind, found.size) == (kind, size)
        assert found.excluded is not None
        assert 0.5 < found.excluded < 4.0
        assert found.sentences[1].startswith(f"Differences from {found.excluded:.2g} spreads on are excluded")
    assert found.needed.find is not None
    assert found.add == dict.fromkeys(("helpful", "harmless"), found.needed.find - 5)
    assert f"add {found.needed.find - 5} to helpful" in found.sentences[-1]
    with pytest.raises(ConfigurationError, match="size 0.0 is not a number of spreads above 0"):
        compare_runs(runs, size=0.0)
    differing = load_runs(write_runs(tmp_path / "two", Design(2, 5, effect=8.0), np.random.default_rng(1)))
    assert compare_runs(differing).verdict.kind == "differ"


def test_one_run_against_many_cannot_be_decided(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    groups = {"one": 1, "many": 20}
    folders = {
        name: [
            write_run(
                tmp_path / f"{name}-{run}",
                {"betti_h1": {2: (generator.normal(size=3) + 50 * (name == "one")).tolist()}},
                steps=[0, 1, 2],
                seed=100 * (name == "one") + run,
                layers=[2],
            )
            for run in range(count)
        ]
        for name, count in groups.items()
    }
    found = compare_runs(load_runs(folders))
    assert found.test is not None
    assert found.test.together.p <= LEVEL
    assert found.verdict.kind == "undecided"
    assert found.verdict.excluded is None
    assert found.verdict.reasons == ("One run of one shows no spread of its own: give at least 2, better 5.",)


def test_more_comparisons_need_smaller_p_values_and_what_draws_cannot_tell_is_not_claimed() -> None:
    smallest = np.linspace(0.001, 1, 400)
    found = [_level(smallest, 0.02, comparisons, 0.0001) / comparisons for comparisons in (1, 2, 4, 8, 9, 100)]
    assert found == sorted(found, reverse=True)
    assert found[3] > 0
    assert found[4:] == [0.0, 0.0]  # 400 draws do not tell
    reached = np.sort(np.concatenate([np.full(40, 0.004), np.linspace(0.01, 1, 360)]))
    assert _level(reached, 0.05, 1, 0.004) == 0.0
    assert 0 < _level(reached, 0.05, 1, 0.001) < 0.004
