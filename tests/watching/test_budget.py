"""The overhead budget keeps its promise on simulated runs: the share is exceeded by at most one sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo_callback.config import TopologyConfig
from topo_callback.watching.budget import OverheadBudget
from topo_callback.watching.schedule import Schedule


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
        if step in schedule and (schedule.never_thinned(step) or budget.allows()):
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
    assert spent <= max(share * run, early) * (1 + 1e-9) + sample_seconds


def test_a_cheap_sample_is_never_thinned() -> None:
    _, _, taken = simulate(1.0, 0.01, 1000, 0.05)
    assert taken == len(Schedule.of(1000, TopologyConfig()).planned())


def test_without_a_limit_nothing_is_thinned() -> None:
    _, _, taken = simulate(0.01, 100.0, 200, None)
    assert taken == len(Schedule.of(200, TopologyConfig()).planned())


def test_a_dear_sample_is_thinned_but_early_ones_stay() -> None:
    spent, run, taken = simulate(1.0, 4.0, 1000, 0.05)
    early = 6
    assert early < taken < len(Schedule.of(1000, TopologyConfig()).planned())
    assert spent / run < 0.055
