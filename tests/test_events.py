"""A reorganisation planted in a real run is found while it goes on, and what was asked for happens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from wandb_files import offline_wandb, read_wandb

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.cli import main
from topo_callback.dynamics import Event, References, ReferencesError, Series, find_events
from topo_callback.errors import TopologyError

STEPS, PLANTED = 40, range(14, 17)
ROWS = [
    {"input_ids": [(7 * row + 3 * place * (1 + row % 5)) % 390 + 5 for place in range(8)], "labels": row % 2}
    for row in range(32)
]
CONFIG = TopologyConfig(
    max_overhead=None,
    neighbours=3,
    prompts=24,
    measures=("scale", "wasserstein", "mutual_knn", "cka", "rtd"),
    general_text=4,
    pictures=0,
    page=False,
    samples=STEPS,
    drain_seconds=120.0,
    actions=("log", "alert", "save", "stop"),
)


class Planted(TrainerCallback):
    """Moves weights that are not trained, so that the path of the trained ones explains nothing; and waits for the
    worker, so that what it finds is known at the next step."""

    def __init__(self, callback: TopologyCallback, *, plant: bool) -> None:
        self.callback, self.plant = callback, plant
        self.draw = torch.Generator().manual_seed(3)

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self.callback._monitor._watched.recorder._dispatcher.drain(120.0)  # type: ignore[union-attr]
        if self.plant and state.global_step in PLANTED:
            weight = context["model"].bert.embeddings.word_embeddings.weight
            with torch.no_grad():
                weight += 0.05 * torch.randn(weight.shape, generator=self.draw)


def run(
    folder: Path,
    *,
    callback: TopologyCallback,
    plant: bool = False,
    planting: TrainerCallback | None = None,
    **settings: Any,
) -> Trainer:
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_labels=2,
        )
    )
    model.bert.embeddings.requires_grad_(False)
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        save_strategy="no",
        logging_steps=5,
        disable_tqdm=True,
        **{"report_to": [], **settings},
    )
    trainer = Trainer(model, args, train_dataset=ROWS, callbacks=[planting or Planted(callback, plant=plant), callback])
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Event], Path]]:
    """A run with a planted reorganisation, the events its user's function saw, and its W&B folder."""
    import wandb

    folder = tmp_path_factory.mktemp("planted")
    seen: list[Event] = []
    with offline_wandb(folder) as wandb_folder, ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(config=CONFIG, on_event=seen.append, executor=executor)
        run(folder / "run", plant=True, callback=callback, report_to=["wandb"])
        wandb.finish()
        yield folder / "run", seen, wandb_folder


def test_the_planted_steps_are_found_and_the_training_went_on(planted: tuple[Path, list[Event], Path]) -> None:
    folder, seen, _ = planted
    onset = next(event for event in seen if event.kind == "onset")
    assert (onset.level, onset.measured) == ("sequential", True)
    assert PLANTED.start - 1 <= onset.first_step <= PLANTED.stop
    trajectory = Trajectory.load(folder)
    assert trajectory.steps[-1] == STEPS
    assert not [entry for entry in trajectory.journal if entry["event"] == "would_stop"]  # not at an onset


def test_what_was_found_on_the_way_is_what_the_record_says(planted: tuple[Path, list[Event], Path]) -> None:
    folder, seen, _ = planted
    trajectory = Trajectory.load(folder)
    afterwards = find_events(Series.of(trajectory)).events
    assert {(event.kind, event.level) for event in seen} == {(event.kind, event.level) for event in afterwards}
    written = [entry for entry in trajectory.journal if entry["event"] == "event"]
    assert [entry["explanation"] for entry in written] == [event.explanation for event in seen]


def test_a_checkpoint_is_saved_where_the_peak_is_known(planted: tuple[Path, list[Event], Path]) -> None:
    folder, seen, _ = planted
    peak = next(event for event in seen if event.kind == "peak")
    saved = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    assert saved
    assert saved[0] in (peak.known_at, peak.known_at + 1)


def test_the_tracker_has_the_alert_and_the_axes(planted: tuple[Path, list[Event], Path]) -> None:
    _, seen, wandb_folder = planted
    (run_folder,) = wandb_folder.glob("offline-run-*")
    records = read_wandb(run_folder)
    alerts = [record["alert"] for record in records if record["type"] == "alert"]
    assert [alert["text"] for alert in alerts] == [event.explanation for event in seen]
    assert all(len(alert["title"]) < 64 for alert in alerts)
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    clocks = [item["topology/clock"] for item in items if "topology/clock" in item]
    assert len(clocks) == STEPS + 1
    assert np.all(np.diff(clocks) > 0)
    assert {"topology/velocity", "topology/progress"} <= set().union(*items)


class Broken(Planted):
    """Makes a weight no number."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        super().on_step_begin(args, state, control, **context)
        if state.global_step == PLANTED.start:
            with torch.no_grad():
                context["model"].classifier.bias.fill_(float("nan"))


@pytest.mark.slow
@pytest.mark.parametrize("meant", [True, False])
def test_a_loss_that_is_no_number_any_more_stops_the_run_where_that_is_meant(tmp_path: Path, meant: bool) -> None:
    config = dataclasses.replace(CONFIG, actions=("stop",), stop_dry_run=not meant)
    callback = TopologyCallback(config=config, sinks=[])
    trainer = run(tmp_path, planting=Broken(callback, plant=False), callback=callback)
    lost = PLANTED.start + 8  # steps without a finite loss
    noted = {entry["event"]: entry for entry in Trajectory.load(tmp_path).journal}
    assert noted["stop_asked" if meant else "would_stop"]["step"] == lost
    assert (lost <= trainer.state.global_step <= lost + 3) is meant
    assert (trainer.state.global_step == STEPS) is not meant
    assert ("training_stopped" in noted) is meant


@pytest.mark.slow
def test_a_quiet_run_is_told_nothing(tmp_path: Path) -> None:
    seen: list[Event] = []
    run(tmp_path, plant=False, callback=TopologyCallback(config=CONFIG, sinks=[], on_event=seen.append))
    assert seen == []
    assert json.loads((tmp_path / "topology" / callback_folder(tmp_path) / "run.json").read_text())["training"]


def callback_folder(output_dir: Path) -> str:
    return (output_dir / "topology" / "latest").read_text().strip()


def test_the_commands_say_the_same_and_collect_references(
    planted: tuple[Path, list[Event], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, seen, _ = planted
    assert main(["events", str(folder)]) == 0
    said = capsys.readouterr().out
    assert all(f": {event.kind.replace('_', ' ')}: " in said for event in seen)
    file = tmp_path / "references.npz"
    assert main(["calibrate", str(folder), "--output", str(file)]) == 0
    assert "1 reference run in" in capsys.readouterr().out
    assert len(References.load(file).runs) == 1
    assert main(["events", str(folder), "--references", str(file)]) == 0
    assert "too few reference runs with wasserstein_h1 to say: 1 of the" in capsys.readouterr().out


def test_references_of_another_model_are_refused_before_the_first_step(
    planted: tuple[Path, list[Event], Path], tmp_path: Path
) -> None:
    file = tmp_path / "references.npz"
    series = Series.of(Trajectory.load(planted[0]))
    other = dataclasses.replace(series, identity={**series.identity, "probe": "another"})
    References.of([other]).save(file)
    callback = TopologyCallback(config=dataclasses.replace(CONFIG, references=str(file)), sinks=[])
    with pytest.raises(TopologyError, match="the references have probe another, this run has"):
        run(tmp_path / "run", plant=False, callback=callback)
    assert issubclass(ReferencesError, TopologyError)
