"""What arrives in Trackio, read back from its local database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sinks.tracked_run import train
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Trajectory
from topo_callback.dynamics import Event
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.figures import draw_run_pictures, draw_sample_pictures
from topo_callback.sinks import TrackioSink, default_sinks, depth_numbers, layer_numbers

trackio: Any = pytest.importorskip("trackio", reason="trackio is not installed")
# trackio warns in its own modules
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of the test's own, and no current run before and after it."""
    from trackio import sqlite_storage  # noqa: F401 - one of the modules that hold the place

    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "trackio"]:
        for name, place in (("TRACKIO_DIR", tmp_path / "trackio"), ("MEDIA_DIR", tmp_path / "trackio/media")):
            if isinstance(vars(module).get(name), Path):
                monkeypatch.setattr(module, name, place)
    trackio.context_vars.current_run.set(None)
    yield "watched"
    trackio.context_vars.current_run.set(None)


def rows_of(project: str, run: str) -> list[dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage

    rows: list[dict[str, Any]] = SQLiteStorage.get_logs(project, run)
    return rows


def open_run(project: str) -> Any:
    return trackio.init(project, "trainers", auto_log_gpu=False, auto_log_cpu=False)


def test_numbers_and_pictures_arrive_beside_the_trainers(project: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run = open_run(project)
    sink = TrackioSink()
    assert sink.start(folder.read_run(), folder.path)["trackio"]["name"] == "trainers"
    trackio.log({"train/loss": 1.0})
    for snapshot in make_snapshots():
        pictures = draw_sample_pictures(folder, snapshot, [LAYERS[-1]]) if snapshot.step == 16 else []
        sink.log(replace(snapshot, provenance={**snapshot.provenance, "pictures": pictures}))
    trackio.log({"train/loss": 0.5})
    trackio.finish()  # as the trainer does before other callbacks hear of the end
    draw_run_pictures(folder)
    sink.finish(folder.path)
    assert trackio.context_vars.current_run.get() is None
    rows = rows_of(project, run.name)
    ours = [row for row in rows if "topology/h1_bars" in row]
    assert [row["topology/step"] for row in ours] == list(STEPS)
    for row, snapshot in zip(ours, make_snapshots(), strict=True):
        expected = {**depth_numbers(snapshot), **layer_numbers(snapshot)}
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert ours[-1]["topology_pictures/barcode-L06"]["_type"] == "trackio.image"
    (last,) = [row for row in rows if "topology_pictures/trajectory" in row]
    assert last["topology/step"] == STEPS[-1]
    # the rows of the trainer are still numbered one after the other with ours
    assert [row["step"] for row in rows] == list(range(len(rows)))


def test_a_row_after_the_end_of_the_run_is_kept(project: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run = open_run(project)
    sink = TrackioSink()
    sink.start(folder.read_run(), folder.path)
    trackio.finish()
    sink.log(make_snapshots()[-1])
    sink.finish(folder.path)
    (row,) = rows_of(project, run.name)
    assert row["topology/step"] == STEPS[-1]


def test_a_run_opened_late_is_joined_at_the_first_snapshot(project: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = TrackioSink()
    assert sink.start(folder.read_run(), folder.path) == {}
    with pytest.raises(TopologyError, match=r"trackio\.init"):
        sink.log(make_snapshots()[0])
    run = open_run(project)
    sink.log(make_snapshots()[0])
    sink.finish(folder.path)
    assert trackio.context_vars.current_run.get() is run
    trackio.finish()
    assert len(rows_of(project, run.name)) == 1


def test_events_and_verdict_are_rows_with_words(project: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run = open_run(project)
    sink = TrackioSink()
    sink.start(folder.read_run(), folder.path)
    sink.log(make_snapshots()[-1])
    sink.event(Event("explained", "observed", 60, 61, 80, (2,), 5.8, None, "the change of steps 60-61 has stayed"))
    verdict = Verdict("finished", 6, 0, 16, answers_moved=Measured(0.34, 0.02), moved=True)
    sink.conclude(verdict)
    sink.finish(folder.path)
    trackio.finish()
    _, told, concluded = rows_of(project, run.name)
    assert (told["topology/step"], told["topology/event"]) == (80, "explained: the change of steps 60-61 has stayed")
    assert concluded["topology/answers_moved"] == 0.34
    assert concluded["topology/verdict"] == str(verdict)


def test_an_own_run_stands_beside_the_trainers(project: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run = open_run(project)
    sink = TrackioSink(project="own")
    facts = sink.start(folder.read_run(), folder.path)["trackio"]
    assert trackio.context_vars.current_run.get() is run
    sink.log(make_snapshots()[0])
    sink.finish(folder.path)
    trackio.finish()
    assert facts["project"] == "own"
    assert len(rows_of("own", facts["name"])) == 1
    assert rows_of(project, run.name) == []


@pytest.mark.parametrize("attached", [False, True])
def test_a_training_run_is_complete(attached: bool, tmp_path: Path) -> None:
    train(tmp_path / "out", ["trackio"], attached=attached)
    rows = rows_of("huggingface", "watched")
    steps = [row["topology/step"] for row in rows if "topology/median_distance" in row]
    assert steps == list(Trajectory.load(tmp_path / "out").steps)
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == [2, 4]


def test_it_is_chosen_from_report_to_and_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert any(isinstance(sink, TrackioSink) for sink in default_sinks(["wandb", "trackio"]))
    assert not any(isinstance(sink, TrackioSink) for sink in default_sinks("wandb"))
    with pytest.raises(ConfigurationError, match="both run= and project="):
        TrackioSink(object(), project="p")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError, match="pip install trackio"):
        TrackioSink().start({}, tmp_path)
