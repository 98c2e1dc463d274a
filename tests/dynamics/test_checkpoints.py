"""Stop, or which checkpoint: answers that the record carries, and `not enough evidence` where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from answered_runs import CONFIG, STEPS, answered_run, plateau
from trajectories import write_trajectory

from topo_callback.dynamics import Event
from topo_callback.dynamics.checkpoints import checkpoint_answers, eval_loss_turned
from topo_callback.dynamics.course import ANSWERS, LOSS, Course
from topo_callback.dynamics.verdict import NOT_ENOUGH
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
    assert which.evidence.startswith("without the trainer's evaluations (eval_strategy) nothing tells which")
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
    assert which.evidence.endswith(
        "the newest samples have no number of the loss on general text, the last is of step 72"
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


def evaluated(run: Trajectory, values: Sequence[float], *, first: int = 8, **others: float) -> Trajectory:
    """The run with an eval loss every 8 steps from one on, and other numbers logged with it."""
    numbers = LoggedNumbers()
    writer = StepsWriter(TrajectoryFolder(run.folder).logged, LOGGED)
    for place, value in enumerate(values):
        writer.append(numbers.take(8 * place + first, {"eval_loss": value, **others}))
    writer.append(numbers.rest())
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
        [2.0, 2.2, 2.4, 2.6, 2.8, float("nan")],
    ],
)
def test_an_eval_loss_that_has_not_clearly_turned_stops_nothing(tmp_path: Path, losses: list[float]) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0), losses)
    assert said(run)[:2] == ["no sign of a divergence", "no, since step 40"]
    assert eval_loss_turned(run) is None


FALLS = tuple(2 + 0.8**place for place in range(11))


def test_what_is_learned_is_weighed_against_what_is_forgotten(tmp_path: Path) -> None:
    kept = evaluated(answered_run(tmp_path / "kept", plateau, lambda step: 0.0), FALLS)
    which = checkpoint_answers(kept, [])[2]
    assert which.answer == "the last one"
    assert which.evidence.endswith(
        "of 11 evaluations, the eval loss plus the loss on general text is lowest at the last one"
    )

    def forgot(step: float) -> float:
        return 0.02 * max(0.0, step - 32)

    # from step 32 to 88 the eval loss falls by .3, and the other rises by 1.1
    lost = evaluated(answered_run(tmp_path / "lost", plateau, forgot), FALLS)
    which = checkpoint_answers(lost, [])[2]
    course = Course.of_prompts(lost, LOSS)
    assert course is not None
    rise = course.difference(course.steps.index(32), len(course.steps) - 1)[0]
    assert which.answer == "about step 32"
    assert f"lowest at step 32 and rose by {rise + FALLS[10] - FALLS[3]:.2g} ± " in which.evidence
    assert which.evidence.endswith(f" the eval loss by {FALLS[10] - FALLS[3]:+.2g}, the other by {rise:+.2g}")


def test_no_more_than_the_scatter_leaves_the_last_one(tmp_path: Path) -> None:
    scatters = [2 + 0.1 * (place % 2) for place in range(10)]
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0), scatters)
    which = checkpoint_answers(run, [])[2]
    assert which.answer.startswith("the last one, or any from about step ")
    assert " and rose by 0.1 ± 0.3 to step 80: " in which.evidence  # 2.5 times 1.48 times 0.1 / sqrt(1.5)


@pytest.mark.parametrize(
    ("losses", "answer"),
    [
        ([3.0, 2.0, 2.3], "about step 16"),  # a fall is no scatter
        ([3.0, 2.0, 1.6, 1.601], "the last one, or any from about step 24 on"),  # less than the general text's error
        ([3.0, 2.0, 2.3, 2.1, 2.3, 2.1], "the last one, or any from about step 16 on"),
        ([3.0, 2.0, 2.3, 2.6, 2.9, 3.2], "about step 16"),
    ],
)
def test_of_few_evaluations_those_behind_the_lowest_tell_the_scatter(
    tmp_path: Path, losses: list[float], answer: str
) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.0, noise=0.02), losses)
    which = checkpoint_answers(run, [])[2]
    assert which.answer == answer
    assert which.evidence.endswith("evaluations scatter is not known") == (len(losses) < 5)


def test_between_samples_general_text_is_on_a_line(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.1 * step, noise=0.0)
    run = evaluated(run, [2.0] * 10, first=4)
    which = checkpoint_answers(run, [])[2]
    course = Course.of_prompts(run, LOSS)
    assert course is not None
    assert which.answer == "about step 4"
    assert which.evidence.endswith(
        f", the other by {course.values[8] / 2 + course.values[9] / 2 - course.values[0] / 2:+.2g}"
    )


def test_evaluations_that_general_text_is_not_known_at_are_not_weighed(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "ends", plateau, lambda step: 0.1 * step, until={LOSS: 72})
    assert said(evaluated(run, FALLS))[2] == NOT_ENOUGH
    later = answered_run(tmp_path / "later", plateau, lambda step: 0.1 * step)
    assert said(evaluated(later, FALLS, first=16))[2] == NOT_ENOUGH  # the last is at step 96, the last sample at 88
    alone = answered_run(tmp_path / "alone", plateau, lambda step: 0.1 * step)
    assert said(evaluated(alone, [2.0]))[2] == NOT_ENOUGH


@pytest.mark.parametrize("other", ["rewards/margins", "reward", "kl", "accuracy"])
def test_a_loss_of_preferences_or_rewards_is_not_added_to_nats(tmp_path: Path, other: str) -> None:
    run = evaluated(answered_run(tmp_path, plateau, lambda step: 0.1 * step), FALLS, **{other: 0.5})
    assert said(run)[2] == NOT_ENOUGH
    of_words = evaluated(answered_run(tmp_path / "b", plateau, lambda step: 0.1 * step), FALLS, entropy=0.5)
    assert said(of_words)[2] == "about step 8"


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
    assert checkpoint_answers(run, [noted])[0].evidence.endswith("the loss stayed up; noted: effective rank is 10 %")


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
