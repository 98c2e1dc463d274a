"""What arrives in Weights & Biases, read back from the file of an offline run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory
from wandb_files import offline_wandb, read_wandb, rows_of

from topo_callback import Event, Trajectory
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.course import HalfWay, Settled
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.figures import draw_run_pictures, draw_sample_pictures
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.sinks import WandbSink, depth_numbers, layer_numbers
from topo_callback.sinks.headline import TABLE_MEASURES

SENTINEL = "a prompt that nobody may read"


@pytest.fixture(autouse=True)
def wandb_folder(tmp_path: Path) -> Iterator[Path]:
    with offline_wandb(tmp_path) as folder:
        yield folder


def open_run() -> Any:
    """An offline run with the definitions that the Trainer's own callback makes."""
    import wandb

    run = wandb.init(project="test", settings=wandb.Settings(x_disable_stats=True))
    wandb.define_metric("train/global_step")
    wandb.define_metric("*", step_metric="train/global_step", step_sync=True)
    return run


@pytest.fixture
def run(wandb_folder: Path) -> Iterator[Any]:
    run = open_run()
    yield run
    run.finish()


def log_everything(sink: WandbSink, folder: TrajectoryFolder) -> None:
    sink.start({**folder.read_run(), "prompts": [SENTINEL]}, folder.path)
    for snapshot in make_snapshots():
        pictures = draw_sample_pictures(folder, snapshot, [LAYERS[-1]]) if snapshot.step in (0, 16) else []
        sink.log(replace(snapshot, provenance={**snapshot.provenance, "pictures": pictures}))
    draw_run_pictures(folder)
    folder.page.write_text(SENTINEL)
    sink.finish(folder.path)


def records_of(run: Any) -> list[dict[str, Any]]:
    folder = Path(run.settings.sync_dir)
    run.finish()
    return read_wandb(folder)


@dataclass(frozen=True)
class Logged:
    """One run in which everything was logged between two rows of the trainer."""

    records: list[dict[str, Any]]
    folder: TrajectoryFolder
    files: Path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    base = tmp_path_factory.mktemp("logged")
    folder = write_trajectory(base / "topology")
    for name in ("spool/step-00000099.npz", "distances/step-00000000.npz", "prompts.jsonl", "lock", "worker.log"):
        (folder.path / name).write_text(SENTINEL)
    with offline_wandb(base):
        run = open_run()
        run.log({"train/loss": 1.0, "train/global_step": 20})
        log_everything(WandbSink(), folder)
        run.log({"user/note": 1.0})
        files = Path(run.settings.sync_dir)
        return Logged(records_of(run), folder, files)


def test_the_file_holds_the_numbers_of_the_trajectory(logged: Logged) -> None:
    records, folder = logged.records, logged.folder
    trajectory = Trajectory.load(folder.path)
    rows = rows_of(records, "topology/h1_bars")
    assert [row["topology/step"] for row in rows] == list(trajectory.steps) == list(STEPS)
    for row in rows:
        snapshot = trajectory.snapshot(row["topology/step"])
        expected = {**depth_numbers(snapshot), **layer_numbers(snapshot)}
        found = {key: value for key, value in row.items() if key in expected}
        assert found == pytest.approx(expected, rel=1e-12)
        assert {key for key in row if key.startswith(("topology/", "topology_layers/"))} == {*expected, "topology/step"}


def test_the_steps_of_the_trainer_and_the_user_are_left_alone(logged: Logged) -> None:
    records = logged.records
    assert all("train/global_step" not in row for row in rows_of(records, "topology/step"))
    (note,) = rows_of(records, "user/note")
    assert note["train/global_step"] == 20


def test_every_key_has_its_own_axis(logged: Logged) -> None:
    records = logged.records
    axes = {
        m["metric"]["name"]: m["metric"].get("step_metric")
        for m in records
        if m["type"] == "metric" and "name" in m["metric"]
    }
    keys = {key for row in rows_of(records, "topology/step") for key in row if key.startswith("topology")}
    assert {axes[key] for key in keys - {"topology/step"}} == {"topology/step"}
    assert not [m for m in records if m["type"] == "metric" and "topology" in m["metric"].get("glob_name", "")]


def test_pictures_arrive_under_one_key_for_all_steps(logged: Logged) -> None:
    records = logged.records
    barcodes = rows_of(records, "topology_pictures/barcode-L06.path")
    assert [row["topology/step"] for row in barcodes] == [0, 16]
    (last,) = rows_of(records, "topology_pictures/trajectory.path")
    assert last["topology/step"] == STEPS[-1]
    assert "topology_pictures/heat-map-wasserstein_h1-previous.path" in last


def test_the_table_has_a_row_for_every_layer_and_step(logged: Logged) -> None:
    records = logged.records
    names = [row["topology_table/layers.path"] for row in rows_of(records, "topology_table/layers.path")]
    rows = [row for name in names for row in json.loads((logged.files / "files" / name).read_text())["data"]]
    assert [(row[0], row[1]) for row in rows] == [(step, layer) for step in STEPS for layer in LAYERS]
    last = make_snapshots()[-1]
    assert rows[-1][2:] == ["ok", *(pytest.approx(last.numbers[measure][6]) for measure in TABLE_MEASURES)]


