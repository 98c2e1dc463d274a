"""References survive their file, and those of another model, probe or schedule are refused with both values."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from dynamics.simulated_series import IDENTITY, simulated_series
from trajectories import write_trajectory

from topo_callback.dynamics import References, ReferencesError, Series, find_events
from topo_callback.dynamics.reference_course import SIGNALS, WINDOWS
from topo_callback.errors import RecordError
from topo_callback.records.contents import COURSE_SHAPE
from topo_callback.records.record import read_record, write_record
from topo_callback.records.training_steps import COLUMNS, TrainingSteps


def test_the_file_gives_back_what_went_in(tmp_path: Path) -> None:
    known = References.of([simulated_series(seed) for seed in range(3)], ["a", "b", "c"])
    known.save(tmp_path / "references.npz")
    again = References.load(tmp_path / "references.npz")
    assert again.names == ("a", "b", "c")
    for before, after in zip(known.runs, again.runs, strict=True):
        assert (before.steps, before.layers, before.clock, before.max_steps) == (
            after.steps, after.layers, after.clock, after.max_steps,
        )  # fmt: skip
        assert before.identity == after.identity
        np.testing.assert_array_equal(before.path, after.path)
        np.testing.assert_array_equal(before.displacement["wasserstein_h1"], after.displacement["wasserstein_h1"])
    assert (tmp_path / "references.npz").stat().st_size < 40_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe": "2" * 64}, "the references have probe 0000.*this run has 2222"),
        ({"model": {**IDENTITY["model"], "name": "other"}}, r"model \{'name': 'example/model'\}.*\{'name': 'other'\}"),
        ({"schedule": {**IDENTITY["schedule"], "max_steps": 900}}, r"\{'max_steps': 640\}.*\{'max_steps': 900\}"),
        ({"reading": {"pooling": "mean"}}, "last_prompt_token.*mean"),
        ({"schedule": {**IDENTITY["schedule"], "learning_rate": 1e-3}}, "learning_rate.: 0.0001}.*rate.: 0.001}"),
        ({"schedule": {**IDENTITY["schedule"], "lr_scheduler_type": "linear"}}, "'cosine'.*'linear'"),
        ({"training": {**IDENTITY["training"], "batch_size": 64}}, "training {'batch_size': 32}.*{'batch_size': 64}"),
        ({"training": {**IDENTITY["training"], "optimizer": {"name": "SGD"}}}, "optimizer.*AdamW.*optimizer.*SGD"),
        ({"training": {**IDENTITY["training"], "data": {"rows": 501, "digest": "3"}}}, "'rows': 500.*'rows': 501"),
        ({"training": {**IDENTITY["training"], "trained_parameters": 99}}, "trained_parameters': 1000.*: 99"),
        ({"training": {**IDENTITY["training"], "autocast": "bfloat16"}}, "autocast': 'none'.*'bfloat16'"),
        ({"reading": {**IDENTITY["reading"], "float32_products": "high"}}, "products': 'highest'.*products': 'high'"),
        ({"model": {**IDENTITY["model"], "dtype": "bfloat16"}}, "dtype': 'float32'.*dtype': 'bfloat16'"),
        ({"reading": {**IDENTITY["reading"], "neighbours": 7}}, "reading {'neighbours': 5}.*{'neighbours': 7}"),
    ],
)  # fmt: skip
def test_another_model_probe_or_schedule_is_refused(changed: dict[str, object], message: str) -> None:
    known = References.of([simulated_series(0)])
    with pytest.raises(ReferencesError, match=message):
        known.check(simulated_series(1, identity={**IDENTITY, **changed}))
    known.check(simulated_series(1, identity={**IDENTITY, "config_hash": "another"}))


def test_other_layers_or_another_clock_are_refused() -> None:
    known = References.of([simulated_series(0)])
    with pytest.raises(ReferencesError, match=r"layers \[1, 2, 3, 4, 5, 6, 7, 8\], this run has \[1, 2, 3\]"):
        known.check(simulated_series(0, layers=3))
    with pytest.raises(ReferencesError, match="clock path_length, this run has steps"):
        known.check(dataclasses.replace(simulated_series(0), clock="steps"))
    with pytest.raises(ReferencesError, match="no reference runs"):
        References.of([])


def test_folders_are_collected_and_unfinished_runs_refused(tmp_path: Path) -> None:
    folders = [write_trajectory(tmp_path / name).path for name in ("a", "b")]
    known = References.collect(folders)
    assert [run.steps for run in known.runs] == [(0, 1, 2, 4, 8, 16)] * 2
    assert known.names == tuple(folder.name for folder in folders)
    journal = folders[1] / "journal.jsonl"
    journal.write_text("".join(json.dumps({"event": "started", "step": 0}) + "\n" for _ in range(1)))
    with pytest.raises(ReferencesError, match="is interrupted; references must be finished runs"):
        References.collect(folders)


def test_another_record_is_no_references_file(tmp_path: Path) -> None:
    write_record(tmp_path / "x.npz", {}, {"kind": "snapshot"})
    with pytest.raises(RecordError, match="holds a snapshot, not references"):
        References.load(tmp_path / "x.npz")


def test_a_run_counts_once_and_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "run").path
    with pytest.raises(ReferencesError, match="given twice; a run counts once"):
        References.collect([folder, tmp_path / "run" / ".." / "run"])
    with pytest.raises(RecordError, match=r"references .*none.npz cannot be read \(No such file"):
        References.load(tmp_path / "none.npz")


def test_what_older_references_do_not_say_is_said_and_no_alert_follows(tmp_path: Path) -> None:
    older = {**IDENTITY, "training": {}, "reading": {"pooling": "last_prompt_token", "metric": "euclidean"}}
    runs = [simulated_series(1000 + seed, identity=older) for seed in range(19)]
    References.of(runs).save(tmp_path / "references.npz")
    known = References.load(tmp_path / "references.npz")
    run = simulated_series(8, burst={10: 6.0, 11: 6.0})
    known.check(run)
    assert {"batch_size", "optimizer", "data", "neighbours"} <= set(known.unsaid(run.identity))
    found = find_events(run, known)
    calibrated = [event for event in found.events if event.level == "calibrated"]
    assert calibrated
    assert not any(event.measured for event in calibrated)
    assert any("do not say their batch_size, optimizer" in note for note in found.notes)
    whole = find_events(run, References.of([simulated_series(1000 + seed) for seed in range(19)]))
    assert all(event.measured for event in whole.events)
    assert whole.notes == ()


def test_references_without_a_learning_rate_are_refused() -> None:
    schedule = {name: value for name, value in IDENTITY["schedule"].items() if name != "learning_rate"}
    known = References.of([simulated_series(0, identity={**IDENTITY, "schedule": schedule})])
    with pytest.raises(ReferencesError, match="'learning_rate': 'unknown'}, this run has {'learning_rate': 0.0001}"):
        known.check(simulated_series(1))


def test_an_alarm_by_step_counts_has_no_error_rate() -> None:
    """The rate of onsets was found for runs whose learning rates are known."""
    series = simulated_series(1, burst={14: 8.0, 15: 8.0, 16: 8.0})
    assert all(event.measured for event in find_events(series).events)
    counted = dataclasses.replace(series, clock="steps", rates=None)
    events = find_events(counted).events
    assert events
    assert not any(event.measured for event in events)


def trained(seed: int, factor: float = 1.0) -> Series:
    """A run with a table of its training steps, whose loss is multiplied from step 100 on."""
    draw = np.random.default_rng(seed)
    table = np.full((160, len(COLUMNS)), np.nan)
    table[:, 0] = np.arange(1, 161)
    table[:, 1] = np.exp(0.05 * draw.normal(size=160)) * np.where(table[:, 0] >= 100, factor, 1.0)
    training = TrainingSteps.of([tuple(row) for row in table.tolist()])
    return dataclasses.replace(simulated_series(seed), training=training)


def test_changes_of_training_are_judged_by_the_references_of_a_file(tmp_path: Path) -> None:
    References.of([trained(seed) for seed in range(19)]).save(tmp_path / "references.npz")
    known = References.load(tmp_path / "references.npz")
    assert known.course is not None
    assert not known.course.planned  # these runs do not know their schedule
    found = [event for event in find_events(trained(40, 1.3), known).events if event.kind == "change"]
    assert [event.level for event in found] == ["calibrated"]
    assert found[0].first_step >= 100
    assert not [event for event in find_events(trained(40, 1.3)).events if event.kind == "change"]
    assert not [event for event in find_events(trained(41), known).events if event.kind == "change"]
    assert (tmp_path / "references.npz").stat().st_size < 120_000


def with_plan(run: Series, rate: float = 1e-3) -> Series:
    assert run.training is not None
    values, known = run.training.values.copy(), run.training.known.copy()
    values[:, COLUMNS.index("planned") - 1], known[:, COLUMNS.index("planned") - 1] = rate, True
    return dataclasses.replace(run, training=TrainingSteps(run.training.step, values, known))


def test_what_is_not_known_of_steps_and_plans_is_said() -> None:
    every = References.of([with_plan(trained(seed)) for seed in range(19)])
    assert every.notes() == []
    assert not [note for note in find_events(with_plan(trained(40)), every).notes if "schedule planned" in note]
    (note,) = [note for note in find_events(trained(40), every).notes if "schedule planned" in note]
    assert note.endswith("and this run does not: the steps of its weights are judged by the run alone")
    (note,) = References.of([with_plan(trained(0)), trained(1)]).notes()
    assert note.startswith("not all of them know the learning rates")
    (note,) = References.of([with_plan(trained(0)), with_plan(trained(1)), simulated_series(2)]).notes()
    assert note.startswith("2 of 3 have a table of their training steps")


def test_the_shape_of_a_course_is_that_of_its_signals_and_windows() -> None:
    assert (len(SIGNALS), len(WINDOWS)) == COURSE_SHAPE


def test_one_training_is_one_reference() -> None:
    with pytest.raises(ReferencesError, match="a and b were trained alike to the last bit"):
        References.of([trained(1), trained(1)], ["a", "b"])


def test_references_without_tables_of_training_are_said_to_lack_them() -> None:
    known = References.of([simulated_series(seed) for seed in range(19)])
    assert known.course is None
    assert any(note.startswith("0 of the references have a table") for note in find_events(trained(40), known).notes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", np.array([2, 1], dtype=np.int64)), ("median", np.zeros((3, 5))), ("usual", np.zeros((3, 6))),
        ("usual", np.ones((2, 6))), ("usual", np.ones((3, 5))), ("median", np.full((3, 160), 1e308)),
        ("scores", -np.ones(19)), ("scores", np.full(19, 1e308)), ("usual", np.full((3, 6), 5e-324)),
        ("scores", np.array([np.nan] * 19)), ("scores", np.ones(1)),
        ("scores", np.ones(19, dtype=np.float32)), ("other", np.ones(1)),
    ],
)  # fmt: skip
def test_a_damaged_course_is_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    References.of([trained(seed) for seed in range(19)]).save(tmp_path / "references.npz")
    arrays, manifest = read_record(tmp_path / "references.npz")
    write_record(tmp_path / "damaged.npz", {**arrays, f"training.{name}": value}, manifest)
    with pytest.raises(RecordError, match="damaged.npz: damaged: training"):
        References.load(tmp_path / "damaged.npz")
    del manifest["planned"]
    write_record(tmp_path / "damaged.npz", arrays, manifest)
    with pytest.raises(RecordError, match="planned is missing"):
        References.load(tmp_path / "damaged.npz")
