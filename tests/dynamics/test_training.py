"""What training shows, in words: which signals changed, and what the plan did at that time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topo_callback.dynamics import Series, find_events
from topo_callback.dynamics.training import TrainingWatch, course_of, training_events, unsaid
from topo_callback.records.training_steps import COLUMNS, TrainingSteps

STEPS = 160


def rows(**columns: np.ndarray) -> TrainingSteps:
    """A quiet run of 160 steps, with some columns replaced."""
    draw = np.random.default_rng(0)
    rate = 1e-3 * np.linspace(1, 0.1, STEPS)
    values = {
        "step": np.arange(1, STEPS + 1),
        "loss": np.exp(1 + 0.05 * draw.normal(size=STEPS)),
        "grad_norm": np.exp(0.05 * draw.normal(size=STEPS)),
        "moved": 100 * rate * np.exp(0.02 * draw.normal(size=STEPS)),
        "learning_rate": rate, "largest_learning_rate": rate, "planned": rate, "largest_planned": rate,
        "skipped": np.zeros(STEPS), "epoch": np.arange(1, STEPS + 1) / 64,
        **columns,
    }  # fmt: skip
    return TrainingSteps.of([tuple(float(values[name][i]) for name in COLUMNS) for i in range(STEPS)])


def scaled(name: str, factor: float, first: int, last: int = STEPS) -> np.ndarray:
    found = rows().column(name).copy()
    found[first - 1 : last] *= factor
    return found


def test_a_quiet_run_says_nothing() -> None:
    assert training_events(rows()) == []


def test_a_rate_that_nobody_planned_is_named() -> None:
    changed = {"moved": scaled("moved", 8, 101, 103), "learning_rate": scaled("learning_rate", 8, 101, 103)}
    event = training_events(rows(**changed))[0]
    assert (event.kind, event.level, event.first_step, event.known_at, event.measured) == (
        "change", "sequential", 101, event.last_step, True,
    )  # fmt: skip
    assert event.known_at in (101, 102)
    assert event.factor == pytest.approx(8, rel=0.1)
    assert event.explanation.startswith("step of the weights per scheduled learning rate ")
    assert event.explanation.endswith("; the optimizer's learning rate was 8x the scheduled one")


def test_signals_are_named_by_what_they_have_to_do_with_it() -> None:
    both = {"loss": scaled("loss", 2.5, 100), "grad_norm": scaled("grad_norm", 6, 100)}
    event = training_events(rows(**both))[0]
    assert event.explanation.startswith("gradient norm ")
    assert " and loss 2." in event.explanation
    assert event.explanation.endswith("what it was before, in steps 100-101")


def test_an_epoch_a_restart_and_a_skipped_step_are_said() -> None:
    norm = scaled("grad_norm", 6, 129)
    epoch = np.arange(1, STEPS + 1) / 64
    (event,) = training_events(rows(grad_norm=norm, epoch=epoch))
    assert event.explanation.endswith("in steps 129-130; an epoch began at step 129")
    skipped = np.zeros(STEPS)
    skipped[129] = 1
    restart = scaled("planned", 5, 129)
    (event,) = training_events(rows(grad_norm=norm, skipped=skipped, planned=restart, learning_rate=restart,
                                    moved=scaled("moved", 5, 129), epoch=np.zeros(STEPS)))  # fmt: skip
    assert "; the schedule made the learning rate 4.9x what it was, the optimizer skipped a step" in event.explanation


def test_a_loss_that_is_not_finite_is_a_fact_for_each_stretch() -> None:
    loss = rows().column("loss").copy()
    loss[[4, 5, 6, 30]] = math.nan, math.inf, math.nan, math.nan
    found = training_events(rows(loss=loss))
    assert [(each.kind, each.level, each.first_step, each.last_step, each.known_at) for each in found] == [
        ("not_finite", "observed", 5, 7, 5),
        ("not_finite", "observed", 31, 31, 31),
    ]
    assert found[0].explanation == "the loss is not finite in steps 5-7"
    unknown = TrainingSteps(rows().step, np.where(np.arange(9) == 0, np.nan, rows().values), rows().known & False)
    assert training_events(unknown) == []
    assert unsaid(unknown) == ["loss"]


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("portion", [1, 3])
def test_portions_say_the_same(portion: int, references: bool) -> None:
    course = course_of(REFERENCES) if references else None
    loss = scaled("loss", 3, 65)  # with an epoch
    loss[[40, 41]] = math.nan
    training = rows(loss=loss, moved=scaled("moved", 6, 128))
    watch, found = TrainingWatch(course), []
    for first in range(0, STEPS, portion):
        part = slice(first, first + portion)
        found += watch.take(TrainingSteps(training.step[part], training.values[part], training.known[part]))
    assert [(each.kind, each.first_step, each.known_at) for each in found] == [
        (each.kind, each.first_step, each.known_at) for each in training_events(training, course)
    ]
    assert [each.explanation for each in found if each.kind == "change"] == [
        each.explanation for each in training_events(training, course) if each.kind == "change"
    ]
    assert {each.kind for each in found} == {"change", "divergence", "not_finite"}
    assert any("an epoch began at step 65" in each.explanation for each in found)


def test_a_run_without_a_schedule_is_judged_by_its_steps() -> None:
    training = rows(moved=0.1 + 0 * scaled("moved", 1, 1) + 0.5 * (np.arange(STEPS) >= 100))
    unplanned = training.values.copy()
    unplanned[:, COLUMNS.index("planned") - 1] = np.nan
    (event,) = training_events(TrainingSteps(training.step, unplanned, training.known))
    assert event.known_at in (101, 102)


def quiet(seed: int) -> TrainingSteps:
    draw = np.random.default_rng(100 + seed)
    noise = {name: np.exp(0.05 * draw.normal(size=STEPS)) for name in ("loss", "grad_norm", "moved")}
    return rows(**{name: rows().column(name) * noise[name] for name in noise})


REFERENCES = [quiet(seed) for seed in range(19)]


def test_references_find_a_change_that_the_run_alone_does_not_show() -> None:
    small = rows(loss=scaled("loss", 1.25, 100))
    assert training_events(small) == []
    event = training_events(small, course_of(REFERENCES))[0]
    assert (event.kind, event.level, event.p_value, event.measured) == (
        "change",
        "calibrated",
        pytest.approx(0.05),
        True,
    )
    assert 100 <= event.known_at <= 116
    assert event.explanation.startswith("beside 19 reference runs, loss 1.")
    assert event.explanation.endswith("; calibrated p = 0.05")
    assert not any(each.measured for each in training_events(small, course_of(REFERENCES), measured=False))


def test_what_is_not_measured_stands_for_nothing_that_is() -> None:
    up = rows(loss=scaled("loss", 3, 100))
    alone = [event for event in training_events(up) if event.measured]
    unsaid = training_events(up, course_of(REFERENCES), measured=False)
    assert [event for event in unsaid if event.measured] == alone
    assert {event.kind for event in alone} == {"change", "divergence"}
    # and a divergence is that of a change that the run alone shows
    assert {event.level for event in training_events(up, course_of(REFERENCES)) if event.kind == "divergence"} == {
        "sequential"
    }


def test_what_two_levels_find_is_told_once() -> None:
    twice = rows(grad_norm=scaled("grad_norm", 6, 70, 72), loss=scaled("loss", 3, 130, 136))
    events = training_events(twice, course_of(REFERENCES))
    assert [event.level for event in events] == ["calibrated", "calibrated"]
    assert [event.first_step for event in events] == [70, 130]
    alone = training_events(twice)
    assert [event.level for event in alone] == ["sequential", "sequential"]
    assert all(one.known_at <= other.known_at for one, other in zip(events, alone, strict=True))


def test_what_the_references_do_too_is_no_change_beside_them_and_is_one_of_the_run() -> None:
    both = [rows(loss=each.column("loss"), grad_norm=scaled("grad_norm", 6, 100)) for each in REFERENCES]
    (event,) = training_events(rows(grad_norm=scaled("grad_norm", 6, 100)), course_of(both))
    assert event.level == "sequential"


def test_steps_without_a_plan_are_not_compared_with_planned_ones() -> None:
    unplanned = quiet(30).values.copy()
    unplanned[:, COLUMNS.index("planned") - 1] = np.nan
    training = TrainingSteps(REFERENCES[0].step, unplanned, REFERENCES[0].known)
    assert training_events(training, course_of(REFERENCES)) == training_events(training)


def test_steps_are_compared_as_they_are_where_one_reference_has_no_plan() -> None:
    unplanned = REFERENCES[0].values.copy()
    unplanned[:, COLUMNS.index("planned") - 1] = np.nan
    mixed = course_of([TrainingSteps(REFERENCES[0].step, unplanned, REFERENCES[0].known), *REFERENCES[1:]])
    assert mixed is not None
    assert not mixed.planned
    run = rows(moved=scaled("moved", 1.3, 100))
    for course, unit in ((course_of(REFERENCES), " per scheduled learning rate"), (mixed, "")):
        (event,) = training_events(run, course)
        assert (event.kind, event.level) == ("change", "calibrated")
        assert f"reference runs, step of the weights{unit} 1.3x" in event.explanation


def test_fewer_than_19_references_find_nothing() -> None:
    assert course_of(REFERENCES[:1]) is None
    assert training_events(rows(loss=scaled("loss", 1.25, 100)), course_of(REFERENCES[:18])) == []


def test_events_of_a_run_include_those_of_its_training() -> None:
    series = Series((0, 1), (1,), {}, np.ones(1), "steps", training=rows(grad_norm=scaled("grad_norm", 6, 100)))
    found = find_events(series)
    assert [each.kind for each in found.events] == ["change"]
    assert not any("without the" in note for note in found.notes)
    training = rows(grad_norm=np.full(STEPS, np.nan))
    notes = find_events(Series((0, 1), (1,), {}, np.ones(1), "steps", training=training)).notes
    assert "changes are looked for without the gradient norm, which no step has" in notes
