"""The ways of training that a Trainer offers: each with the callback and without, in one process on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(48)]
STEPS = 4
TIMES = ("overhead", "previous_sample_seconds")


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Runner:
    """Makes small trainers; every model and every order of the data is the same."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.pool = pool
        self.tokenizer = tiny_tokenizer()
        encoded = self.tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
        self.rows = [
            {"input_ids": ids, "labels": ids, "attention_mask": mask}
            for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        self.probe = Probe.from_rows(TEXTS[:18], self.tokenizer)

    def callback(self, **settings: Any) -> TopologyCallback:
        defaults: dict[str, Any] = {
            "neighbours": 3, "probe_batch": 4, "max_overhead": None, "measures": ("scale", "mutual_knn"),
            "general_text": 4, "pictures": 0, "page": False, "engine": "gudhi", "zigzag_engine": "off",
        }  # fmt: skip
        config = TopologyConfig(**{**defaults, **settings})
        return TopologyCallback(self.probe, config=config, executor=self.pool, sinks=[])

    def trainer(self, name: str, *callbacks: Any, model: Any = None, **arguments: Any) -> Trainer:
        torch.manual_seed(3)
        defaults: dict[str, Any] = {
            "max_steps": STEPS, "per_device_train_batch_size": 2, "save_strategy": "no", "learning_rate": 1e-2,
            "use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_steps": 1, "seed": 3,
            "dataloader_pin_memory": False,
        }  # fmt: skip
        args = TrainingArguments(output_dir=str(self.folder / name), **{**defaults, **arguments})
        model = tiny_llama(self.tokenizer, layers=3) if model is None else model
        return Trainer(model, args, train_dataset=self.rows, eval_dataset=self.rows[:8], callbacks=list(callbacks))

    def trajectory(self, name: str) -> Trajectory:
        return Trajectory.load(self.folder / name)


@pytest.fixture
def runner(tmp_path: Path, pool: ThreadPoolExecutor) -> Runner:
    return Runner(tmp_path, pool)


def left_behind(model: torch.nn.Module) -> tuple[Any, ...]:
    """What training leaves in a model: weights, flags, hooks, attributes."""
    return (
        [parameter.detach().clone().view(torch.uint8).numpy().tobytes() for parameter in model.parameters()],
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
    )


WAYS: dict[str, dict[str, Any]] = {
    "activation checkpointing": {"gradient_checkpointing": True},
    "mixed precision": {"bf16": True},
    "gradient accumulation": {"gradient_accumulation_steps": 3},
    "NEFTune": {"neftune_noise_alpha": 5.0},
    "best model at end": {
        "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps",
        "save_steps": 2, "learning_rate": 5.0,
    },
}  # fmt: skip


# those that the byte-by-byte comparison of processes tries as well are slow here
_TWICE = ("activation checkpointing", "gradient accumulation", "NEFTune")


@pytest.mark.parametrize("way", [pytest.param(w, marks=pytest.mark.slow) if w in _TWICE else w for w in WAYS])
def test_fault_17_every_way_of_training_is_watched_and_not_disturbed(runner: Runner, way: str) -> None:
    plain = runner.trainer("plain", **WAYS[way])
    plain.train()
    watched = runner.trainer("watched", runner.callback(), **WAYS[way])
    watched.train()
    assert left_behind(watched.model) == left_behind(plain.model)
    trajectory = runner.trajectory("watched")
    assert trajectory.steps == tuple(range(STEPS + 1))
    assert trajectory.state == "finished"
    dtype = trajectory.snapshot(STEPS).provenance["facts"]["dtype"]
    assert dtype == "float32"  # the model's own, not that of autocast


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_fault_22_a_compiled_model_is_read_and_not_compiled_again(runner: Runner, backend: str) -> None:
    from torch._dynamo.utils import counters

    compiled: list[dict[str, int]] = []
    left: list[Any] = []
    # the first run of a process may compile a frame that is never compiled again: it is not compared
    for name, callbacks in (("first", []), ("plain", []), ("watched", [runner.callback()])):
        torch._dynamo.reset()
        counters.clear()
        trainer = runner.trainer(name, *callbacks, torch_compile=True, torch_compile_backend=backend)
        trainer.train()
        compiled.append({**counters["stats"], **counters["frames"]})
        left.append(left_behind(trainer.model)[:3])
    torch._dynamo.reset()
    assert compiled[1]["unique_graphs"] > 0
    assert compiled[2] == compiled[1]
    assert left[2] == left[1] == left[0]
    assert runner.trajectory("watched").steps == tuple(range(STEPS + 1))


def test_early_stopping_ends_with_a_sample_of_the_last_step(runner: Runner) -> None:
    trainer = runner.trainer(
        "run",
        runner.callback(samples=2),
        EarlyStoppingCallback(early_stopping_patience=2),
        max_steps=20,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
        greater_is_better=True,  # the loss falls, so this run gets worse from its first evaluation on
    )
    trainer.train()
    assert trainer.state.global_step == 3  # between the scheduled steps 0, 1, 2, 4, 8, 10, 20
    assert runner.trajectory("run").steps == (0, 1, 2, 3)


class OutOfMemory:
    """A hook of a block under which forward passes with more than so many rows, or all of them, run out of memory."""

    left_alone_by_probe = True  # it counts what it does to the probe's passes

    def __init__(self, rows: int, *, training: bool, times: int | None = None) -> None:
        self.rows, self.training, self.times = rows, training, times
        self.met = 0

    def __call__(self, module: torch.nn.Module, arguments: Any) -> None:
        if torch.is_grad_enabled() is not self.training or len(arguments[0]) <= self.rows:
            return
        if self.times is None or self.met < self.times:
            self.met += 1
            raise torch.OutOfMemoryError("CUDA out of memory. (injected)")

    def model(self, tokenizer: Any) -> Any:
        model = tiny_llama(tokenizer, layers=3)
        model.model.layers[1].register_forward_pre_hook(self)
        return model


def test_a_batch_size_found_automatically_leaves_one_run(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    fault = OutOfMemory(4, training=True)
    trainer = runner.trainer(
        "run",
        runner.callback(),
        model=fault.model(runner.tokenizer),
        auto_find_batch_size=True,
        per_device_train_batch_size=6,
    )
    trainer.train()
    assert fault.met == 2  # batches of 6 and of 5
    assert "still wait" not in caplog.text  # the run goes on in the same folder
    assert len(list((runner.folder / "run" / "topology").iterdir())) == 2  # one run, and `latest`
    trajectory = runner.trajectory("run")
    assert trajectory.steps == tuple(range(STEPS + 1))
    assert [entry["event"] for entry in trajectory.journal] == ["started", "resumed", "resumed", "finished"]


@pytest.mark.slow
def test_every_run_of_a_callback_gets_its_own_folder(runner: Runner) -> None:
    callback = runner.callback()
    trainer = runner.trainer("run", callback)
    folders = []
    for _ in range(2):
        trainer.train()
        folders.append(callback.folder)
    # a search over hyper-parameters changes the output_dir between its runs
    trainer.args.output_dir = str(runner.folder / "run" / "trial")
    trainer.train()
    folders.append(callback.folder)
    assert len(set(folders)) == 3
    for folder in folders:
        assert folder is not None
        assert Trajectory.load(folder).steps == tuple(range(STEPS + 1))


def test_fault_18_a_run_resumed_after_its_end_goes_on_in_its_folder(runner: Runner) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    runner.trainer("run", runner.callback(keep_distances=True), **saving).train()
    before = runner.trajectory("run")
    trainer = runner.trainer("run", runner.callback(keep_distances=True), **saving)
    trainer.train(resume_from_checkpoint=str(runner.folder / "run" / "checkpoint-2"))
    after = runner.trajectory("run")
    assert after.folder == before.folder
    assert after.steps == before.steps == tuple(range(STEPS + 1))
    assert after.state == "finished"
    for step in after.steps:
        numbers = [
            {name: dict(layers) for name, layers in t.snapshot(step).numbers.items() if name not in TIMES}
            for t in (before, after)
        ]
        assert numbers[1] == numbers[0]


def test_topo_disabled_makes_the_callback_nothing(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPO_DISABLED", "1")
    forwards: list[int] = []
    model = tiny_llama(runner.tokenizer, layers=3)
    model.register_forward_pre_hook(lambda module, arguments: forwards.append(int(torch.is_grad_enabled())))
    callback = runner.callback()
    runner.trainer("run", callback, model=model).train()
    assert forwards == [1] * STEPS
    assert callback.folder is None
    assert not (runner.folder / "run" / "topology").exists()


@pytest.mark.parametrize(("times", "steps", "batch"), [(1, (0, 1, 2, 3, 4), 2), (None, (), 2)])
def test_fault_21_memory_that_runs_out_halves_the_batch_once_and_then_skips(
    runner: Runner, times: int | None, steps: tuple[int, ...], batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    watched, plain = (OutOfMemory(0, training=False, times=times) for _ in range(2))
    callback = runner.callback()
    trainer = runner.trainer("watched", callback, model=watched.model(runner.tokenizer))
    trainer.train()
    other = runner.trainer("plain", model=plain.model(runner.tokenizer))
    other.train()
    assert left_behind(trainer.model) == left_behind(other.model)
    trajectory = runner.trajectory("watched")
    assert trajectory.steps == steps
    skipped = [entry for entry in trajectory.journal if entry["event"] == "skipped"]
    assert [entry["step"] for entry in skipped] == [step for step in range(STEPS + 1) if step not in steps]
    assert {trajectory.snapshot(step).provenance["facts"]["probe_batch"] for step in steps} <= {batch}
    assert all(f"out of memory with {batch} prompts" in entry["cause"] for entry in skipped)
    warned = [record for record in caplog.records if "skipped" in record.getMessage()]
    assert len(warned) == min(1, len(skipped))
    # the proof, once more with half the batch, once more without the beginning that the prompts share, and each sample
    assert watched.met == (1 if times else 4 + STEPS)
