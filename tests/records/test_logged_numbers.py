"""What a trainer logs is recorded by names that are known, as numbers, in one row for each step."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.records.logged_numbers import COLUMNS, LOGGED, LoggedNumbers, numbers_in
from topo_callback.records.training_steps import StepsWriter, read_training_steps


@pytest.mark.parametrize(
    ("logs", "taken"),
    [
        ({"reward": 0.5, "loss": 1.0, "learning_rate": 1e-3}, {"reward": 0.5}),
        ({"objective/kl": np.float32(0.25), "entropy": np.int64(3)}, {"kl": 0.25, "entropy": 3.0}),
        ({"reward": "sk-secret", "kl": None, "entropy": True, "margin": [1.0], "accuracy": Decimal(1)}, {}),
        ({"reward": torch.tensor(1.0)}, {}),  # reading it would wait for its device
        ({"num_tokens": 10**400}, {}),
        ({"rewards/a_function_of_mine/mean": 1.0, "eval_reward": 1.0, "my token": 1.0}, {}),
    ],
)
def test_numbers_of_known_names_are_taken_and_nothing_else(logs: dict[Any, Any], taken: dict[str, float]) -> None:
    assert numbers_in(logs) == taken


def test_logs_of_one_step_are_one_row_and_steps_ascend() -> None:
    numbers = LoggedNumbers()
    assert numbers.take(3, {"reward": 1.0}) == ()
    assert numbers.take(3, {"kl": 0.5, "reward": 2.0}) == ()
    assert numbers.before(3) == ()
    (row,) = numbers.take(4, {"reward": 3.0})
    assert dict(zip(COLUMNS, row, strict=True)) == {**dict.fromkeys(LOGGED), "step": 3.0, "reward": 2.0, "kl": 0.5}
    assert [each[0] for each in numbers.before(5)] == [4.0]
    assert numbers.take(4, {"kl": 1.0}) == numbers.rest() == ()  # its row is gone
    numbers.take(6, {"kl": 1.0})
    assert [each[0] for each in numbers.rest()] == [6.0]


def evaluated(name: str, loss: Any) -> dict[str, Any]:
    """What the Trainer logs of one of several evaluation sets."""
    return {f"eval_{name}_loss": loss, f"eval_{name}_runtime": 0.5, f"eval_{name}_accuracy": 0.25}


def test_of_several_evaluation_sets_the_mean_is_recorded_once_all_are_there() -> None:
    numbers, place = LoggedNumbers(), COLUMNS.index("eval_loss")
    rows = []
    for step, losses in (
        (2, {"my secret": 1.0, "b": 2.0}),
        (4, {"my secret": 1.0}),  # an evaluation that was broken off
        (6, {"my secret": 3.0, "b": 4.0, "c": 50.0}),
        (8, {"b": np.float32(3.0), "my secret": 2}),
        (10, {"my secret": float("nan"), "b": 4.0}),
    ):
        for name, loss in losses.items():
            rows += numbers.take(step, evaluated(name, loss))
    rows += numbers.rest()
    assert [(row[0], row[place]) for row in rows[:-1]] == [(2.0, 1.5), (8.0, 2.5)]
    assert rows[-1][0] == 10.0
    assert np.isnan(rows[-1][place])


def test_an_extra_evaluation_of_a_trainer_that_has_its_own_set_is_not_taken() -> None:
    numbers, place = LoggedNumbers(), COLUMNS.index("eval_loss")
    rows = []
    for step, logs in ((10, {"eval_loss": 1.0}), (15, evaluated("test", 3.0)), (20, {"eval_loss": 0.9, "kl": 1.0})):
        rows += numbers.take(step, logs)
    assert [(row[0], row[place]) for row in [*rows, *numbers.rest()]] == [(10.0, 1.0), (20.0, 0.9)]


@pytest.mark.parametrize("losses", [(float("inf"), float("-inf")), (1.7e308, 1.7e308)])
def test_losses_that_have_no_mean_raise_nothing(losses: tuple[float, float]) -> None:
    numbers = LoggedNumbers()
    for name, loss in zip("ab", losses, strict=True):
        numbers.take(1, evaluated(name, loss))
    ((_, *found),) = numbers.rest()
    assert not np.isfinite(found[COLUMNS.index("eval_loss") - 1])


@pytest.mark.parametrize(
    "logs",
    [
        {"eval_kl_loss": 1.0, "eval_runtime": 0.5},  # a number of the user's own, of the one set there is
        {"eval_loss": 3.0, **evaluated("a", 1.0)},
        evaluated("a", torch.tensor(1.0)),
        evaluated("a", "1.0"),
        {"eval__loss": 1.0, "eval_loss_runtime": 1.0, "loss": 1.0},
    ],
)
def test_what_is_no_loss_of_an_evaluation_set_is_not_taken_for_one(logs: dict[str, Any]) -> None:
    numbers = LoggedNumbers()
    numbers.take(1, logs)
    assert [row[COLUMNS.index("eval_loss")] for row in numbers.rest()] == ([3.0] if "eval_loss" in logs else [])


def test_a_frame_has_the_names_that_were_logged(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "run")
    assert Trajectory.load(folder.path).logged_numbers().columns.tolist() == ["step"]
    numbers = LoggedNumbers()
    writer = StepsWriter(folder.logged, COLUMNS)
    for step, logs in ((10, {"reward": 1.0}), (20, {"kl": float("nan")})):
        writer.append(numbers.take(step, logs))
    writer.append(numbers.rest())
    frame = Trajectory.load(folder.path).logged_numbers()
    assert frame.columns.tolist() == ["step", "reward", "kl"]
    assert frame["step"].tolist() == [10, 20]
    assert frame["reward"].isna().tolist() == [False, True]
    folder.drop_after(10)
    assert read_training_steps(folder.logged, COLUMNS).step.tolist() == [10]