def test_configuration_and_folder_are_kept_and_nothing_else(logged: Logged) -> None:
    records, folder = logged.records, logged.folder
    (config,) = [
        r["config"]["update"]["topology"] for r in records if "topology" in r.get("config", {}).get("update", {})
    ]
    assert config["probe_hash"] == "0" * 64
    assert config["config"]["metric"] == "euclidean"
    assert config["run_id"] == folder.run_id
    (artifact,) = [r["artifact"] for r in records if r.get("artifact", {}).get("type") == "topology"]
    kept = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert artifact["name"] == f"topology-{folder.run_id}"
    assert kept >= {"run.json", "journal.jsonl", "samples/step-00000016.npz", "pictures/trajectory.png"}
    private = ("spool", "distances", "prompts", "report", "lock", "worker")
    assert not [path for path in kept if path.startswith(private)]
    for file in logged.files.rglob("*"):
        assert not file.is_file() or SENTINEL.encode() not in file.read_bytes(), file


def test_the_verdict_is_in_the_summary(run: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = WandbSink(table=False, artifact=False)
    sink.start(folder.read_run(), folder.path)
    sink.log(make_snapshots()[-1])
    verdict = Verdict(
        "finished", 6, 0, 16, answers_moved=Measured(0.2, 0.03), structure_kept=Measured(0.4, None), neighbours=5,
        by_chance=0.1, course="answers", half_way=HalfWay(4, 2, 8), settled=Settled(8, 8, 8), over=True, moved=True,
    )  # fmt: skip
    sink.conclude(verdict)
    sink.finish(folder.path)
    updates = [record["summary"]["update"] for record in records_of(run) if "summary" in record]
    told: dict[str, Any] = {}
    for update in updates:
        told.update({key: value for key, value in update.items() if key.startswith("topology/")})
    assert told["topology/verdict"] == str(verdict)
    numbers = ("answers_moved", "answers_moved_interval", "structure_kept", "half_way_step", "over_since_step")
    assert [told[f"topology/{name}"] for name in numbers] == [0.2, 0.06, 0.4, 4, 8]
    assert told["topology/structure_by_chance"] == 0.1
    assert "topology/structure_kept_interval" not in told
    assert "topology/general_text_moved" not in told


def test_events_are_alerts_rows_of_a_table_and_in_the_summary(run: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    change = Event("change", "sequential", 60, 61, 61, (), 8.0, None, "loss 8x what it was before, at step 61")
    told = "the change of steps 60-61 has stayed: the loss is 8x what it was before; layers 2-4 moved 5.8x as far"
    explained = Event("explained", "observed", 60, 61, 80, (2, 4), 5.8, None, f"{told}; reward fell to 0.2")
    sink = WandbSink(artifact=False)
    sink.event(change)  # before the start there is nobody to tell
    sink.start(folder.read_run(), folder.path)
    for event in (change, explained):
        sink.event(event)
        sink.alert(event, 300.0)
    sink.finish(folder.path)
    files = Path(run.settings.sync_dir) / "files"
    records = records_of(run)
    alerts = [record["alert"] for record in records if record["type"] == "alert"]
    assert [(alert["title"], alert["text"], alert["level"]) for alert in alerts] == [
        ("topology: change (sequential)", change.explanation, "WARN"),
        ("topology: explained (observed)", explained.explanation, "INFO"),
    ]
    logged = rows_of(records, "topology_table/events.path")
    assert [row["topology/step"] for row in logged] == [61, 80]
    rows = [
        row for each in logged for row in json.loads((files / each["topology_table/events.path"]).read_text())["data"]
    ]
    assert rows == [
        [61, "change", "sequential", True, 60, 61, "", 8.0, None, change.explanation],
        [80, "explained", "observed", True, 60, 61, "2, 4", 5.8, None, explained.explanation],
    ]
    updates = [record["summary"]["update"] for record in records if "summary" in record]
    said = [update["topology/event"] for update in updates if "topology/event" in update]
    assert said[-1] == f"step 80: explained: {explained.explanation}"


@pytest.mark.slow
def test_an_own_run_stands_beside_the_trainers(run: Any, tmp_path: Path) -> None:
    import wandb

    folder = write_trajectory(tmp_path / "topology")
    sink = WandbSink(project="own", table=False, artifact=False)
    facts = sink.start(folder.read_run(), folder.path)["wandb"]
    (own,) = tmp_path.rglob(f"offline-run-*-{facts['id']}")
    sink.log(make_snapshots()[-1])
    sink.finish(folder.path)
    assert wandb.run is run
    assert facts["project"] == "own"
    assert facts["offline"] is True
    assert facts["id"] != run.id
    assert rows_of(read_wandb(own), "topology/h1_bars")
    assert not rows_of(records_of(run), "topology/step")


def test_a_run_opened_late_is_joined_at_the_first_snapshot(tmp_path: Path) -> None:
    import wandb

    folder = write_trajectory(tmp_path / "topology")
    sink = WandbSink(table=False)
    assert sink.start(folder.read_run(), folder.path) == {}
    with pytest.raises(TopologyError, match=r"wandb\.init"):
        sink.log(make_snapshots()[0])
    with wandb.init(project="late") as late:
        sink.log(make_snapshots()[0])
        records = records_of(late)
    assert rows_of(records, "topology/h1_bars")


@pytest.mark.slow
def test_a_sink_can_be_started_once_for_each_trial(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = WandbSink()
    ids = []
    for _ in range(2):
        run = open_run()
        ids.append(sink.start(folder.read_run(), folder.path)["wandb"]["id"])
        assert ids[-1] == run.id
        sink.log(make_snapshots()[0])
        records = records_of(run)
        assert rows_of(records, "topology_table/layers.nrows")[0]["topology_table/layers.nrows"] == len(LAYERS)
        assert all("train/global_step" not in row for row in rows_of(records, "topology/step"))
    assert len(set(ids)) == 2


@pytest.mark.slow
def test_a_disabled_run_takes_everything_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.chdir(tmp_path)
    folder = write_trajectory(tmp_path / "topology")
    with wandb.init(project="off", mode="disabled"):
        log_everything(WandbSink(), folder)
    assert list(tmp_path.rglob("*.wandb")) == []


def test_what_is_wrong_is_said_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="both run= and project="):
        WandbSink(object(), project="p")
    with pytest.raises(ConfigurationError, match="at most 6"):
        WandbSink(layer_measures=["h1_bars"] * 7)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"topo_callback\[wandb\]"):
        WandbSink().start({}, tmp_path)


@pytest.mark.slow
def test_pictures_outside_the_folder_are_not_uploaded(run: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    draw_run_pictures(folder)
    secret = folder.path / "secret.png"
    secret.write_bytes((folder.pictures / "trajectory.png").read_bytes())
    (folder.pictures / "link.png").symlink_to(secret)
    sink = WandbSink(table=False, artifact=False)
    sink.start(folder.read_run(), folder.path)
    names = ["../secret.png", str(secret), "link.png", "missing.png"]
    sink.log(replace(make_snapshots()[0], provenance={"pictures": names}))
    row = rows_of(records_of(run), "topology/step")[0]
    assert not [key for key in row if key.startswith("topology_pictures")]


@pytest.mark.slow
def test_a_killed_service_is_an_exception_and_no_hang(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, signal, sys, psutil, wandb
        from pathlib import Path
        from trajectories import make_snapshots
        from topo_callback.sinks import WandbSink

        wandb.init(project="killed")
        sink = WandbSink(table=False)
        sink.start({}, Path(sys.argv[1]))
        for child in psutil.Process().children(recursive=True):
            child.kill(); child.wait()
        try:
            for snapshot in make_snapshots():
                sink.log(snapshot)
        except Exception as error:
            print("raised", type(error).__name__, flush=True)
        os._exit(0)
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "raised" in done.stdout


def test_a_trainers_losses_and_the_users_steps_survive_late_snapshots(tmp_path: Path) -> None:
    """The trainer itself logs; snapshots arrive two steps late; the user logs right after one."""
    import torch
    import wandb
    from tiny import tiny_llama
    from transformers import Trainer, TrainerCallback, TrainingArguments

    snapshots = {snapshot.step + 2: snapshot for snapshot in make_snapshots(range(6))}
    folder = write_trajectory(tmp_path / "topology")

    class Late(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            self.sink = WandbSink()
            self.facts = self.sink.start(folder.read_run(), folder.path)["wandb"]

        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if state.global_step in snapshots:
                self.sink.log(snapshots[state.global_step])
                wandb.log({"user/note": state.global_step})

        def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            self.sink.finish(folder.path)

    rows = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(16)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        report_to=["wandb"],
        max_steps=8,
        logging_steps=1,
        per_device_train_batch_size=2,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        run_name="late",
    )
    callback = Late()
    trainer = Trainer(model=tiny_llama(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    records = records_of(wandb.run)

    losses = rows_of(records, "train/loss")
    assert [row["train/global_step"] for row in losses] == list(range(1, 9))
    assert [row["train/loss"] for row in losses] == [
        pytest.approx(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry
    ]
    # on_step_end comes before the trainer's own log of the step: its newest row is of the step before
    assert [(row["user/note"], row["train/global_step"]) for row in rows_of(records, "user/note")] == [
        (step, step - 1) for step in snapshots
    ]
    assert [row["topology/step"] for row in rows_of(records, "topology/h1_bars")] == list(range(6))
    assert all("train/global_step" not in row for row in rows_of(records, "topology/step"))
    assert callback.facts["project"] == "huggingface"
