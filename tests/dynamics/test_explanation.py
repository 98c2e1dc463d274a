"""What is said of a change by the samples around it: layers, answers, and whether it is over."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from topo_callback.dynamics import Event, Series, find_events
from topo_callback.dynamics.explanation import FEWEST, explanations, standing_out
from topo_callback.records.logged_numbers import COLUMNS as LOGGED
from topo_callback.records.training_steps import COLUMNS, TrainingSteps

STEPS = 160
EVENT = 100


def training(factors: dict[int, float]) -> TrainingSteps:
    """A linear schedule, and a gradient norm that is multiplied by the newest factor from its step on."""
    norm = np.exp(0.05 * np.random.default_rng(0).normal(size=STEPS))
    for step, factor in factors.items():
        norm[step - 1 :] *= factor
    table = np.full((STEPS, len(COLUMNS)), np.nan)
    table[:, 0] = np.arange(1, STEPS + 1)
    table[:, COLUMNS.index("grad_norm")] = norm
    table[:, COLUMNS.index("planned")] = 1e-3 * np.linspace(1, 0.2, STEPS)
    return TrainingSteps.of([tuple(None if np.isnan(each) else each for each in row) for row in table.tolist()])


def series(factors: dict[int, float], moved: dict[int, float] | None = None, answers: float = 1.0) -> Series:
    """A run with a sample every 8 steps; at step 104 some layers, by their number, moved so many times as far."""
    table = training(factors)
    steps = tuple(range(0, STEPS + 1, 8))
    planned = np.concatenate([[0.0], np.cumsum(table.column("planned"))])[list(steps)]
    draw = np.random.default_rng(1)
    rtd = 40 * np.diff(planned)[:, None] * np.exp(0.1 * draw.normal(size=(len(steps) - 1, 6)))
    js = (np.diff(planned) * np.exp(0.1 * draw.normal(size=len(steps) - 1))) ** 2
    for layer, factor in (moved or {}).items():
        rtd[12, layer - 1] *= factor
    js[12] *= answers**2
    return Series(
        steps, tuple(range(1, 7)), {"rtd": rtd}, np.ones(len(steps) - 1), "steps", STEPS, training=table, answers=js
    )


def explained(run: Series) -> list[Event]:
    return [event for event in find_events(run, measure="rtd").events if event.kind == "explained"]


def test_layers_that_moved_further_than_before_are_named() -> None:
    (event,) = explained(series({EVENT: 8.0}, {2: 5.0, 3: 6.0, 5: 1.1}))
    assert (event.level, event.first_step, event.layers) == ("observed", EVENT, (2, 3))
    assert event.factor == pytest.approx(5.4, rel=0.25)
    assert "; layers 2-3 moved " in event.explanation
    assert "x as far as before for the planned learning rate (RTD)" in event.explanation
    assert event.explanation.endswith("; answers moved no further than before")


def test_where_nothing_moved_that_is_said() -> None:
    (event,) = explained(series({EVENT: 8.0}, answers=4.0))
    assert (event.layers, event.factor) == ((), None)
    assert "no layer moved further than before" in event.explanation
    assert "; answers moved 4." in event.explanation


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({EVENT: 8.0, EVENT + 4: 1 / 8}, "is over: the gradient norm is 1"),
        ({EVENT: 8.0}, "has stayed: the gradient norm is 8.3x"),
        ({EVENT: 8.0, EVENT + 8: 8.0}, "goes on: the gradient norm is 6"),
    ],
)
def test_what_became_of_it_is_said(factors: dict[int, float], said: str) -> None:
    event = explained(series(factors))[0]
    assert said in event.explanation
    assert event.explanation.startswith(f"the change of steps {EVENT}-")


def test_it_is_said_16_steps_later_or_at_the_end_of_the_run() -> None:
    assert explained(series({EVENT: 8.0}))[0].known_at == 120
    late = series({150: 8.0})
    assert explained(late)[0].known_at == 160
    assert explained(dataclasses.replace(late, max_steps=1000)) == []
    assert explained(series({})) == []


def test_a_change_is_not_compared_with_earlier_ones() -> None:
    run = series({50: 8.0, 52: 1 / 8, EVENT: 8.0}, {2: 5.0})
    run.displacement["rtd"][6, 1] *= 20.0
    first, second = explained(run)
    assert first.layers == second.layers == (2,)
    assert first.known_at == 72


def test_layers_that_had_not_moved_at_all_moved_for_the_first_time() -> None:
    run = series({EVENT: 8.0})
    run.displacement["rtd"][:12, :2] = 0.0
    (event,) = explained(run)
    assert event.layers == (1, 2)
    assert "layers 1-2 moved for the first time" in event.explanation


def test_answers_that_moved_for_the_first_time_are_said_to() -> None:
    run = series({EVENT: 8.0})
    assert run.answers is not None
    run.answers[:12] = 0.0
    assert explained(run)[0].explanation.endswith("answers moved for the first time")


def test_intervals_in_which_nothing_was_planned_say_nothing() -> None:
    moved, plan = np.ones((13, 1)), np.zeros(13)
    plan[3], moved[12] = -np.inf, 100.0
    assert standing_out(moved, plan, np.arange(12), slice(12, 13)) == pytest.approx(np.full(1, 100.0))
    plan[12] = -np.inf
    assert standing_out(moved, plan, np.arange(12), slice(12, 13)) is None


def test_too_few_or_missing_intervals_say_nothing() -> None:
    plan = np.zeros(8)
    moved = np.ones((8, 2))
    moved[7] = 9.0
    before, now = np.arange(7), slice(7, 8)
    assert standing_out(moved, plan, before[: FEWEST - 1], now) is None
    assert standing_out(moved, plan, before, now) == pytest.approx(np.full(2, 9.0))
    moved[:, 0] = np.nan
    found = standing_out(moved, plan, before, now)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(9.0)
    moved[5, 1] = 4.0  # it has been as far before
    assert np.isnan(standing_out(moved, plan, before, now)).all()


def test_runs_without_displacements_are_explained_by_training_alone() -> None:
    run = dataclasses.replace(series({EVENT: 8.0}), displacement={}, answers=None)
    (event,) = explanations(run, [event for event in find_events(run).events if event.kind == "change"])
    assert (
        event.explanation
        == f"the change of steps {EVENT}-{EVENT + 1} has stayed: the gradient norm is 8.3x what it was before"
    )


def test_logged_numbers_that_left_their_course_are_said_last() -> None:
    reward = 0.05 * np.random.default_rng(2).normal(size=STEPS)
    reward[EVENT - 1 :] -= 1
    rows = [(float(step), reward[step - 1], *[None] * (len(LOGGED) - 2)) for step in range(2, STEPS + 1, 2)]
    run = dataclasses.replace(series({EVENT: 8.0}), logged=TrainingSteps.of(rows, LOGGED))
    (event,) = explained(run)
    assert (
        "; answers moved no further than before; reward fell to -0.984 (-0.122 to 0.0883 before)" in event.explanation
    )
