"""A search over hyper-parameters, and one callback in several trainers: every run has a trajectory of its own."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.sinks import MemorySink

# optuna warns of what is experimental in it, and transformers of what it calls there
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 2


class Watch:
    """One callback, its sink, and the trainers that it is put into."""

    def __init__(self, folder: Path, executor: Executor | None = None) -> None:
        self.folder = folder
        self.tokenizer = tiny_tokenizer()
        encoded = self.tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24)
        self.rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
        self.sink = MemorySink()
        self.callback = TopologyCallback(
            list(TEXTS),
            config=TopologyConfig(**LIGHT, drain_seconds=200.0),
            processing_class=self.tokenizer,
            sinks=[self.sink],
            executor=executor,
        )

    def model(self, *_: Any) -> Any:
        return tiny_llama(self.tokenizer, layers=3)

    def trainer(self, name: str, callbacks: list[Any], **settings: Any) -> Trainer:
        args = TrainingArguments(
            str(self.folder / name), max_steps=STEPS, per_device_train_batch_size=4, use_cpu=True, report_to=[],
            disable_tqdm=True, save_strategy="no", seed=3, **settings,
        )  # fmt: skip
        return Trainer(
            args=args, model_init=self.model, train_dataset=self.rows, eval_dataset=self.rows[:4], callbacks=callbacks
        )


def numbers(trajectory: Trajectory) -> list[dict[str, dict[int | None, float]]]:
    times = ("overhead", "previous_sample_seconds")
    return [
        {name: dict(layers) for name, layers in trajectory.snapshot(step).numbers.items() if name not in times}
        for step in trajectory.steps
    ]


def assert_whole(trajectory: Trajectory) -> None:
    assert trajectory.steps == tuple(range(STEPS + 1))
    assert trajectory.state == "finished"
    assert trajectory.damaged == {}


@pytest.mark.slow
def test_every_trial_of_a_search_has_a_trajectory_of_its_own(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="searches over hyper-parameters")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rates = [1e-3, 1e-2]
    watch = Watch(tmp_path)
    trainer = watch.trainer("search", [watch.callback])
    trials: list[tuple[float, Trajectory]] = []

    def space(trial: Any) -> dict[str, float]:
        return {"learning_rate": trial.suggest_categorical("learning_rate", rates)}

    def objective(metrics: dict[str, float]) -> float:
        assert watch.callback.folder is not None
        trials.append((trainer.args.learning_rate, Trajectory.load(watch.callback.folder)))
        return metrics["eval_loss"]

    best = trainer.hyperparameter_search(
        space, compute_objective=objective, n_trials=2, direction="minimize", backend="optuna",
        sampler=optuna.samplers.GridSampler({"learning_rate": rates}, seed=0),
    )  # fmt: skip
    assert best.hyperparameters["learning_rate"] in rates
    found = dict(trials)
    assert sorted(found) == rates
    assert len({trajectory.folder for trajectory in found.values()}) == 2
    for rate, trajectory in found.items():
        assert_whole(trajectory)
        assert trajectory.run["training"]["learning_rate"] == rate
    slow, fast = (numbers(found[rate]) for rate in rates)
    assert slow[0] == fast[0]
    assert slow[-1] != fast[-1]
    # what a trial gives is what a run by itself gives: nothing is left of the trials before it
    for rate in rates:
        with ThreadPoolExecutor(1) as executor:
            alone = Watch(tmp_path / f"alone-{rate}", executor)
            torch.manual_seed(0)
            alone.trainer("run", [alone.callback], learning_rate=rate).train()
        assert numbers(Trajectory.load(tmp_path / f"alone-{rate}" / "run")) == numbers(found[rate])
    assert watch.sink.finished == 2
    assert watch.sink.steps == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
def test_one_callback_in_two_trainers_makes_two_trajectories(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    for name, rate in (("first", 1e-2), ("second", 1e-3), ("third", 1e-2)):
        watch.trainer(name, [watch.callback], learning_rate=rate).train()
    runs = [Trajectory.load(tmp_path / name) for name in ("first", "second", "third")]
    for trajectory in runs:
        assert_whole(trajectory)
    first, second, third = map(numbers, runs)
    assert first == third
    assert first[0] == second[0]
    assert first[-1] != second[-1]


@pytest.mark.slow
def test_two_callbacks_in_one_process_keep_apart(tmp_path: Path) -> None:
    """A trainer that is begun, and left, while another one is watched."""
    with ThreadPoolExecutor(1) as executor:
        _train_nested(Watch(tmp_path / "one", executor), Watch(tmp_path / "other", executor))
    for name in ("one", "other"):
        assert_whole(Trajectory.load(tmp_path / name / "run"))


def _train_nested(one: Watch, other: Watch) -> None:
    outer = one.trainer("run", [one.callback])
    inner = other.trainer("run", [other.callback])

    class Nested(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if state.global_step == 1:
                inner.train()

    outer.add_callback(Nested())
    outer.train()
