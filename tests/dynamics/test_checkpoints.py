"""Stop, or which checkpoint: answers that the record carries, and `not enough evidence` where it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from answered_runs import CONFIG, STEPS, answered_run, plateau
from trajectories import write_trajectory

from topo_callback.dynamics import Event
from topo_callback.dynamics.checkpoints import _Evaluations, checkpoint_answers, eval_loss_turned
from topo_callback.dynamics.course import ANSWERS, LOSS, Course
from topo_callback.dynamics.verdict import NOT_ENOUGH
from topo_callback.measures.uncertainty import error_of
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import COLUMNS as LOGGED
from topo_callback.records.logged_numbers import LoggedNumbers
from topo_callback.records.training_steps import StepsWriter
from topo_callback.records.trajectory import Trajectory

DIVERGENCE = Event("divergence", "sequential", 50, 90, 90, (), 1.8, None, "the loss has stayed 1.8x what it was")


def said(run: Trajectory, *events: Event) -> list[str]:
    return [answer.answer for answer in checkpoint_answers(run, events)]


def test_answers_that_came_to_rest_are_told_since_when(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.0)
    assert said(run) == ["no sign of a divergence", "no, since step 40", NOT_ENOUGH]
    moving = checkpoint_answers(run, [])[1]
    assert "within a tenth of 98 ± 12 % of the probability" in moving.evidence
    assert "(between 40 and 40, by the errors over prompts)" in moving.evidence


def test_errors_widen_when_they_came_to_rest(tmp_path: Path) -> None:
    run = answered_run(tmp_path, lambda step: 1 - 0.85 ** (step / 4), lambda step: 0.0, noise=0.02)
    assert said(run)[1] == "no, since step 56"
    assert "(between 56 and 64, by the errors over prompts)" in checkpoint_answers(run, [])[1].evidence


@pytest.mark.parametrize("forgot", [0.01, -0.01, 0.0])
def test_forgetting_alone_decides_nothing_but_is_told(tmp_path: Path, forgot: float) -> None:
    run = answered_run(tmp_path, plateau, lambda step: forgot * step)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == NOT_ENOUGH
    assert which.evidence.startswith("no eval_loss is recorded (eval_strategy makes it); nothing else")
    assert "from step 40 on the answers are as at the end" in which.evidence
    course = Course.of_prompts(run, LOSS)
    assert course is not None
    since, _ = course.difference(course.steps.index(40), len(course.steps) - 1)
    assert f"changed by {course.values[-1]:+.2g} ± " in which.evidence
    assert f", by {since:+.2g} ± " in which.evidence
    assert which.evidence.endswith(" since step 40")


def test_answers_that_still_move(tmp_path: Path) -> None:
    assert said(answered_run(tmp_path, lambda step: step / 96, lambda step: 0.0))[1] == "yes, until the last sample"


def test_samples_without_the_number_leave_it_open_how_it_ends(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "a", plateau, lambda step: 0.0, until={ANSWERS: 72})
    _, moving, which = checkpoint_answers(run, [])
    assert moving.answer == which.answer == NOT_ENOUGH
    assert moving.evidence == "the newest samples have no number of the answers, the last is of step 72"
    assert "on the answers are" not in which.evidence
    lost = answered_run(tmp_path / "b", plateau, lambda step: 2.0 * (step > 48), until={LOSS: 72})
    _, moving, which = checkpoint_answers(lost, [])
    assert (moving.answer, which.answer) == ("no, since step 40", NOT_ENOUGH)
    assert which.evidence.startswith(
        "the newest samples have no number of the loss on general text, the last is of step 72; "
    )


@pytest.mark.parametrize("steps", [STEPS, tuple(range(0, 120, 3))])
def test_what_grows_evenly_is_not_at_rest_however_many_samples_there_are(
    tmp_path: Path, steps: tuple[int, ...]
) -> None:
    run = answered_run(tmp_path, lambda step: step / 300, lambda step: 0.0, steps=steps)
    assert said(run)[1:] == ["yes, until the last sample", NOT_ENOUGH]


def test_whether_it_is_at_rest_may_be_open(tmp_path: Path) -> None:
    run = answered_run(tmp_path, lambda step: min(step, 66) / 300, lambda step: 0.0, noise=0.02)
    assert said(run)[1:] == [NOT_ENOUGH] * 2


Settings = Mapping[str, object]
SFT: Settings = {"settings": "SFTConfig", "loss_type": "nll", "label_smoothing_factor": 0.0}


def evaluated(
    run: Trajectory,
    values: Sequence[float],
    steps: Sequence[int] = range(8, 1000, 8),
    *,
    training: Settings = SFT,
    **others: float,
) -> Trajectory:
    """The run with an eval loss at these steps, other numbers logged with it, and settings of its trainer."""
    numbers = LoggedNumbers()
    writer = StepsWriter(TrajectoryFolder(run.folder).logged, LOGGED)
    for step, value in zip(steps, values, strict=False):
        writer.append(numbers.take(step, {"eval_loss": value, **others}))
    writer.append(numbers.rest())
    described = run.folder / "run.json"
    content = json.loads(described.read_text())
    content["training"] = {**content.get("training", {}), **training}
    described.write_text(json.dumps(content))
    return Trajectory.load(run.folder)


def test_an_eval_loss_that_turned_decides(tmp_path: Path) -> None:
    losses = [3.0, 2.5, 2.2, 2.0, 2.01, 2.2, 2.4, 2.7, 2.9, 3.1, 3.4]
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0), losses)
    stop, _, which = checkpoint_answers(run, [])
    assert (stop.answer, which.answer) == ("its eval loss has risen since step 32", "about step 32")
    assert stop.evidence.startswith("the eval loss was lowest at step 32, 2, and is 3.4 at step 88 (")
    assert said(run, DIVERGENCE)[0] == "yes, it diverged after step 50"


@pytest.mark.parametrize(
    "losses",
    [
        [3.0, 2.5, 2.2, 2.0, 1.9, 1.85, 1.8, 1.78, 1.77, 1.76],  # falls
        [2.0, 2.1, 1.9, 2.05, 1.8, 2.1, 2.0, 1.95, 2.15, 2.1],  # scatters
        [3.0, 2.5, 2.2, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.4],  # one evaluation
        [2.0, 3.0, 4.0],  # too few
        [2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6, float("nan")],
    ],
)
def test_an_eval_loss_that_has_not_clearly_turned_stops_nothing(tmp_path: Path, losses: list[float]) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0), losses)
    assert said(run)[:2] == ["no sign of a divergence", "no, since step 40"]
    assert eval_loss_turned(run) is None


FALLS = tuple(2 + 0.8**place for place in range(11))


def forgot(step: float) -> float:
    return 0.02 * max(0.0, step - 32)


def change(run: Trajectory, one: int, other: int) -> tuple[float, float]:
    """Of the loss on general text, with its error."""
    course = Course.of_prompts(run, LOSS)
    assert course is not None
    return course.between(one, other)


def test_what_is_learned_is_weighed_against_what_is_forgotten(tmp_path: Path) -> None:
    kept = evaluated(answered_run(tmp_path / "kept", plateau, lambda step: 0.0), FALLS)
    which = checkpoint_answers(kept, [])[2]
    assert which.answer == "the last one"
    assert which.evidence == "the eval loss plus the loss on general text is lowest at the last of 11 evaluations"
    # from step 32 to 88 the eval loss falls by .3, and the other rises by 1.1
    lost = evaluated(answered_run(tmp_path / "lost", plateau, forgot), FALLS)
    which = checkpoint_answers(lost, [])[2]
    more, error = change(lost, 32, 88)
    assert which.answer == "about step 32"
    assert which.evidence == (
        "the eval loss plus the loss on general text was lowest at step 32; from there to step 88 the eval loss "
        f"changed by {FALLS[10] - FALLS[3]:+.2g} and the other by {more:+.2g} ± {2 * error:.1g}, "
        f"where evaluations may scatter by {3 * (FALLS[4] - (FALLS[3] + FALLS[5]) / 2) / -(1.5**0.5):.1g}"
    )


def test_a_rise_of_the_eval_loss_that_general_text_makes_up_for_is_told(tmp_path: Path) -> None:
    losses = [3.0, 2.5, 2.2, 2.0, *(2.0 + 0.05 * place for place in range(1, 8))]
    run = evaluated(answered_run(tmp_path, plateau, lambda step: -0.02 * step), losses)
    stop, _, which = checkpoint_answers(run, [])
    assert stop.answer == "its eval loss has risen since step 32"
    assert which.answer == "the last one"
    assert which.evidence.endswith(
        f"; since step 32 the former changed by +0.35 and the latter by {change(run, 32, 88)[0]:+.2g}"
    )


def course_of(values: Sequence[float], tmp_path: Path, **options: float) -> str:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0, **options), values)
    return checkpoint_answers(run, [])[2].answer


def test_the_newest_two_have_to_be_above_the_scatter_behind_the_lowest(tmp_path: Path) -> None:
    falls = [3.0, 2.0, 1.5, 1.4]  # which is no scatter
    assert course_of([*falls, 1.45, 1.5, 1.55, 1.6, 1.65], tmp_path / "rises") == "about step 32"
    assert course_of([*falls, 1.45, 1.41, 1.45, 1.42, 1.45], tmp_path / "level") == "about step 32, or the last one"
    behind = [1.45, 1.42, 1.46, 1.49, 1.525]  # of which 1.45 is .04 off its line, so that .098 is needed
    assert course_of([*falls, *behind], tmp_path / "newest") == "about step 32, or the last one"
    assert course_of([*falls, *behind[:3], 1.51, 1.525], tmp_path / "both") == "about step 32"
    assert course_of([*falls, 1.6, 1.6, 1.6, 1.41, 1.6], tmp_path / "one") == "about step 32, or the last one"
    assert (
        course_of([*falls[:3], 1.48, 1.47, 1.46, 1.4, 1.41, 1.6], tmp_path / "few") == "about step 56, or the last one"
    )


def test_what_is_between_the_lowest_and_the_last_is_not_named(tmp_path: Path) -> None:
    losses = [3, 2.0, 2.1, 2.3, 2.6, 2.9, 2.9, 2.6, 2.3, 2.1, 2.01]
    assert course_of(losses, tmp_path) == "about step 16, or the last one"


@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_few_evaluations_the_scatter_is_not_known(tmp_path: Path, count: int) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0), [2.0] + [3.0] * (count - 1))
    which = checkpoint_answers(run, [])[2]
    assert which.answer == "about step 8, or the last one"
    assert which.evidence.endswith(f"; how far {count} evaluations scatter is not known")


def test_a_rise_within_rounding_or_the_error_of_general_text_is_none(tmp_path: Path) -> None:
    level = [2 + 5e-8 * place for place in range(11)]
    run = evaluated(answered_run(tmp_path / "rounding", plateau, lambda step: 0.0, noise=0.0), level)
    assert said(run)[2] == "about step 8, or the last one"
    for noise in (0.002, 0.2):
        run = answered_run(tmp_path / str(noise), plateau, lambda step: 0.001 * max(0, step - 8), noise=noise)
        assert ("or the last one" in said(evaluated(run, [2.0] * 11))[2]) == (noise > 0.1)
    # errors between samples are those of the same passages: here samples are far apart
    far = answered_run(tmp_path / "far", plateau, lambda step: 0.0005 * step, steps=(0, 4, 8, 12, 16, 96), noise=0.05)
    far = evaluated(far, [2.0] * 9, (0, 60, 65, 70, 75, 80, 85, 90, 96))
    _, error = change(far, 0, 96)
    assert error > 0.01
    assert f" ± {2 * error:.1g}, where evaluations may scatter by 0" in checkpoint_answers(far, [])[2].evidence


def test_noise_alone_rarely_names_one(tmp_path: Path) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0, noise=0.0), [2.0] * 11)
    course = Course.of_prompts(run, LOSS)
    assert course is not None
    draw = np.random.default_rng(0)
    alone = 0
    for count in (8, 11, 11):
        for shape in (0.0, 1.0):
            for _ in range(40):
                losses = shape * np.exp(-np.arange(count) / draw.uniform(2, 20)) + 0.02 * draw.standard_t(3, size=count)
                logged = pd.DataFrame({"step": 8 * np.arange(1, count + 1), "eval_loss": 2 + losses})
                with mock.patch.object(Trajectory, "logged_numbers", return_value=logged):
                    alone += re.fullmatch(r"about step \d+", said(run)[2]) is not None
    assert alone <= 12  # of 240


def test_deviations_are_in_units_of_one_evaluations_noise_at_any_steps() -> None:
    steps = np.array([0, 8, 12, 14, 15, 16, 32, 40, 88])
    draws = np.random.default_rng(0).normal(size=(4000, len(steps)))
    found = np.array([_Evaluations(steps, draw, True).deviations for draw in draws + steps / 100])
    np.testing.assert_allclose((found**2).mean(axis=0), 1, atol=0.1)


def test_between_samples_general_text_is_on_a_line(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.1 * step)
    run = evaluated(run, [2.0] * 10, range(4, 88, 8))
    course = Course.of_prompts(run, LOSS)
    assert course is not None
    middle = (course.values[8] + course.values[9]) / 2 - course.values[0] / 2
    assert change(run, 4, 76)[0] == pytest.approx(middle)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == "about step 4"
    assert f" and the other by {middle:+.2g} ± " in which.evidence


def test_the_error_between_two_steps_is_that_of_the_same_passages() -> None:
    rows = np.random.default_rng(0).normal(1.0, 2.0, size=(2, 20))
    course = Course(4, 20, (8, 16), rows.mean(axis=1), np.zeros(2), rows)
    for one, other, expected in (
        (4, 8, rows[0]),
        (4, 6, rows[0] / 2),
        (6, 12, rows[0] / 2 + rows[1] / 2 - rows[0] / 2),
        (8, 16, rows[1] - rows[0]),
    ):
        value, error = course.between(one, other)
        assert value == pytest.approx(expected.mean())
        assert error == pytest.approx(error_of(expected.std(ddof=1) / 20**0.5, 20))
    assert course.between(4, 4)[0] == 0
    with pytest.raises(ValueError, match="without its prompts"):
        Course(4, 20, (8, 16), rows.mean(axis=1), np.zeros(2)).between(4, 8)


def test_later_evaluations_than_the_newest_sample_wait_for_the_next(tmp_path: Path) -> None:
    run = evaluated(answered_run(tmp_path / "a", plateau, forgot), FALLS, [*range(8, 88, 8), 90])
    assert said(run)[2] == "about step 32"
    falls = evaluated(answered_run(tmp_path / "b", plateau, lambda step: 0.0), FALLS, range(16, 100, 8))
    assert said(falls)[2] == "step 88"
    assert checkpoint_answers(falls, [])[2].evidence.endswith("lowest at the last of 10 evaluations")
    early = evaluated(answered_run(tmp_path / "c", plateau, lambda step: 0.0, steps=tuple(range(40, 96, 8))), FALLS)
    assert checkpoint_answers(early, [])[2].evidence.endswith("lowest at the last of 7 evaluations")


def test_evaluations_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    holes = [FALLS[0], float("nan"), *FALLS[2:5], float("inf"), *FALLS[6:]]
    run = evaluated(answered_run(tmp_path / "a", plateau, forgot), holes)
    assert said(run)[2] == "about step 32"
    gone = evaluated(answered_run(tmp_path / "b", plateau, forgot), [*FALLS[:-1], float("nan")])
    which = checkpoint_answers(gone, [])[2]
    assert which.answer == NOT_ENOUGH
    assert which.evidence.startswith("the newest eval loss is not a number; ")


@pytest.mark.parametrize(
    ("until", "values", "steps", "reason"),
    [
        (
            {},
            (),
            (),
            "no eval_loss is recorded (eval_strategy makes it); nothing else tells which checkp",
        ),
        ({}, (2.0,), (8,), "there is one evaluation; two are needed"),
        ({}, (2.0, 1.9), (88, 96), "the loss on general text is known at fewer than two evaluations"),
        ({LOSS: 72}, FALLS, range(8, 96, 8), "the newest samples have no number of the loss on general text"),
        ({LOSS: 0}, FALLS, range(8, 96, 8), "the loss on general text is not recorded, or of fewer than 16 passages"),
    ],
)
def test_why_nothing_is_weighed(
    tmp_path: Path, until: dict[str, int], values: Sequence[float], steps: Sequence[int], reason: str
) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.1 * step, until=until), values, steps)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == NOT_ENOUGH
    assert which.evidence.startswith(reason)


NO_NATS = "the eval loss is not known to be in nats per token, which those of general text are; "


@pytest.mark.parametrize(
    ("training", "others", "weighed"),
    [
        (SFT, {}, True),
        (SFT, {"entropy": 0.5, "mean_token_accuracy": 0.5, "num_tokens": 9.0}, True),
        ({"settings": "TrainingArguments", "label_smoothing_factor": 0.0}, {}, True),
        ({**SFT, "loss_type": "dft"}, {}, False),
        ({**SFT, "label_smoothing_factor": 0.1}, {}, False),
        ({"settings": "DPOConfig", "loss_type": "['sigmoid']"}, {}, False),
        ({"settings": "GKDConfig"}, {}, False),
        (SFT, {"rewards/margins": 0.5}, False),
        (SFT, {"kl": 0.5}, False),
        ({}, {"mean_token_accuracy": 0.5}, True),  # as older versions recorded it
        ({}, {"mean_token_accuracy": 0.5, "reward": 0.5}, False),
        ({}, {}, False),
    ],
)
def test_a_loss_in_another_unit_is_not_added_to_nats(
    tmp_path: Path, training: Settings, others: dict[str, float], weighed: bool
) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.1 * step), FALLS, training=training, **others)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == ("about step 8" if weighed else NOT_ENOUGH)
    assert which.evidence.startswith(NO_NATS) != weighed


def test_without_general_text_an_eval_loss_that_turned_decides(tmp_path: Path) -> None:
    losses = [3.0, 2.5, 2.2, 2.0, 2.01, 2.2, 2.4, 2.7, 2.9, 3.1, 3.4]
    run = evaluated(answered_run(tmp_path / "alone", plateau), losses)
    assert said(run)[2] == "about step 32"
    sudden = answered_run(tmp_path / "sudden", plateau, lambda step: 2.0 * (step > 56))
    run = evaluated(sudden, losses, training={"settings": "DPOConfig"})
    assert said(run)[2] == "about step 32"  # before what general text alone would say
    lost = answered_run(tmp_path / "both", plateau, lambda step: 2.0 * (step > 16))
    assert said(evaluated(lost, losses))[2] == "about step 16"  # and after what both say


def test_quiet_eval_losses_do_not_turn(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau)
    draw = np.random.default_rng(0)
    turned = 0
    for count in (8, 20, 60):
        for _ in range(40):
            course = 2 + np.exp(-np.arange(count) / draw.uniform(2, 20)) + 0.02 * draw.standard_t(3, size=count)
            logged = pd.DataFrame({"step": 8 * np.arange(1, count + 1), "eval_loss": course})
            with mock.patch.object(Trajectory, "logged_numbers", return_value=logged):
                turned += eval_loss_turned(run) is not None
    assert turned <= 2


def test_a_collapse_in_the_middle_is_no_plateau_to_choose_from(tmp_path: Path) -> None:
    def collapsed(step: float) -> float:
        return 0.001 * step + (2.0 if step > 48 else 0.0)

    run = answered_run(tmp_path, lambda step: plateau(step) + (4.0 if step > 48 else 0.0), collapsed)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == "one of step 48 or before"
    assert "nats per token between steps 48 and 56, per step more than 3 times as much as in any" in which.evidence
    won_back = answered_run(tmp_path / "back", plateau, lambda step: collapsed(step) if step < 64 else 0.001 * step)
    assert said(won_back)[2] == NOT_ENOUGH
    noted = Event("collapse", "noted", 56, 64, 64, (1,), 0.1, None, "effective rank is 10 %", measured=False)
    assert checkpoint_answers(run, [noted])[0].evidence.endswith("; noted: effective rank is 10 %")


def test_what_was_forgotten_before_the_plateau_is_said(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.05 * min(step, 40))
    which = checkpoint_answers(run, [])[2]
    assert which.answer == NOT_ENOUGH
    assert "changed by +2 ± 0.2 nats per token over the run, by " in which.evidence


def test_a_divergence_comes_first(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.0)
    stop, _, which = checkpoint_answers(run, [DIVERGENCE])
    assert (stop.answer, stop.evidence) == ("yes, it diverged after step 50", DIVERGENCE.explanation)
    assert which.answer == "one of step 48 or before"
    newest = replace(DIVERGENCE, kind="change", known_at=70)
    assert checkpoint_answers(run, [newest])[0].evidence == "the change of step 70 is not 32 steps old"
    assert said(run, replace(newest, known_at=40))[0] == "no sign of a divergence"
    assert said(run, replace(DIVERGENCE, first_step=0))[2] == NOT_ENOUGH


def test_without_evidence_there_is_no_answer(tmp_path: Path) -> None:
    bare = Trajectory.load(write_trajectory(tmp_path / "bare", (0, 8), layers=(1,), points=20, config=CONFIG).path)
    assert said(bare) == [NOT_ENOUGH] * 3
    few = answered_run(tmp_path / "few", plateau, steps=STEPS[:4])
    assert said(few)[1:] == [NOT_ENOUGH] * 2
    still = answered_run(tmp_path / "still", lambda step: 0.0)
    assert said(still)[1:] == ["they have not clearly moved", NOT_ENOUGH]
    no_text = answered_run(tmp_path / "no text", plateau)
    assert said(no_text)[1:] == ["no, since step 40", NOT_ENOUGH]
    rounding = answered_run(tmp_path / "rounding", lambda step: 1.5e-4 * plateau(step), noise=0.0)
    assert said(rounding)[1:] == ["they have not clearly moved", NOT_ENOUGH]
