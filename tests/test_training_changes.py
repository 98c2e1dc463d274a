"""Changes of training while a real trainer trains: told at once, recorded once, known after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from topo_callback import Event, MemorySink, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.cli import main

SPIKE, MOVED = 60, 110  # steps done before


class Surprises(TrainerCallback):
    """A learning rate times 8 for three steps, which the schedule knows nothing of; later, other weights."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if SPIKE <= state.global_step < SPIKE + 3:
            for group in context["optimizer"].param_groups:
                group["lr"] *= 8

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step == MOVED:
            with torch.no_grad():
                context["model"].model.layers[1].mlp.down_proj.weight.normal_()


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.now = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self.now = state.global_step


def train(folder: Path, *callbacks: TrainerCallback, steps: int = 140, resume: str | None = None, **more: Any) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=2, pad_token_id=0,
        )
    )  # fmt: skip
    strides = torch.randint(1, 20, (4 * steps,), generator=torch.Generator().manual_seed(1)).tolist()
    data = []
    for stride in strides:
        tokens = [(stride * (place + 1)) % 250 + 1 for place in range(16)]
        data.append({"input_ids": tokens, "labels": tokens})
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-3, report_to="none", seed=0,
        logging_steps=500, warmup_steps=8, disable_tqdm=True, use_cpu=True, **{"save_strategy": "no", **more},
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)


def settings() -> TopologyConfig:
    """Samples at the start, in the middle and at the end only: changes are told between them."""
    return TopologyConfig(
        max_overhead=1.0,
        steps=(0, 1, 139),
        pictures=0,
        page=False,
        measures=("mutual_knn",),
        general_text=4,
        actions=("log",),
    )


def events_of(folder: Path) -> list[dict[str, Any]]:
    journal = (Trajectory.load(folder).folder / "journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, journal) if entry["event"] == "event"]


@pytest.mark.slow
def test_changes_are_told_between_samples_and_recorded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, Event]] = []
    clock, sink = Steps(), MemorySink()
    callback = TopologyCallback(
        [{"input_ids": [7 * i % 250 + 1, 3, 9, i + 1]} for i in range(12)],
        config=settings(),
        on_event=lambda event: told.append((clock.now, event)),
        sinks=[sink],
    )
    train(tmp_path, clock, callback, Surprises())
    assert [event.kind for _, event in told] == ["change", "change", "explained", "explained"]
    assert sink.events == [event for _, event in told]
    (_, spike), (_, moved), *_ = told
    assert SPIKE < spike.known_at <= SPIKE + 3
    assert "the optimizer's learning rate was 8x the scheduled one" in spike.explanation
    assert MOVED < moved.known_at <= MOVED + 2
    assert all(now < 139 for now, _ in told[:2]), "told at a sample, not between them"
    # explained by the sample behind them
    assert [each["known_at"] for each in events_of(tmp_path)] == [spike.known_at, moved.known_at, 139, 139]
    capsys.readouterr()
    main(["events", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"step {spike.known_at}: change: {spike.explanation}\n" in said
    assert f"step {moved.known_at}: change: {moved.explanation}\n" in said


@pytest.mark.slow
def test_a_resumed_run_tells_what_is_new_only(tmp_path: Path) -> None:
    told: list[Event] = []
    probe = [{"input_ids": [7 * i % 250 + 1, 3, 9, i + 1]} for i in range(12)]
    save = {"save_strategy": "steps", "save_steps": 100}
    train(tmp_path, TopologyCallback(probe, config=settings(), on_event=told.append), Surprises(), **save)
    first = [event.known_at for event in told if event.kind == "change"]
    assert len(first) == 2
    told.clear()
    again = TopologyCallback(probe, config=settings(), on_event=told.append)
    train(tmp_path, again, Surprises(), resume=str(tmp_path / "checkpoint-100"), **save)
    # the one before the checkpoint is known
    assert [event.known_at for event in told if event.kind == "change"] == [first[1]]
    steps = Trajectory.load(tmp_path).training_steps()
    assert steps.step.tolist() == list(range(1, 141))
    changes = [each["known_at"] for each in events_of(tmp_path) if each["kind"] == "change"]
    assert changes == [*first, first[1]]
