"""The schedule is a pure function of the step: early steps dense, later ones regular, the last one always."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topo_callback.config import TopologyConfig
from topo_callback.schedule import Schedule


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
