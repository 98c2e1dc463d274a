"""Excesses of one series: a function of the past, large for what leaves its course, small for what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.dynamics.excess import FEWEST, NOISY, RECURRING, SMOOTH, SeriesRule, excess, recurring_differences

RULES = {"noisy": NOISY, "smooth": SMOOTH}


def noise(seed: int, count: int = 160, size: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=size, size=count)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_it_is_a_function_of_the_past(rule: SeriesRule) -> None:
    values = noise(0)
    whole = excess(values, rule)
    for count in (40, 97, 159):
        assert np.array_equal(excess(values[:count], rule).share, whole.share[:count])
        assert np.array_equal(excess(values[:count], rule).difference, whole.difference[:count])


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_the_end_of_a_series_is_enough(rule: SeriesRule) -> None:
    values = noise(1, 300)
    whole, first = excess(values, rule, recurring=np.zeros(300)), 150
    end = excess(values[first - rule.context :], rule, recurring=np.zeros(150 + rule.context))
    assert np.array_equal(end.share[rule.context :], whole.share[first:])
    assert np.array_equal(end.length[rule.context :], whole.length[first:])


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_the_end_of_a_long_series_is_enough(rule: SeriesRule) -> None:
    values = noise(5, 1700) * (1 + 20 * (np.random.default_rng(6).random(1700) < 0.02))
    usual = np.ones(1700, dtype=bool)
    usual[700:720] = False
    whole, first = excess(values, rule, usual=usual), 1400
    begin = first - rule.longer_context
    end = excess(values[begin:], rule, usual=usual[begin:])
    assert np.array_equal(end.share[rule.longer_context :], whole.share[first:])
    late = recurring_differences(values, rule, usual=usual, first=first)
    assert np.array_equal(late[first:], recurring_differences(values, rule, usual=usual)[first:])
    assert not late[:first].any()
    assert late[first:].all()


def test_what_came_back_several_times_in_a_longer_past_is_no_excess() -> None:
    """Two odd values side by side: found where odd values are new, not where they came before, alone, now and then."""
    for before, found in ((RECURRING - 1, True), (RECURRING, False)):
        values = noise(7, 900)
        values[200 + 150 * np.arange(before)] += 3.0
        values[800:802] += 3.0
        assert (excess(values, NOISY).share[801] > 1) == found


def test_the_scale_is_worked_out_by_hand() -> None:
    rule = SeriesRule(base=2, windows={2: SMOOTH.windows[2]})
    values = noise(2, 40)
    found = excess(values, rule)

    def pair(i: int) -> float:
        a, b = values[i - 1 : i + 1] - np.median(values[i - 3 : i - 1])
        return 0.0 if a * b <= 0 else np.sign(a) * min(abs(a), abs(b))

    place = 39
    past = np.sort(np.abs([values[i] - np.median(values[i - 2 : i]) for i in range(2, place - 1)]))
    own = np.sort(np.abs([pair(i) for i in range(3, place - 1)]))

    def quantile(ordered: np.ndarray, share: float) -> float:
        return float(ordered[int(np.ceil(share * len(ordered))) - 1])

    window = rule.windows[2]
    scale = max(
        window.share * max(1.4826 * quantile(past, 0.5), quantile(past, 0.9) / 1.645),
        window.record * past[-1],
        1.4 * quantile(own, 0.9) / 1.645,
    )
    expected = abs(pair(place)) / (scale * window.needed)
    assert found.share[place] == pytest.approx(expected, rel=1e-12)
    assert found.difference[place] == pytest.approx(pair(place), abs=1e-15)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_jump_is_found_in_both_directions_and_a_trend_is_not(rule: SeriesRule) -> None:
    for sign in (1, -1):
        values = noise(3)
        values[100:] += 3 * sign
        found = excess(values, rule)
        assert found.share[:100].max() < 0.6
        assert found.share[101] > 1
        assert np.sign(found.difference[101]) == sign
        assert excess(noise(3) + sign * np.linspace(0, 3, 160), rule).share.max() < 0.8


def test_one_odd_value_of_what_scatters_is_no_excess() -> None:
    values = noise(4)
    values[100] += 50
    assert excess(values, NOISY).share.max() < 0.6
    values[101] += 50
    assert excess(values, NOISY).share[101] > 1


def test_a_quarter_of_a_window_may_be_as_before() -> None:
    values = noise(7)
    values[[100, 101, 102, 104, 105, 107]] += 1.2
    found = excess(values, NOISY)
    assert found.length[107] == 8
    assert found.share[107] > 1


def test_rare_large_values_are_expected_again() -> None:
    values = noise(5)
    values[[50, 70, 90]] += 6
    values[[110, 111]] += 6
    assert excess(values, NOISY).share[111] < 1
    values = noise(5)
    values[[110, 111]] += 6
    assert excess(values, NOISY).share[111] > 1


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(-50, 50), st.sampled_from(sorted(RULES)))
def test_neither_the_level_nor_a_mirror_matters(seed: int, level: float, name: str) -> None:
    values = np.round(noise(seed, 80) * 2**20) / 2**20
    shifted = excess(values + round(level), RULES[name])
    assert np.allclose(excess(values, RULES[name]).share, shifted.share, rtol=1e-6, atol=1e-9)
    mirrored = excess(-values, RULES[name])
    assert np.array_equal(excess(values, RULES[name]).share, mirrored.share)
    assert np.array_equal(excess(values, RULES[name]).difference, -mirrored.difference)


def test_values_that_are_too_few_say_nothing() -> None:
    for rule in RULES.values():
        for count in range(rule.base + FEWEST):
            assert not excess(noise(6, count), rule).share.any()
        assert excess(noise(6, rule.warm_up + 4), rule).share.any()


def test_a_series_that_never_changes_has_a_smallest_scale() -> None:
    values = np.zeros(100)
    values[80:] = 0.05
    assert excess(values, NOISY).share.max() < 1  # 5 % is five times the smallest noise
    values[80:] = 0.5
    assert excess(values, NOISY).share.max() > 1
