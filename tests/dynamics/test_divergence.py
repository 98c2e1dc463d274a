"""A loss that rises at a change and stays up, one that comes back, and one that is no number any more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.dynamics.divergence import NOT_FINITE, STAYS
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.training import TrainingWatch, training_events
from topo_callback.records.training_steps import COLUMNS, TrainingSteps

STEPS = 200


def training(factors: dict[int, float], last: int = STEPS, noise: float = 0.05) -> TrainingSteps:
    """A noisy loss around 2, multiplied by the newest factor from its step on."""
    loss = 2 * np.exp(noise * np.random.default_rng(1).normal(size=STEPS))
    for step, factor in factors.items():
        loss[step - 1 :] *= factor
    return TrainingSteps.of([(step + 1.0, float(loss[step]), *[None] * (len(COLUMNS) - 2)) for step in range(last)])


def diverged(steps: TrainingSteps) -> list[Event]:
    return [event for event in training_events(steps) if event.kind == "divergence"]


def test_a_loss_that_stays_up_has_diverged_after_32_steps() -> None:
    (event,) = diverged(training({100: 1.8}))
    change = next(event for event in training_events(training({100: 1.8})) if event.kind == "change")
    assert (event.level, event.first_step, event.measured) == ("sequential", 100, True)
    assert event.known_at == event.last_step == change.known_at + STAYS
    assert event.factor == pytest.approx(1.8, rel=0.05)
    assert event.explanation == "the loss has stayed 1.8x what it was before the change of step 100, for 32 steps"
    assert diverged(training({100: 1.8}, last=change.known_at + STAYS - 1)) == []


@pytest.mark.parametrize("factors", [{100: 3.0, 110: 1 / 3}, {100: 0.4}, {100: 1.24}, {}])
def test_one_that_comes_back_or_falls_or_hardly_rises_has_not(factors: dict[int, float]) -> None:
    assert diverged(training(factors)) == []


def test_a_change_that_is_small_is_no_divergence() -> None:
    for factor, count in ((1.2, 0), (1.3, 1)):
        steps = training({100: factor}, noise=0.01)
        assert "change" in {event.kind for event in training_events(steps)}
        assert len(diverged(steps)) == count


def test_a_loss_that_grows_long_behind_a_change_has_diverged_too() -> None:
    steps = training({100: 3.0, 104: 1 / 3}, noise=0.02)
    steps.values[140:, 0] *= np.exp(np.minimum(0.1 * np.arange(60), 3.0))
    (event,) = diverged(steps)
    assert 155 <= event.known_at <= 190
    assert event.first_step == 100


def test_no_change_no_divergence() -> None:
    """A loss that rises from the start on has no level to have left."""
    steps = training({}, noise=0.02)
    steps.values[:, 0] *= np.exp(0.002 * np.arange(STEPS))
    assert diverged(steps) == []


def test_one_that_keeps_coming_back_has_not() -> None:
    steps = training({100: 2.0})
    steps.values[[place for place in range(103, STEPS) if place % 5 in (0, 1)], 0] /= 2.0
    assert "change" in {event.kind for event in training_events(steps)}
    assert diverged(steps) == []


def test_one_that_goes_back_to_where_it_was_before_an_earlier_change_has_not() -> None:
    """Data that are learnt by heart give way to the ones before."""
    steps = training({60: 0.01, 130: 100.0})
    changes = [event.first_step for event in training_events(steps) if event.kind == "change"]
    assert changes == [60, 130]
    assert diverged(steps) == []
    (event,) = diverged(training({60: 0.01, 130: 180.0}))
    assert event.first_step == 60
    assert event.factor == pytest.approx(1.8, rel=0.1)


def test_a_loss_that_is_no_number_for_8_steps_has_diverged() -> None:
    for count, known in ((NOT_FINITE - 1, []), (NOT_FINITE, [60 + NOT_FINITE - 1]), (40, [60 + NOT_FINITE - 1])):
        steps = training({})
        steps.values[59 : 59 + count, 0] = np.nan
        assert [event.known_at for event in diverged(steps)] == known
    apart = training({})
    apart.values[[*range(59, 66), 68, 69], 0] = np.nan
    assert diverged(apart) == []
    (event,) = diverged(steps)
    assert event.level == "observed"
    assert event.explanation == "the loss has not been finite for 8 steps, since step 60"
    unknown = TrainingSteps(steps.step, steps.values, np.zeros_like(steps.known))
    assert diverged(unknown) == []


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_portions_do_not_matter(portions: list[int]) -> None:
    steps = training({60: 2.0, 140: 0.5})
    steps.values[150:170, 0] = np.inf
    watch, found, start = TrainingWatch(), [], 0
    for size in [*portions, STEPS]:
        part = slice(start, start + size)
        found += watch.take(TrainingSteps(steps.step[part], steps.values[part], steps.known[part]))
        start += size
    assert [each for each in found if each.kind == "divergence"] == diverged(steps)
    assert len(diverged(steps)) == 2
