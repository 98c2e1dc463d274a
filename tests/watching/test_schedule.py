"""The schedule is a pure function of the step: early steps dense, later ones regular, the last one always."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo_callback.config import TopologyConfig
from topo_callback.watching.schedule import LEAST, LEAST_SECONDS, OverheadBudget, Pace, Schedule


def test_the_default_schedule_of_a_thousand_steps() -> None:
    planned = Schedule.of(1000, TopologyConfig()).planned()
    assert planned[:7] == [0, 1, 2, 4, 8, 16, 32]
    assert planned[6:] == [*range(32, 1000, 32), 1000]


def test_a_short_run_is_sampled_at_every_step() -> None:
    assert Schedule.of(5, TopologyConfig()).planned() == [0, 1, 2, 3, 4, 5]


def test_given_steps_replace_the_schedule() -> None:
    schedule = Schedule.of(100, TopologyConfig(steps=(0, 10, 300)))
    assert schedule.planned() == [0, 10]
    assert 100 not in schedule
    assert Schedule.of(100, TopologyConfig(steps=(500,))).least_from(500) == 0


@given(st.integers(1, 5000), st.integers(1, 200))
def test_planned_steps_are_those_that_are_contained(max_steps: int, samples: int) -> None:
    schedule = Schedule.of(max_steps, TopologyConfig(samples=samples))
    planned = schedule.planned()
    assert planned == [step for step in range(max_steps + 1) if step in schedule]
    assert planned[0] == 0
    assert planned[-1] == max_steps
    assert len(planned) <= samples + 2 + max_steps.bit_length()


@given(st.integers(1, 5000))
def test_early_steps_are_powers_of_two_below_the_interval(max_steps: int) -> None:
    schedule = Schedule.of(max_steps, TopologyConfig())
    early = [step for step in range(max_steps + 1) if schedule.is_early(step)]
    assert all(step < schedule.interval for step in early)
    assert all(step == 0 or step.bit_count() == 1 for step in early)


def test_an_adaptive_schedule_meets_four_times_as_often_and_plans_the_regular_steps() -> None:
    fixed, adaptive = (Schedule.of(1000, TopologyConfig(adaptive=each)) for each in (False, True))
    assert adaptive.planned() == fixed.planned()
    extra = [step for step in range(1001) if step in adaptive and not adaptive.is_fixed(step)]
    assert extra[:4] == [24, 40, 48, 56]
    assert all(step % 8 == 0 for step in extra)
    assert not any(adaptive.is_spare(step) for step in (0, 16, 64, 1000))
    assert adaptive.is_spare(96)
    assert not any(fixed.is_spare(step) for step in fixed.planned())
    given = Schedule.of(100, TopologyConfig(adaptive=True, steps=(3, 50)))
    assert [step for step in range(101) if step in given] == [3, 50]


def test_the_pace_is_faster_than_usual_or_not() -> None:
    pace = Pace()
    for velocity in (1.0, None, 1.2):
        pace.observe(velocity)
    pace.observe(5.0)
    assert pace.faster
    pace.observe(1.1)
    assert not pace.faster
    assert not Pace().faster


@given(st.integers(1, 400), st.integers(1, 40), st.booleans(), st.none() | st.lists(st.integers(0, 500), min_size=1))
def test_ranks_meet_at_the_steps_that_may_be_sampled(
    max_steps: int, samples: int, adaptive: bool, steps: list[int] | None
) -> None:
    config = TopologyConfig(samples=samples, adaptive=adaptive, steps=None if steps is None else tuple(set(steps)))
    schedule = Schedule.of(max_steps, config)
    assert schedule.meetings() == {step for step in range(max_steps + 1) if step in schedule}


def simulate(step_seconds: float, sample_seconds: float, max_steps: int, share: float | None) -> tuple[float, int, int]:
    """Seconds spent, seconds of the run, and samples taken, with a clock that only the run moves."""
    now = 0.0
    budget = OverheadBudget(share, clock=lambda: now)
    schedule = Schedule.of(max_steps, TopologyConfig())
    budget.begin()
    taken = 0
    for step in range(max_steps + 1):
        if step:
            now += step_seconds
        if step in schedule and (schedule.never_thinned(step) or budget.allows(schedule.least_from(step))):
            now += sample_seconds
            budget.spend(sample_seconds)
            budget.sampled(sample_seconds)
            taken += 1
    assert budget.overhead() == pytest.approx(budget.spent / now)
    assert budget.thinned == len(schedule.planned()) - taken
    return budget.spent, now, taken


@given(st.floats(0.01, 10), st.floats(0.001, 30), st.integers(50, 2000), st.floats(0.005, 0.5))
def test_the_share_is_exceeded_by_at_most_one_sample_or_by_the_early_ones(
    step_seconds: float, sample_seconds: float, max_steps: int, share: float
) -> None:
    spent, run, _ = simulate(step_seconds, sample_seconds, max_steps, share)
    schedule = Schedule.of(max_steps, TopologyConfig())
    early = sum(schedule.is_early(step) for step in range(max_steps + 1)) * sample_seconds
    assert spent <= max(share * run, early, LEAST_SECONDS) * (1 + 1e-9) + sample_seconds


def test_a_cheap_sample_is_never_thinned() -> None:
    _, _, taken = simulate(1.0, 0.01, 1000, 0.05)
    assert taken == len(Schedule.of(1000, TopologyConfig()).planned())


@pytest.mark.slow
@given(st.integers(60, 2000), st.floats(0.01, 2.5))
def test_a_short_run_has_eight_samples_that_are_spread_where_they_cost_less_than_half_a_minute(
    max_steps: int, sample_seconds: float
) -> None:
    schedule = Schedule.of(max_steps, TopologyConfig())
    least = [step for step in range(max_steps + 1) if schedule.least_from(step)]
    assert len(least) == LEAST
    assert (least[0], least[-1]) == (0, max_steps)
    assert max(b - a for a, b in itertools.pairwise(least)) <= max_steps / (LEAST - 1) + schedule.interval
    early = sum(schedule.is_early(step) for step in range(max_steps + 1))
    affordable = (early + LEAST) * sample_seconds <= LEAST_SECONDS
    _, _, taken = simulate(1e-6, sample_seconds, max_steps, 0.05)
    if affordable:
        assert taken >= LEAST
    _, _, none = simulate(1e-6, sample_seconds, max_steps, 0.0)
    assert none == early + 1


def test_a_short_run_of_dear_samples_has_the_early_ones_alone() -> None:
    spent, _, taken = simulate(0.01, 8.0, 60, 0.05)
    assert (spent, taken) == (24.0, 3)


def test_without_a_limit_nothing_is_thinned() -> None:
    _, _, taken = simulate(0.01, 100.0, 200, None)
    assert taken == len(Schedule.of(200, TopologyConfig()).planned())


def test_a_dear_sample_is_thinned_but_early_ones_stay() -> None:
    spent, run, taken = simulate(1.0, 4.0, 1000, 0.05)
    early = 6
    assert early < taken < len(Schedule.of(1000, TopologyConfig()).planned())
    assert spent / run < 0.055
