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
