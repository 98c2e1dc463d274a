"""What is recorded of every optimizer step of real trainers is what they log, and training does not hear of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.training_loop import LoopSettings
from topo_callback.watching.step_signals import StepSignals
from topo_callback.watching.training_facts import TrainingFacts

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(48)]
CONFIG = TopologyConfig(
    neighbours=3,
    max_overhead=None,
    measures=("scale",),
    general_text=4,
    steps=(0, 3),
    pictures=0,
    page=False,
    engine="gudhi",
    zigzag_engine="off",
    drain_seconds=120.0,
)


class Watch:
    """Trainers of a small model whose measurements are made in this process."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.pool = pool
        self.tokenizer = tiny_tokenizer()
        self.probe = Probe.from_rows(TEXTS[:12], self.tokenizer)

    def callback(self) -> TopologyCallback:
        return TopologyCallback(self.probe, config=CONFIG, executor=self.pool, sinks=[])

    def rows(self) -> list[dict[str, Any]]:
        tokens = [torch.tensor(self.tokenizer(text)["input_ids"][:12]) for text in TEXTS]
        return [{"input_ids": row, "labels": row} for row in tokens]

    def arguments(self, kind: Any = TrainingArguments, **settings: Any) -> Any:
        common = {
            "output_dir": str(self.folder), "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
            "lr_scheduler_type": "cosine", "use_cpu": True, "report_to": [], "save_strategy": "no",
            "disable_tqdm": True, "logging_steps": 1, "seed": 0,
        }  # fmt: skip
        return kind(**{**common, **settings})

    def trainer(self, *callbacks: Any, model: Any = None, kind: type[Trainer] = Trainer, **settings: Any) -> Trainer:
        rows = self.rows()
        least = min(len(row["input_ids"]) for row in rows)
        rows = [{name: value[:least] for name, value in row.items()} for row in rows]
        model = tiny_llama(self.tokenizer) if model is None else model
        return kind(model, self.arguments(**settings), train_dataset=rows, callbacks=list(callbacks))

    def table(self) -> pd.DataFrame:
        return Trajectory.load(self.folder).training_steps()

    def journal(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in Trajectory.load(self.folder).journal if entry["event"] == event]


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def watch(tmp_path: Path, pool: ThreadPoolExecutor) -> Watch:
    return Watch(tmp_path, pool)


def equals_the_log(table: pd.DataFrame, trainer: Any) -> bool:
    """Whether there is one row for each step, with the loss, norm and rate that the trainer logged there."""
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert table["step"].tolist() == [entry["step"] for entry in logs] == list(range(1, len(logs) + 1))
    for name in ("loss", "grad_norm", "learning_rate", "epoch"):
        assert table[name].tolist() == pytest.approx([entry[name] for entry in logs], rel=1e-6), name
    assert table["moved"].gt(0).equals(table["learning_rate"].gt(0))
    assert table["skipped"].eq(False).all()
    return True


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 5, "per_device_train_batch_size": 2},  # 24 micro batches: the last step has 4
        {"max_grad_norm": 0.0},
        {"max_grad_norm": 1e-3},
        {"lr_scheduler_type": "linear", "warmup_steps": 3},
    ],
)
def test_every_row_is_what_the_trainer_logs(watch: Watch, settings: dict[str, Any]) -> None:
    if settings.get("max_grad_norm") == 0.0:
        pytest.importorskip("transformers", minversion="5.0", reason="before, the loop has no norm without clipping")
    trainer = watch.trainer(watch.callback(), **settings)
    trainer.train()
    table = watch.table()
    assert equals_the_log(table, trainer)
    assert table["planned"].equals(table["learning_rate"])
    assert table["largest_learning_rate"].equals(table["learning_rate"])
    assert watch.journal("signal") == watch.journal("signals_stopped") == []


def test_rows_do_not_wait_for_the_log(watch: Watch) -> None:
    watch.trainer(watch.callback(), logging_steps=500).train()
    rare = watch.table()
    often = Watch(watch.folder / "often", watch.pool)
    often.trainer(often.callback()).train()
    pd.testing.assert_frame_equal(rare, often.table())


