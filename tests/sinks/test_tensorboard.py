"""What arrives in TensorBoard, read back with its own reader."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sinks.tracked_run import train
from tiers import mostly_slow
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Event, Trajectory
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import MissingExtraError
from topo_callback.figures import draw_run_pictures, draw_sample_pictures
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.sinks import TensorBoardSink, default_sinks, depth_numbers, layer_numbers

pytest.importorskip("tensorboard", reason="tensorboard is not installed")
# tensorboard and torch's part for it warn in their own modules
pytestmark = pytest.mark.filterwarnings("ignore")


VERDICT = Verdict("finished", 6, 0, 16, answers_moved=Measured(0.2, 0.03), course="answers", over=True, moved=True)


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def log_everything(sink: TensorBoardSink, folder: TrajectoryFolder, *, pictures: bool) -> None:
    sink.start(folder.read_run(), folder.path)
    for snapshot in make_snapshots():
        drawn = draw_sample_pictures(folder, snapshot, [LAYERS[-1]]) if pictures and snapshot.step in (0, 16) else []
        sink.log(replace(snapshot, provenance={**snapshot.provenance, "pictures": drawn}))
    if pictures:
        draw_run_pictures(folder)
    sink.conclude(VERDICT)
    sink.finish(folder.path)


def test_numbers_arrive_at_the_steps_of_their_samples(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    (tmp_path / "runs").mkdir()
    log_everything(TensorBoardSink(), folder, pictures=False)
    events = read(tmp_path / "runs" / f"topology-{folder.run_id}")
    for snapshot in make_snapshots():
        found = {
            tag: event.value
            for tag in events.Tags()["scalars"]
            for event in events.Scalars(tag)
            if event.step == snapshot.step
        }
        assert found == pytest.approx({**depth_numbers(snapshot), **layer_numbers(snapshot)}, rel=1e-6)
    assert {event.step for event in events.Scalars("topology/h1_bars")} == set(STEPS)
    (said,) = events.Tensors("topology/verdict/text_summary")
    assert str(VERDICT).encode() in said.tensor_proto.string_val[0]


@pytest.mark.slow
def test_pictures_arrive_at_their_steps(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    log_everything(TensorBoardSink(tmp_path / "chosen"), folder, pictures=True)
    events = read(tmp_path / "chosen" / f"topology-{folder.run_id}")
    barcodes = events.Images("topology_pictures/barcode-L06")
    assert [image.step for image in barcodes] == [0, 16]
    assert all(image.width > 200 for image in barcodes)
    (last,) = events.Images("topology_pictures/trajectory")
    assert last.step == STEPS[-1]


def test_events_arrive_in_words(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = TensorBoardSink(tmp_path / "chosen")
    sink.start(folder.read_run(), folder.path)
    sink.event(Event("explained", "observed", 60, 61, 80, (2,), 5.8, None, "the change of steps 60-61 has stayed"))
    sink.finish(folder.path)
    (told,) = read(tmp_path / "chosen" / f"topology-{folder.run_id}").Tensors("topology/event/text_summary")
    assert told.step == 80
    assert told.tensor_proto.string_val == [b"explained: the change of steps 60-61 has stayed"]


def test_a_run_resumed_at_an_earlier_step_hides_its_own_later_events(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    snapshots = make_snapshots()
    for part in (snapshots, snapshots[3:5]):
        sink = TensorBoardSink(tmp_path / "chosen")
        sink.start(folder.read_run(), folder.path)
        for snapshot in part:
            sink.log(snapshot)
        sink.finish(folder.path)
    events = read(tmp_path / "chosen" / f"topology-{folder.run_id}")
    assert [event.step for event in events.Scalars("topology/h1_bars")] == [0, 1, 2, 4, 8]


def test_the_place_is_that_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_trajectory(tmp_path / "topology")
    name = f"topology-{folder.run_id}"
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    places = []
    for place in (folder.path / "tensorboard", tmp_path / "runs", tmp_path / "named"):
        if place.name == "runs":
            place.mkdir()
        if place.name == "named":
            monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(place))
        sink = TensorBoardSink()
        sink.start(folder.read_run(), folder.path)
        sink.log(make_snapshots()[0])
        sink.finish(folder.path)
        places += [place / name]
    assert all(any(place.glob("events.out.tfevents.*")) for place in places)


@pytest.mark.parametrize("attached", mostly_slow([False, True], False))
def test_a_training_run_is_complete(attached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    train(tmp_path, ["tensorboard"], attached=attached)
    trajectory = Trajectory.load(tmp_path)
    (trainers,) = (tmp_path / "runs").iterdir()
    events = read(trainers / "topology")
    assert [event.step for event in events.Scalars("topology/median_distance")] == list(trajectory.steps)
    assert [event.step for event in read(trainers).Scalars("train/loss")] == [2, 4]


def test_it_is_chosen_from_report_to() -> None:
    assert any(isinstance(sink, TensorBoardSink) for sink in default_sinks(["tensorboard"]))
    assert any(isinstance(sink, TensorBoardSink) for sink in default_sinks("all"))
    assert not any(isinstance(sink, TensorBoardSink) for sink in default_sinks(["wandb"]))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        TensorBoardSink().start({}, tmp_path)
