"""A training loop of one's own, watched: what is recorded of it, and that it is not disturbed."""

from __future__ import annotations

import inspect
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks_launch import launch_ranks
from small_runs import LIGHT, TEXTS
from tiers import mostly_slow
from tiny import tiny_llama, tiny_tokenizer

import topo_callback
from topo_callback import ConfigurationError, MemorySink, TopologyConfig, Trajectory, UnsupportedModelError, Watch
from topo_callback.reader.reader import Reader
from topo_callback.records.training_steps import read_training_steps
from topo_callback.training_loop import OPTIONAL, LoopControl, LoopProgress, LoopSettings

STEPS = 6
CONFIG = TopologyConfig(**{**LIGHT, "engine": "gudhi", "zigzag_engine": "off", "drain_seconds": 200.0})


class Loop:
    """A plain loop in torch; `run` trains and may be watched."""

    def __init__(self, *, steps: int = STEPS, autocast: torch.dtype | None = None) -> None:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002 - the state that a user's own code draws from
        self.steps, self.autocast = steps, autocast
        self.tokenizer = tiny_tokenizer()
        self.model = tiny_llama(self.tokenizer, layers=3)
        self.ids = self.tokenizer(
            list(TEXTS), padding="max_length", truncation=True, max_length=24, return_tensors="pt"
        )["input_ids"]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, total_iters=steps)
        self.losses: list[float] = []
        self.rates: list[float] = []

    def watch(self, folder: Path, **given: Any) -> Watch:
        given = {
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "config": CONFIG,
            "executor": ThreadPoolExecutor(1),
            "sinks": [],
            **given,
        }
        return topo_callback.watch(
            self.model, TEXTS, folder=folder, total_steps=self.steps, processing_class=self.tokenizer,
            autocast=self.autocast, seed=3, batch_size=4, **given,
        )  # fmt: skip

    def step(self) -> torch.Tensor:
        batch = self.ids[torch.randint(len(self.ids), (4,))]
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            loss: torch.Tensor = self.model(input_ids=batch, labels=batch).loss
        loss.backward()  # type: ignore[no-untyped-call]
        self.losses.append(float(loss.detach()))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.scheduler.step()
        return loss

    def run(self, watched: Watch | None = None, steps: int | None = None) -> None:
        for _ in range(self.steps if steps is None else steps):
            loss = self.step()
            if watched is not None:
                watched.step(loss=loss)
            self.optimizer.zero_grad()

    def left(self) -> list[Any]:
        """Everything that training leaves behind, to be compared bit for bit."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.model.state_dict().values(), *states, torch.get_rng_state()]
        return [*(tensor.numpy().tobytes() for tensor in tensors), random.getstate(), repr(np.random.get_state())]  # noqa: NPY002


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, Trajectory, Path]:
    folder = tmp_path_factory.mktemp("loop")
    loop = Loop()
    with loop.watch(folder) as watched:
        loop.run(watched)
        assert watched.steps_done == STEPS
    return loop, Trajectory.load(folder), folder


def test_a_loop_is_recorded_to_its_end(watched: tuple[Loop, Trajectory, Path]) -> None:
    _, trajectory, _ = watched
    assert trajectory.steps == (0, 1, 2, 3, 4, 5, 6)
    assert trajectory.state == "finished"
    training = trajectory.run["training"]
    assert (training["max_steps"], training["batch_size"], training["seed"]) == (STEPS, 4, 3)
    assert training["optimizer"]["name"] == "AdamW"
    assert training["lr_scheduler_type"] == "LinearLR"
    assert training["learning_rate"] == 1e-2


def test_every_step_has_its_own_loss_and_rate(watched: tuple[Loop, Trajectory, Path]) -> None:
    loop, trajectory, _ = watched
    assert trajectory.folder is not None
    steps = read_training_steps(trajectory.folder / "steps.csv")
    assert steps.step.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(steps.column("loss"), loop.losses, rtol=1e-6)
    np.testing.assert_allclose(steps.column("learning_rate"), loop.rates, rtol=1e-12)
    np.testing.assert_allclose(steps.column("planned"), loop.rates, rtol=1e-12)
    assert np.isfinite(steps.column("grad_norm")).all()
    facts = [trajectory.snapshot(step).provenance["facts"] for step in (1, 6)]
    assert [fact["loss"] for fact in facts] == pytest.approx([loop.losses[0], loop.losses[-1]])
    assert [fact["learning_rate"] for fact in facts] == pytest.approx([loop.rates[0], loop.rates[-1]])


def test_gradients_that_are_zeroed_before_a_step_is_told_have_no_norm(tmp_path: Path) -> None:
    loop = Loop(steps=2)
    with loop.watch(tmp_path) as watched:
        for _ in range(2):
            loss = loop.step()
            loop.optimizer.zero_grad(set_to_none=False)
            watched.step(loss=loss)
    trajectory = Trajectory.load(tmp_path)
    assert np.isnan(read_training_steps(trajectory.folder / "steps.csv").column("grad_norm")).all()
    (said,) = (entry["said"] for entry in trajectory.journal if entry.get("name") == "zeroed")
    assert said.startswith("the gradients were zeroed before the step was told; give grad_norm")


def test_a_loop_may_change_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(steps=2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with loop.watch(Path("run")) as watched:
        loop.run(watched, 1)
        monkeypatch.chdir(tmp_path / "elsewhere")
        loop.run(watched, 1)
    assert Trajectory.load(tmp_path / "run").steps == (0, 1, 2)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_training_is_bit_identical_with_and_without(watched: tuple[Loop, Trajectory, Path]) -> None:
    alone = Loop()
    alone.run()
    assert alone.left() == watched[0].left()
    other = Loop()
    other.run(steps=STEPS - 1)
    assert other.left() != alone.left()


def test_what_a_loop_says_of_a_step_is_of_that_step_whatever_it_is(tmp_path: Path) -> None:
    loop = Loop()
    losses: list[Any] = [
        None,
        np.float32(2.0),
        torch.ones(1, requires_grad=True),
        torch.ones(2),
        10**400,
        torch.tensor(1j),
    ]
    epochs: list[Any] = [0.5, np.float32(0.5), None, float("inf"), torch.tensor(0.5), None]
    with loop.watch(tmp_path) as watched:
        for loss, epoch in zip(losses, epochs, strict=True):
            loop.step()
            watched.step(loss=loss, epoch=epoch)
            loop.optimizer.zero_grad()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1, 2, 3, 4, 5, 6)
    steps = read_training_steps(trajectory.folder / "steps.csv")
    np.testing.assert_equal(steps.column("loss"), [np.nan, 2.0, 1.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(steps.column("planned"), loop.rates, rtol=1e-12)
    facts = [trajectory.snapshot(step).provenance["facts"] for step in (1, 2, 3)]
    assert [fact.get("loss") for fact in facts] == [None, 2.0, 1.0]
    assert [fact["epoch"] for fact in facts] == [0.5, 0.5, None]


def test_odd_calls_do_not_reach_the_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(steps=2)
    unchecked: Any = inspect.unwrap  # of the types that tests check
    with loop.watch(tmp_path) as watched:
        unchecked(Watch.log)(watched, None)
        watched.log({"reward": torch.ones(2), "loss": torch.ones(2)})
        unchecked(Watch.saved)(watched, None)
        watched.saved("no\0file")
        loop.run(watched)
    assert [record.getMessage()[:20] for record in caplog.records] == ["log takes numbers by", "saved takes a file o"]
    assert Trajectory.load(tmp_path).steps == (0, 1, 2)


@pytest.mark.parametrize("scheduled", [True, False])
def test_what_is_not_known_of_the_schedule_is_not_said(scheduled: bool, tmp_path: Path) -> None:
    loop = Loop(steps=1)
    optimizer: Any = torch.optim.SGD(loop.model.parameters(), 0.05)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer) if scheduled else None
    loop.watch(tmp_path, optimizer=optimizer, scheduler=plateau).finish()
    training = Trajectory.load(tmp_path).run["training"]
    assert training["learning_rate"] == 0.05
    assert training.get("lr_scheduler_type") == ("ReduceLROnPlateau" if scheduled else None)
    assert training["lr_scheduler_kwargs"].get("factor") == (0.1 if scheduled else None)


def test_an_optimizer_may_find_its_own_rate(tmp_path: Path) -> None:
    from transformers import Adafactor

    loop = Loop(steps=1)
    with loop.watch(tmp_path, optimizer=Adafactor(loop.model.parameters()), scheduler=None) as watched:
        watched.step(loss=1.0)
    trajectory = Trajectory.load(tmp_path)
    assert "learning_rate" not in trajectory.run["training"]
    assert read_training_steps(trajectory.folder / "steps.csv").column("loss").tolist() == [1.0]


def broken_off(loop: Loop, watched: Watch, error: type[BaseException]) -> None:
    with watched:
        loop.run(watched, 2)
        raise error


def test_a_loop_that_raises_is_left_with_its_own_error_and_what_was_measured(tmp_path: Path) -> None:
    loop = Loop()
    watched = loop.watch(tmp_path)
    with pytest.raises(ZeroDivisionError):
        broken_off(loop, watched, ZeroDivisionError)
    watched.step(loss=1.0)  # over: nothing happens any more
    assert Trajectory.load(tmp_path).state != "finished"
    assert watched.steps_done == 2


def test_nothing_that_fails_here_reaches_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()

    def broken(*given: Any, **others: Any) -> None:
        raise MemoryError("planted")

    with loop.watch(tmp_path) as watched:
        monkeypatch.setattr(Reader, "read", broken)
        loop.run(watched)
    assert watched.steps_done == STEPS
    (stopped,) = (entry for entry in Trajectory.load(tmp_path).journal if entry["event"] == "stopped")
    assert "MemoryError" in stopped["reason"]


@pytest.mark.parametrize("is_file", mostly_slow([False, True], True))
def test_a_run_goes_on_in_its_folder_from_what_was_saved(is_file: bool, tmp_path: Path) -> None:
    loop, saved = Loop(), tmp_path / "weights" / "step-3"
    saved.mkdir(parents=True)
    if is_file:
        saved /= "model.pt"
        saved.touch()
        (saved.parent / "topo_callback.json").write_text('{"run_id": "another"}')
    first = loop.watch(tmp_path / "run")
    loop.run(first, 3)
    first.saved(saved)
    with pytest.raises(KeyError):
        broken_off(loop, first, KeyError)
    loop.watch(tmp_path / "run").finish()  # the newest run in that folder is another one
    with loop.watch(tmp_path / "run", start_step=3, checkpoint=saved) as again:
        loop.run(again, 3)
    assert again.folder == first.folder
    assert again.folder is not None
    assert Trajectory.load(again.folder).steps == (0, 1, 2, 3, 4, 5, 6)


def test_asked_for_samples_are_taken_and_the_rest_as_the_settings_say(tmp_path: Path) -> None:
    loop, sink = Loop(), MemorySink()
    config = TopologyConfig(**{**CONFIG.to_dict(), "steps": (0, 6)})
    with loop.watch(tmp_path, config=config, sinks=[sink]) as watched:
        loop.run(watched, 2)
        watched.sample()
        watched.sample()  # once is enough
        watched.log({"reward": 1.5, "mine": 3.0})
        loop.run(watched, 4)
    assert [snapshot.step for snapshot in sink.snapshots] == [0, 2, 6]
    assert watched.folder is not None
    assert "reward" in (watched.folder / "logged.csv").read_text()
    assert "mine" not in (watched.folder / "logged.csv").read_text()


@pytest.mark.parametrize("dtype", mostly_slow([torch.bfloat16], torch.bfloat16))
def test_the_model_is_read_under_the_loops_autocast(dtype: torch.dtype, tmp_path: Path) -> None:
    loop = Loop(steps=1, autocast=dtype)
    with loop.watch(tmp_path) as watched:
        loop.run(watched)
    assert Trajectory.load(tmp_path).run["reading"]["autocast"] == "bfloat16"


def test_a_tracker_without_a_sink_is_said_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Loop(steps=1).watch(tmp_path, report_to=["flyte"], sinks=None).finish()
    assert "there is no sink for flyte; the numbers are in the record" in capsys.readouterr().err


def test_a_disabled_loop_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPO_DISABLED", "1")
    loop = Loop()
    with loop.watch(tmp_path / "run") as watched:
        loop.run(watched, 2)
    assert watched.folder is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"total_steps": 0}, r"total_steps is 0; accepted: a whole number of optimizer steps, 1 or more"),
        ({"total_steps": True}, r"total_steps is True"),
        ({"start_step": -1}, r"start_step is -1; .* 0 or more"),
        ({"start_step": 9}, r"start_step is 9, beyond total_steps, 6"),
        ({"checkpoint": "weights"}, r"checkpoint is of a run that goes on, and start_step is 0; give start_step"),
        ({"autocast": torch.float32}, r"autocast is torch.float32; accepted"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    loop = Loop()
    with pytest.raises(ConfigurationError, match=said):
        topo_callback.watch(loop.model, TEXTS, **{"folder": tmp_path, "total_steps": STEPS, **given})
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    unchecked: Any = inspect.unwrap(topo_callback.watch)  # of the types that tests check
    with pytest.raises(ConfigurationError, match=r"the first argument is a tuple; accepted: the model, then the probe"):
        unchecked(TEXTS, None, folder=tmp_path, total_steps=2)


def test_a_model_that_is_not_of_transformers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError):
        topo_callback.watch(torch.nn.Linear(2, 2), TEXTS, folder=tmp_path, total_steps=2, sinks=[])


def test_everything_that_is_read_of_a_loop_is_in_its_form() -> None:
    import ast

    package = Path(topo_callback.__file__).parent
    forms = {"args": LoopSettings, "settings": LoopSettings, "state": LoopProgress, "control": LoopControl}
    read: set[tuple[str, str]] = set()
    files = [*package.glob("watching/*.py"), package / "reader/run_description.py", package / "callback.py"]
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            read.add((owner, node.attr))
    for form in set(forms.values()):
        named = {attribute for owner, attribute in read if forms.get(owner) is form}
        assert named
        assert named <= {*form.__dataclass_fields__}
    words = {node.value for path in files for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    assert set(OPTIONAL) <= words


@pytest.mark.slow
def test_two_ranks_are_watched_together_and_neither_is_disturbed(tmp_path: Path) -> None:
    ranks = launch_ranks(Path(__file__).with_name("loop_rank_run.py"), tmp_path, seconds=200).well()
    assert len(ranks) == 2
    for rank in ranks:
        assert rank["alone"]["left"] == rank["watched"]["left"] == rank["fails"]["left"]
    assert [rank["watched"]["folder"] for rank in ranks] == [True, False]
    trajectory = Trajectory.load(tmp_path / "watched")
    assert (trajectory.steps, trajectory.state) == ((0, 1, 2, 3, 4), "finished")
    assert trajectory.run["training"]["world_size"] == 2
    assert [said[:61] for rank in ranks for said in rank["warnings"]] == [
        "step 1 could not be read and is skipped: rank 1: MemoryError "
    ]
    assert Trajectory.load(tmp_path / "fails").steps == (0,)
