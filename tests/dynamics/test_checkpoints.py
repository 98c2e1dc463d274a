"""Stop, or which checkpoint: answers that the record carries, and `not enough evidence` where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from answered_runs import CONFIG, STEPS, answered_run, plateau
from trajectories import write_trajectory

from topo_callback.dynamics import Event
from topo_callback.dynamics.checkpoints import checkpoint_answers
from topo_callback.dynamics.verdict import NOT_ENOUGH
from topo_callback.records.trajectory import Trajectory

DIVERGENCE = Event("divergence", "sequential", 50, 90, 90, (), 1.8, None, "the loss has stayed 1.8x what it was")


def said(run: Trajectory, *events: Event) -> list[str]:
    return [answer.answer for answer in checkpoint_answers(run, events)]


def test_answers_that_came_to_rest_are_told_since_when(tmp_path: Path) -> None:
    run = answered_run(tmp_path, plateau, lambda step: 0.0)
    assert said(run) == ["no sign of a divergence", "no, since step 40", "any from step 40 on"]
    moving = checkpoint_answers(run, [])[1]
    assert "within a tenth of 98 ± 12 % of the probability" in moving.evidence
    assert "(between 40 and 40, by the errors over prompts)" in moving.evidence


def test_errors_widen_when_they_came_to_rest(tmp_path: Path) -> None:
    run = answered_run(tmp_path, lambda step: 1 - 0.85 ** (step / 4), lambda step: 0.0, noise=0.02)
    assert said(run)[1] == "no, since step 56"
    assert "(between 56 and 64, by the errors over prompts)" in checkpoint_answers(run, [])[1].evidence


@pytest.mark.parametrize(
    ("forgot", "answer"), [(0.01, "about step 40"), (-0.01, "the last one"), (0.0, "any from step 40 on")]
)
def test_what_is_forgotten_behind_that_decides(tmp_path: Path, forgot: float, answer: str) -> None:
    run = answered_run(tmp_path, plateau, lambda step: forgot * step)
    assert said(run)[2] == answer
    assert "general text changed by" in checkpoint_answers(run, [])[2].evidence


def test_answers_that_still_move(tmp_path: Path) -> None:
    assert said(answered_run(tmp_path, lambda step: step / 96, lambda step: 0.0))[1] == "yes, until the last sample"


@pytest.mark.parametrize("steps", [STEPS, tuple(range(0, 120, 3))])
def test_what_grows_evenly_is_not_at_rest_however_many_samples_there_are(
    tmp_path: Path, steps: tuple[int, ...]
) -> None:
    run = answered_run(tmp_path, lambda step: step / 300, lambda step: 0.0, steps=steps)
    assert said(run)[1:] == ["yes, until the last sample", NOT_ENOUGH]


def test_whether_it_is_at_rest_may_be_open(tmp_path: Path) -> None:
    run = answered_run(tmp_path, lambda step: min(step, 66) / 300, lambda step: 0.0, noise=0.02)
    assert said(run)[1:] == [NOT_ENOUGH] * 2


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
