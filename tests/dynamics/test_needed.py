"""What an alarm needs: little growth where a run's own sums have a light tail, more where it is heavy."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics.changes import Needed


def needed_after(sums: np.ndarray) -> float:
    """The smallest sum that would be an alarm at the next step, found by halving."""
    low, high = 0.0, 1e6
    steps = np.arange(1, len(sums) + 2)
    for _ in range(60):
        middle = (low + high) / 2
        is_alarm = Needed().first_above(steps, np.append(sums, middle)) == len(sums)
        low, high = (low, middle) if is_alarm else (middle, high)
    return high


def test_early_it_is_a_power_of_the_step_and_more_while_the_scale_is_new() -> None:
    for count in (0, 1, 50, 127):
        step = count + 1
        expected = (1 + step / 128) ** 0.5 * (1 + 0.6 * np.exp(-step / 30))
        assert needed_after(np.full(count, 0.1)) == pytest.approx(expected)


def test_all_steps_together_are_given_the_level_and_no_more() -> None:
    """Where the tail is of a known power, the chances of its thresholds over a very long run add up to the level."""
    needed = Needed()
    needed._tail = (1.0, 0.05, 4.0)
    steps = np.unique(np.geomspace(1, 1e9, 200_000).astype(np.int64))
    chances = 0.05 * needed._thresholds(steps) ** -4.0
    total = np.trapezoid(chances, steps)
    assert 0.7 * 0.03 < total < 0.03


def test_late_the_tail_of_the_runs_own_sums_decides() -> None:
    draw = np.random.default_rng(0)
    light = 0.3 * np.abs(draw.normal(size=4000)) ** 0.5
    heavy = 0.02 * draw.pareto(2, size=4000)
    assert heavy.max() < 4 < needed_after(heavy)
    assert needed_after(light) == pytest.approx((1 + 4001 / 128) ** 0.2)


def test_a_tail_of_a_known_power_is_met_as_often_as_said() -> None:
    """Exact powers: the chance of the threshold under the true tail is at most what the level gives the step."""
    chances = []
    for seed in range(20):
        sums = np.minimum(0.05 * (1 + np.random.default_rng(seed).pareto(4, size=3000)), 0.99)
        chances.append((0.05 / needed_after(sums)) ** 4 / (0.03 * np.log(100) / (3101 * np.log(3101) ** 2)))
    assert np.median(chances) <= 1


def test_a_tail_that_begins_late_is_seen_in_a_long_run() -> None:
    """One sum of 250 has a heavy tail: few of the largest twentieth do, and many of the largest root of the number."""
    needed = []
    for seed in (0, 1, 3, 4, 9):
        draw = np.random.default_rng(seed)
        sums = 0.1 + 0.5 * draw.random(8000) ** 2
        odd = np.flatnonzero(draw.random(8000) < 0.004)
        sums[odd] = np.minimum(0.6 * (1 + draw.pareto(2, size=len(odd))), 1.4)
        needed.append(needed_after(sums))
    assert 3.2 < np.median(needed) < 10


@pytest.mark.parametrize("portion", [1, 7, 64])
def test_portions_make_no_difference(portion: int) -> None:
    draw = np.random.default_rng(1)
    sums = 0.1 * draw.exponential(size=1500)
    sums[[400, 900]] = 50.0
    steps = np.arange(1, 1501)

    def alarms(size: int) -> list[int]:
        needed, found, start = Needed(), [], 0
        while start < len(steps):
            part = slice(start, start + size)
            place = needed.first_above(steps[part], sums[part])
            start += len(steps[part]) if place is None else place + 1
            found += [] if place is None else [int(steps[start - 1])]
        return found

    assert alarms(portion) == alarms(1500)
    assert {401, 901} <= set(alarms(1500))


def test_an_alarm_is_no_part_of_the_past() -> None:
    draw = np.random.default_rng(2)
    sums = 0.2 * draw.random(600)
    changed = sums.copy()
    changed[300] = 1000.0
    needed = Needed()
    steps = np.arange(1, 601)
    assert needed.first_above(steps, changed) == 300
    assert needed.first_above(steps[301:], np.append(sums[301:-1], 5.0)) == len(sums) - 302


def test_the_newest_sums_are_no_past_yet() -> None:
    """A change may begin slowly: what it needs does not grow with its own first steps."""
    before = 0.3 * np.random.default_rng(3).random(400)
    for count in range(300, 392, 7):
        begun = before[: count + 8].copy()
        begun[count:] = 0.9
        assert needed_after(begun) == pytest.approx(needed_after(before[: count + 8]), rel=1e-12)