@pytest.mark.slow
def test_a_compiled_model_and_an_adapter_are_the_same_to_it(watch: Watch) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_llama(watch.tokenizer), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trainer = watch.trainer(watch.callback(), model=model, torch_compile=True, torch_compile_backend="eager")
    trainer.train()
    assert equals_the_log(watch.table(), trainer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SFT", "DPO"])
def test_trainers_of_trl(watch: Watch, name: str) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    answers = (
        {"completion": [" It is."] * 48} if name == "SFT" else {"chosen": [" Yes."] * 48, "rejected": [" No!"] * 48}
    )
    options: dict[str, Any] = {} if name == "SFT" else {"ref_model": tiny_llama(watch.tokenizer)}
    arguments = watch.arguments(
        getattr(trl, f"{name}Config"), max_length=48, gradient_accumulation_steps=2, activation_checkpointing=False
    )
    trainer = getattr(trl, f"{name}Trainer")(
        tiny_llama(watch.tokenizer),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": TEXTS, **answers}),
        processing_class=watch.tokenizer,
        callbacks=[watch.callback()],
        **options,
    )
    trainer.train()
    assert equals_the_log(watch.table(), trainer)
    logged = Trajectory.load(watch.folder).logged_numbers()
    own = {"SFT": ("entropy", "mean_token_accuracy"), "DPO": ("rewards/margins", "logps/chosen")}[name]
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for column in (*own, "num_tokens"):
        assert logged[column].tolist() == [entry[column] for entry in logs]


class RateByHand(TrainerCallback):
    """Writes a learning rate into the optimizer, for one step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **context: Any) -> None:
        if state.global_step == 3:
            optimizer.param_groups[1]["lr"] = 0.5


def test_a_rate_set_by_hand_is_not_the_planned_one(watch: Watch) -> None:
    trainer = watch.trainer(watch.callback(), RateByHand(), weight_decay=0.1)  # two groups of parameters
    trainer.train()
    table = watch.table().set_index("step")
    assert table["planned"].equals(table["learning_rate"])  # of the first group
    differ = table["largest_learning_rate"] != table["largest_planned"]
    assert differ[differ].index.tolist() == [4]
    assert table.loc[4, "largest_learning_rate"] == 0.5


class BadLoss(Trainer):
    """Its loss is no number at step 3."""

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **options)
        return loss * float("nan") if self.state.global_step == 2 else loss


def test_a_loss_that_is_no_number_is_recorded_although_the_trainer_leaves_it_out(watch: Watch) -> None:
    trainer = watch.trainer(watch.callback(), kind=BadLoss, max_steps=4, learning_rate=0.0)
    trainer.train()
    assert trainer.state.log_history[2]["loss"] == 0.0  # as transformers says it
    loss = watch.table()["loss"]
    assert not loss.isna().any()  # known, but no number
    assert np.isnan(loss.to_numpy(dtype=float)).tolist() == [
        False,
        False,
        True,
        True,
    ]  # NaN gradients leave NaN weights


def test_a_resumed_run_has_every_step_once(watch: Watch) -> None:
    settings = {"save_strategy": "steps", "save_steps": 4, "max_steps": 7}
    watch.trainer(watch.callback(), **settings).train()
    before = watch.table()
    trainer = watch.trainer(watch.callback(), **settings)
    trainer.train(resume_from_checkpoint=str(watch.folder / "checkpoint-4"))
    table = watch.table()
    assert table["step"].tolist() == list(range(1, 8))
    pd.testing.assert_frame_equal(table[:4], before[:4])
    assert equals_the_log(table, trainer)
    assert len(Trajectory.load(watch.folder).journal) > 2
    assert len(list(watch.folder.glob("topology/*/steps.csv"))) == 1


def test_a_run_that_breaks_off_has_the_steps_up_to_its_checkpoint(watch: Watch) -> None:
    """Rows are recorded late; those before a checkpoint are not lost to the run that goes on from it."""

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if state.global_step == 5:
                raise InterruptedError

    callback = watch.callback()
    with pytest.raises(InterruptedError):
        watch.trainer(callback, Stop(), save_strategy="steps", save_steps=4).train()
    callback._monitor._watched.recorder._dispatcher.settle(finished=False, seconds=60.0)
    assert watch.table()["step"].tolist() == [1, 2, 3, 4]
    callback._monitor.abandon()


class Reads(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*arguments, **(options or {}))


WAITING = {"tolist", "_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero", "masked_select", "unique"}


def test_an_ordinary_step_reads_no_number(watch: Watch) -> None:
    """Neither by an operation that would wait for a GPU nor by `tolist`, until rows are read together."""
    counted: dict[int, list[str]] = {}
    callback = watch.callback()

    def counting(method: Callable[..., None]) -> Callable[..., None]:
        def event(args: Any, state: Any, control: Any, **context: Any) -> None:
            names, tolist = counted.setdefault(state.global_step, []), Tensor.tolist

            def noted(tensor: Tensor) -> Any:
                names.append("tolist")
                return tolist(tensor)

            with Reads(names), mock.patch.object(Tensor, "tolist", noted):
                method(args, state, control, **context)

        return event

    for name in ("on_substep_end", "on_pre_optimizer_step", "on_step_end"):
        setattr(callback, name, counting(getattr(callback, name)))
    with mock.patch("topo_callback.watching.late_reading._SECONDS", 1e9):
        watch.trainer(callback, gradient_accumulation_steps=2, logging_steps=500).train()
    for step in (1, 2, 4, 5):
        assert "stack" in counted[step]  # it was there
        assert set(counted[step]) & WAITING == set()
    assert {"tolist", "_local_scalar_dense"} <= set(counted[3])  # at the sample
    assert len(watch.table()) == 6


@pytest.mark.parametrize("error", [RuntimeError("private"), asyncio.CancelledError("private")])
def test_fault_32_signals_that_fail_cost_nothing_but_themselves(
    watch: Watch, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        mock.patch("topo_callback.watching.step_signals._values", side_effect=error),
        caplog.at_level(logging.WARNING, logger="topo_callback"),
    ):
        watch.trainer(watch.callback()).train()
    trajectory = Trajectory.load(watch.folder)
    assert trajectory.steps == (0, 3)
    assert trajectory.overview(3).provenance["facts"]["path_length"] > 0
    assert len(watch.table()) == 0
    assert len(watch.journal("signals_stopped")) == 1
    said = [record for record in caplog.records if record.name == "topo_callback" and "each step" in record.message]
    assert len(said) == 1
    assert "private" not in caplog.text


# other loops


class OwnLoop:
    """A training loop that shows nothing, around the signals themselves."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.rows: list[Any] = []
        self.notes: list[dict[str, Any]] = []
        self.step = 0
        training = TrainingFacts(self.model, None, seed=0)
        self.signals = StepSignals(training, self.rows.extend, lambda event, **said: self.notes.append(said))
        self.training = training

    def train(self, *, clip: float = 1e9, **arguments: Any) -> float:
        """One step; returns the norm of its gradients after clipping."""
        self.step += 1
        self.model(torch.ones(1, 3)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        norm = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).norm()
        self.signals.before_optimizer_step(
            LoopSettings(torch.device("cpu"), "nowhere", **arguments), self.optimizer, None
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.training.step_ended()
        self.signals.step_ended(self.step, None, self.optimizer)
        return float(norm)


def test_another_loop_has_the_logged_loss_and_the_norm_of_the_followed_weights() -> None:
    loop = OwnLoop()
    norms = []
    for step in range(4):
        norms.append(loop.train(clip=0.5))
        loop.signals.logged({"loss": 10.0 + step})
        if step == 2:
            loop.signals.read()
    loop.signals.read(ended=True)
    assert [row[1] for row in loop.rows] == [10.0, 11.0, 12.0, 13.0]
    assert [row[2] for row in loop.rows] == pytest.approx(norms, rel=1e-5)
    assert [row[2] for row in loop.rows] == pytest.approx([0.5] * 4, rel=1e-3)
    assert [(note["name"], note["step"]) for note in loop.notes] == [("grad_norm", 0), ("loss", 1)]
    assert "after clipping" in loop.notes[0]["said"]


def test_a_loss_logged_over_several_steps_is_that_of_none() -> None:
    loop = OwnLoop()
    for step in range(1, 7):
        loop.train()
        if step in (2, 4, 5):
            loop.signals.logged({"loss": float(step)})
    loop.signals.read(ended=True)
    assert [row[1] for row in loop.rows] == [None, None, None, None, 5.0, None]


def test_a_sample_waits_for_no_log() -> None:
    loop = OwnLoop()
    for step in range(1, 4):
        loop.train()
        loop.signals.read()  # a sample, before the trainer logs
        loop.signals.logged({"loss": float(step)})
    loop.signals.read(ended=True)
    assert [row[:2] for row in loop.rows] == [[1, 1.0], [2, 2.0], [3, 3.0]]


def test_gradients_that_may_be_scaled_have_no_norm() -> None:
    loop = OwnLoop()
    loop.train(fp16=True)
    loop.signals.read(ended=True)
    assert loop.rows[0][2] is None
    assert [note["name"] for note in loop.notes] == ["loss", "grad_norm"]


def test_rates_on_a_device_are_those_of_the_step_although_they_are_written_over() -> None:
    loop = OwnLoop()
    rate = torch.tensor(0.25)
    loop.optimizer.param_groups[0]["lr"] = rate
    with mock.patch.object(loop.optimizer, "step", side_effect=lambda: rate.fill_(99.0)):
        loop.train()
    loop.signals.read(ended=True)
    assert loop.rows[0][4:8] == [0.25, 0.25, None, None]


def test_a_step_that_the_optimizer_left_out_says_so() -> None:
    loop = OwnLoop()
    for skipped in (False, True):
        loop.optimizer.step_was_skipped = skipped  # type: ignore[attr-defined]
        loop.train()
    loop.signals.read(ended=True)
    assert [row[8] for row in loop.rows] == [0.0, 1.0]


def test_a_scheduler_that_raises_leaves_its_column_empty_and_is_said_once() -> None:
    loop = OwnLoop()
    scheduler = mock.Mock()
    scheduler.get_last_lr.side_effect = [RuntimeError("private"), RuntimeError("private"), [0.5]]
    for step in range(1, 4):
        loop.signals.before_optimizer_step(LoopSettings(torch.device("cpu"), "nowhere"), loop.optimizer, scheduler)
        loop.signals.step_ended(step, 0.5 * step, loop.optimizer)
    loop.signals.read(ended=True)
    assert [row[6] for row in loop.rows] == [None, None, 0.5]
    assert [row[9] for row in loop.rows] == [0.5, 1.0, 1.5]
    assert [note["name"] for note in loop.notes].count("planned") == 1
    assert "private" not in str(loop.notes)


class Placement:
    """Of a DTensor: whether a number has yet to be added up over the processes."""

    def __init__(self, partial: bool) -> None:
        self.is_partial = lambda: partial
        self.is_replicate = lambda: not partial


def over_processes(value: float, *partial: bool) -> Tensor:
    """A number of this process, as a DTensor over a mesh of 4 processes in each dimension."""
    number: Any = torch.tensor(value)
    number.placements = tuple(map(Placement, partial))
    number.device_mesh = SimpleNamespace(size=lambda dim: 4)
    number.to_local = lambda: torch.tensor(value)
    return number


@pytest.mark.parametrize(
    ("partial", "expected", "said"),
    [((False,), 3.0, []), ((True,), 6.0, ["grad_norm"]), ((True, False), 6.0, ["grad_norm"])],
)
def test_a_norm_that_is_spread_over_processes_is_estimated_from_here(
    partial: tuple[bool, ...], expected: float, said: list[str]
) -> None:
    """Adding it up would take all of them."""
    loop = OwnLoop()

    def train() -> None:
        tr_loss_step, grad_norm = over_processes(0.5, False), over_processes(3.0, *partial)
        loop.train()
        assert (tr_loss_step, grad_norm) != (None, None)

    train()
    loop.signals.read(ended=True)
    assert loop.rows[0][1:3] == [0.5, expected]
    assert [note["name"] for note in loop.notes] == said


class Rewarded(Trainer):
    """Logs a reward beside the loss, as TRL's trainers do, and what is nobody's business."""

    def log(self, logs: dict[str, Any], *arguments: Any, **options: Any) -> None:
        more = {"reward": 0.5 * self.state.global_step, "kl": float("nan"), "key": "sk-secret", "entropy": "sk-secret"}
        super().log({**logs, **(more if "loss" in logs else {})}, *arguments, **options)


def test_rewards_that_the_trainer_logs_are_recorded(watch: Watch) -> None:
    trainer = watch.trainer(watch.callback(), kind=Rewarded, logging_steps=2)
    trainer.train()
    frame = Trajectory.load(watch.folder).logged_numbers()
    assert frame.columns.tolist() == ["step", "reward", "kl"]
    assert frame["step"].tolist() == [2, 4, 6]
    assert frame["reward"].tolist() == [1.0, 2.0, 3.0]
    (file,) = watch.folder.glob("topology/*/logged.csv")
    assert "secret" not in file.read_text()


def test_a_resumed_run_has_the_logged_numbers_up_to_its_checkpoint(watch: Watch) -> None:
    watch.trainer(watch.callback(), kind=Rewarded, save_strategy="steps", save_steps=4).train()
    watch.trainer(watch.callback(), kind=Rewarded, save_strategy="steps", save_steps=4).train(
        resume_from_checkpoint=str(watch.folder / "checkpoint-4")
    )
    frame = Trajectory.load(watch.folder).logged_numbers()
    assert frame["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(list(watch.folder.glob("topology/*/logged.csv"))) == 1


def test_evaluations_on_several_sets_are_recorded_as_their_mean(watch: Watch) -> None:
    rows = [{name: row[name][:5] for name in row} for row in watch.rows()]
    sets = {"mine": rows[:2], "others": rows[2:]}
    evaluates: Any = partial(Trainer, eval_dataset=sets)
    trainer = watch.trainer(watch.callback(), kind=evaluates, eval_strategy="steps", eval_steps=2)
    trainer.train()
    frame = Trajectory.load(watch.folder).logged_numbers()
    assert frame["step"].tolist() == [2, 4, 6]
    logged = {
        name: [row[f"eval_{name}_loss"] for row in trainer.state.log_history if f"eval_{name}_loss" in row]
        for name in sets
    }
    assert frame["eval_loss"].tolist() == pytest.approx(np.mean([*logged.values()], axis=0).tolist())
    (file,) = watch.folder.glob("topology/*/logged.csv")
    assert "mine" not in file.read_text()


def test_an_evaluation_at_the_step_that_a_run_goes_on_from_is_recorded_once(watch: Watch) -> None:
    settings = {
        "save_strategy": "steps",
        "save_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
    }

    evaluates: Any = partial(Trainer, eval_dataset=[{name: row[name][:5] for name in row} for row in watch.rows()])
    watch.trainer(watch.callback(), kind=evaluates, **settings).train()
    first = Trajectory.load(watch.folder).logged_numbers()
    watch.trainer(watch.callback(), kind=evaluates, **settings).train(
        resume_from_checkpoint=str(watch.folder / "checkpoint-4")
    )
    frame = Trajectory.load(watch.folder).logged_numbers()
    assert frame["step"].tolist() == [0, 2, 4, 6]
    assert frame["eval_loss"].tolist() == pytest.approx(first["eval_loss"].tolist())
