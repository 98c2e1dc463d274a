"""The verdict: three numbers and a sentence that say nothing within its error, and one wording for every place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answered_runs import CONFIG, STEPS, Shape, answered_run, plateau
from trajectories import LAYERS, make_snapshots, write_trajectory

import topo_callback
from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.course import ANSWERS, STRUCTURE, HalfWay, Settled
from topo_callback.dynamics.run_verdict import _moved_layers, verdict_of, verdict_of_folder
from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

CHANGE = Event("change", "sequential", 60, 64, 64, (), 5.0, None, "gradient norm 5x what it was before, at step 64")
EXPLAINED = replace(
    CHANGE, kind="explained", level="observed", layers=(2, 4), factor=2.6, known_at=80,
    explanation="the change of steps 60-64 is over: the loss is 1x what it was before; layers 2-4 moved 2.6x as far",
)  # fmt: skip


def at_rest(step: float) -> float:
    return 0.3 * plateau(step)


def test_a_run_that_came_to_rest(tmp_path: Path) -> None:
    run = answered_run(tmp_path, at_rest, lambda step: 0.0, lambda step: 1 - 0.6 * plateau(step))
    verdict = verdict_of(run)
    answers, structure, when = verdict.figures
    assert answers.value == "29 ± 3 %"
    assert answers.detail == "of the next token's probability went to other tokens"
    assert structure.value == "40 ± 2 %"
    assert structure.detail == "of each prompt's 5 nearest neighbours are those of the start (by chance 26 %)"
    assert when.value == "over since step 40"
    assert when.detail == "half of the answers' move came between steps 16 and 24; as at the end since step 40"
    assert (verdict.half_way, verdict.over, verdict.course) == (HalfWay(24, 16, 24), True, "answers")
    assert verdict.sentence == (
        "The answers moved and came to rest. On general text nothing changed beyond error and rounding. "
        "No event in 88 steps."
    )
    assert str(verdict).splitlines()[-1] == verdict.sentence
    assert str(topo_callback.Trajectory.load(run.folder).summary()) == str(verdict)
    told = json.loads(json.dumps(verdict.to_dict()))
    assert told["answers_moved"] == {"value": pytest.approx(0.29, abs=0.01), "error": pytest.approx(0.017, abs=0.001)}
    assert told["figures"][2]["value"] == when.value
    assert told["sentence"] == verdict.sentence


def test_one_that_still_moves(tmp_path: Path) -> None:
    verdict = verdict_of(answered_run(tmp_path, lambda step: step / 200, lambda step: step / 500))
    assert (verdict.over, verdict.figures[2].value) == (False, "still moving")
    assert verdict.sentence.startswith(
        "The answers moved and still move. The loss on general text rose by 0.179 ± 0.018 nats"
    )


def test_what_grows_evenly_is_not_over_however_many_samples_there_are(tmp_path: Path) -> None:
    verdict = verdict_of(answered_run(tmp_path, lambda step: step / 300, steps=tuple(range(0, 120, 3))))
    assert verdict.settled is not None
    assert verdict.settled.step < 111
    assert (verdict.at_rest, verdict.over, verdict.figures[2].value) == (False, False, "still moving")


def test_what_is_within_its_error_is_no_move(tmp_path: Path) -> None:
    verdict = verdict_of(
        answered_run(tmp_path, lambda step: 0.0, lambda step: 0.0, lambda step: 0.99, steps=STEPS[:-1])
    )
    assert verdict.figures[2].value == "no clear move"
    assert verdict.half_way is verdict.settled is verdict.over is None
    assert verdict.sentence.startswith(
        "The answers did not move beyond error and rounding, and no prompt's neighbours changed by more than the error."
    )


def test_half_way_is_as_wide_as_the_errors_leave_it(tmp_path: Path) -> None:
    exact = answered_run(tmp_path / "a", lambda step: 0.3 * step / 88, noise=1e-4)
    assert verdict_of(exact).half_way == HalfWay(48, 40, 48)
    noisy = answered_run(tmp_path / "b", lambda step: 0.3 * step / 88, noise=0.08)
    half = verdict_of(noisy).half_way
    assert half is not None
    assert half.after < 40
    assert half.by > 48


def test_answers_that_jump_are_not_at_rest_though_they_are_as_far_from_the_start(tmp_path: Path) -> None:
    still = verdict_of(answered_run(tmp_path / "a", at_rest, jumps=dict.fromkeys(STEPS[1:], 0.02))).settled
    assert still == verdict_of(answered_run(tmp_path / "b", at_rest)).settled
    end = answered_run(tmp_path / "c", at_rest).snapshot(88).numbers[ANSWERS][None]
    jumped = verdict_of(answered_run(tmp_path / "d", at_rest, jumps={48: 0.02, 56: 0.2 * end + 0.02, 64: 0.02}))
    assert jumped.settled == Settled(56, 56, 56)
    assert jumped.figures[2].value == "over since step 56"
    unclear = verdict_of(answered_run(tmp_path / "e", at_rest, jumps={56: 0.2 * end + 0.005})).settled
    assert unclear is not None
    assert (unclear.step, unclear.earliest, unclear.latest) == (56, 40, 56)
    moving = verdict_of(answered_run(tmp_path / "f", at_rest, jumps={80: 0.3 * end}))
    assert moving.figures[2].value == "still moving"


def test_structure_stands_in_where_there_are_no_answers(tmp_path: Path) -> None:
    run = answered_run(tmp_path, None, kept=lambda step: 1 - 0.6 * plateau(step))
    verdict = verdict_of(run)
    assert [figure.value for figure in verdict.figures] == ["not recorded", "40 ± 2 %", "over since step 40"]
    assert verdict.course == "structure"
    assert verdict.figures[2].detail.startswith("half of the change of structure came between steps 16 and 24; ")
    assert "answers" not in verdict.sentence


@pytest.mark.parametrize("shape", [at_rest, lambda step: 0.0])
def test_nothing_is_said_of_an_end_whose_samples_lack_the_number(tmp_path: Path, shape: Shape) -> None:
    verdict = verdict_of(answered_run(tmp_path / "a", shape, until={ANSWERS: 72}))
    assert (verdict.course, verdict.course_last, verdict.last_step) == ("answers", 72, 88)
    assert verdict.half_way is verdict.settled is verdict.at_rest is verdict.over is verdict.moved is None
    when = verdict.figures[2]
    assert when.value == "not enough evidence"
    assert when.detail == "the newest samples have no number of the answers, the last is of step 72"
    assert "The answers" not in verdict.sentence
    alone = answered_run(tmp_path / "b", None, kept=lambda step: 1 - shape(step), until={STRUCTURE: 72})
    structure = verdict_of(alone)
    assert structure.over is structure.settled is None
    assert structure.figures[2].detail.endswith("no number of the structure, the last is of step 72")
    both = answered_run(tmp_path / "c", shape, kept=lambda step: 1 - shape(step), until={ANSWERS: 72, STRUCTURE: 64})
    for run, which, last in ((both, "answers", 72), (alone, "structure", 72)):
        said = f"the newest samples have no number of the {which}, the last is of step {last}."
        assert f"Whether anything moved is not known: {said}" in verdict_of(run).sentence


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_few_samples_are_not_enough_evidence(tmp_path: Path, samples: int) -> None:
    verdict = verdict_of(answered_run(tmp_path, at_rest, steps=STEPS[:samples]))
    assert verdict.figures[2].value == "not enough evidence"
    assert verdict.over is None
    if samples == 1:
        assert [figure.value for figure in verdict.figures[:2]] == ["nothing yet"] * 2
        assert verdict.sentence == "One sample, at step 0: there is nothing to compare it with."
    else:
        assert verdict.sentence == "The answers moved."


def test_a_record_without_a_sample_and_a_folder_without_a_record(tmp_path: Path) -> None:
    folder = TrajectoryFolder.new(tmp_path / "topology")
    folder.write_run(
        {"tool": "topo_callback", "config": TopologyConfig().to_dict(), "layers": [1], "training": {"max_steps": 10}}
    )
    verdict = verdict_of(Trajectory(folder))
    assert (verdict.samples, verdict.last_step, verdict.sentence) == (0, None, "No sample is recorded.")
    assert [figure.value for figure in verdict.figures] == ["nothing yet", "nothing yet", "not enough evidence"]
    (folder.spool / "step-00000000.npz").touch()
    assert verdict_of(Trajectory(folder)).sentence == "No sample is measured yet; 1 sample waits."
    assert verdict_of_folder(tmp_path / "nothing") is None


def test_an_older_record_says_what_it_carries(tmp_path: Path) -> None:
    verdict = verdict_of(Trajectory.load(Path(__file__).parents[1] / "data" / "schema_1_run"))
    assert verdict.answers_moved is None
    assert verdict.figures[0].value == "not recorded"
    assert verdict.structure_kept is not None
    assert verdict.structure_kept.error is None
    assert verdict.figures[1].detail.endswith("; its error is not recorded")
    assert verdict.figures[2].value == "not enough evidence"
    assert "Whether anything moved is not known" in verdict.sentence


def test_a_record_that_does_not_reach_the_end_is_not_over(tmp_path: Path) -> None:
    run = answered_run(tmp_path, at_rest)
    folder = TrajectoryFolder(run.folder)
    run.run["training"] = {"max_steps": 200}
    folder.note("resumed", step=88)
    cut = Trajectory(folder)
    cut.run["training"] = {"max_steps": 200}
    verdict = verdict_of(cut)
    assert (verdict.over, verdict.figures[2].value) == (None, "at rest since step 40")
    assert verdict.figures[2].detail.endswith("as at step 88 since step 40")
    assert verdict.sentence.startswith("The record ends at step 88 of 200. The answers moved.")
    folder.lock()
    try:
        assert verdict_of(cut).sentence.startswith("So far, at step 88 of 200: The answers moved.")
        ended = verdict_of(cut.at_its_end())
        assert (ended.over, ended.state) == (True, "finished")
        (folder.spool / "step-00000096.npz").touch()
        waiting = verdict_of(cut.at_its_end())
        assert waiting.sentence.startswith("Measured up to step 88 of 200; 1 sample waits. The answers moved.")
        assert waiting.over is None
    finally:
        folder.unlock()


def _with_kept(kept: dict[int, float], error: float = 0.02) -> Snapshot:
    snapshot = make_snapshots((0,), points=20, config=CONFIG)[-1]
    errors = {STRUCTURE: {**dict.fromkeys(kept, error), None: error}}
    return replace(snapshot, numbers={STRUCTURE: dict(kept)}, errors=errors)


def test_layers_are_named_where_they_clearly_kept_less() -> None:
    snapshot = _with_kept({1: 0.6, 2: 0.59, 4: 0.58, 6: 0.2})
    assert _moved_layers(snapshot, Measured.of(snapshot, STRUCTURE)) == ((6,), 0.2)
    alike = _with_kept({1: 0.6, 2: 0.59, 4: 0.58, 6: 0.53})
    assert _moved_layers(alike, Measured.of(alike, STRUCTURE)) == ((), None)
    unknown = replace(snapshot, errors={})
    assert _moved_layers(unknown, Measured.of(unknown, STRUCTURE)) == ((), None)


def test_of_layers_that_moved_alike_one_is_named_in_at_most_a_twentieth_of_runs() -> None:
    draw = np.random.default_rng(1)
    named = 0
    for _ in range(400):
        values = 0.5 + 0.02 * draw.normal(size=8)
        snapshot = _with_kept(dict(enumerate(values.tolist())))
        named += bool(_moved_layers(snapshot, Measured.of(snapshot, STRUCTURE))[0])
    assert named <= 20


def _told(*events: Event, layers: tuple[int, ...] = LAYERS, steps: int = 88) -> str:
    moved = Measured(0.3, 0.01)
    return Verdict(
        "finished", 12, 0, 88, layers=layers, answers_moved=moved, events=events, training_steps=steps
    ).sentence


def test_events_are_told_with_their_layers_the_worst_first() -> None:
    assert _told() == "The answers moved. No event in 88 steps."
    assert _told(steps=20) == "The answers moved."
    assert _told(CHANGE) == "The answers moved. Training changed in steps 60-64."
    assert _told(CHANGE, EXPLAINED).endswith(
        "Training changed in steps 60-64 and is as before again; layers 2-4 moved 2.6x as far as before."
    )
    diverged = replace(CHANGE, kind="divergence", first_step=64, last_step=96)
    assert _told(CHANGE, diverged).startswith("The answers moved. It diverged after step 64. Training changed")
    onset = Event("onset", "sequential", 40, 48, 56, (6,), 6.2, None, "layer 6 moved")
    settled = replace(onset, kind="settled", first_step=60)
    assert _told(onset, settled).endswith("From step 40 on layer 6 moved 6.2x as far as before, until step 60.")
    everywhere = replace(onset, layers=LAYERS)
    assert "From step 40 on all layers moved 6.2x" in _told(everywhere)
    assert "From step" not in _told(everywhere, replace(CHANGE, first_step=48)), "one event, told once"
    many = [replace(CHANGE, first_step=step, last_step=step) for step in (20, 40, 60, 80)]
    assert _told(*many).endswith("Training changed at step 60. 1 more event is in the list.")


def test_what_no_error_rate_is_known_of_is_not_told(tmp_path: Path) -> None:
    run = answered_run(tmp_path, at_rest)
    unmeasured = replace(CHANGE, measured=False)
    assert verdict_of(run, [unmeasured]).events == ()
    assert verdict_of(run, [CHANGE]).events == (CHANGE,)


def test_damaged_numbers_of_layers_make_no_verdict_fail(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology", (0, 8), layers=(1, 2), points=20, config=CONFIG)
    snapshot = make_snapshots((0, 8), layers=(1, 2), points=20, config=CONFIG)[-1]
    status = {1: "invalid: 3 of 20 points are not finite", 2: "invalid: 3 of 20 points are not finite"}
    spoilt = replace(snapshot, status=status, numbers={}, errors={}, barcodes={}, zigzag_layers=(), depth_zigzag=None)
    write_record(folder.step_file(folder.samples, 8), *spoilt.to_record(), compress=True)
    verdict = verdict_of(Trajectory(folder))
    assert verdict.figures[1].value == "not recorded"
    assert "Layers 1-2 could not be read at step 8." in verdict.sentence
