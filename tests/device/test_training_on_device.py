"""A Trainer whose device is the stand-in trains as it does unwatched, and nothing of ours waits at ordinary steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device.training_run import SAMPLED, STEPS
from ranks_launch import launch_ranks

SCRIPT = Path(__file__).with_name("training_run.py")
# of the weights' path: its 65,536 places as int64, and as float32 what they hold now and held before
OF_PATH = 65_536 * (8 + 4 + 4)
OF_ROWS = 16 * 100  # numbers of steps that are not read yet


def launch(folder: Path, *watches: str, ranks: int = 1) -> list[Any]:
    return launch_ranks(SCRIPT, folder, *watches, ranks=ranks, seconds=200).well()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return launch(tmp_path_factory.mktemp("training"), "none", "callback")[0]  # type: ignore[no-any-return]


def test_training_is_bit_identical(seen: dict[str, Any]) -> None:
    assert seen["callback"]["error"] is None
    assert seen["callback"]["warned"] == []
    assert seen["callback"]["steps"] == list(SAMPLED)
    assert seen["callback"]["trained"] == STEPS
    assert seen["callback"]["left"] == seen["none"]["left"]
    assert len(set(seen["none"]["left"]["states"])) == STEPS  # dropout draws there, and the state is looked at


def test_nothing_of_ours_waits_at_a_step_without_a_sample(seen: dict[str, Any]) -> None:
    steps = [str(step) for step in range(1, STEPS + 1) if step not in SAMPLED]
    assert [seen["callback"]["ours"][step] for step in steps] == [{}] * len(steps)
    assert seen["callback"]["theirs"] == seen["none"]["theirs"]


@pytest.mark.slow
def test_a_planted_wait_is_noticed(tmp_path: Path) -> None:
    (seen,) = launch(tmp_path, "waiting")
    assert all(seen["waiting"]["ours"].values())


def test_the_memory_of_a_sample_is_returned(seen: dict[str, Any]) -> None:
    watched, alone = seen["callback"], seen["none"]
    held = [one - other for one, other in zip(watched["held"], alone["held"], strict=True)]
    assert max(held) <= OF_PATH + OF_ROWS
    assert max(held) - min(held) <= OF_ROWS  # after every sample what it was before
    # between samples the peak is higher by what is held, and by what the path reads anew
    peaks = [one - other for one, other in zip(watched["peaks"], alone["peaks"], strict=True)]
    assert max(each for step, each in enumerate(peaks, 1) if step not in SAMPLED) <= OF_PATH + OF_ROWS + 65_536 * 4


def test_two_ranks_read_what_one_reads(tmp_path: Path) -> None:
    alone = launch(tmp_path / "one", "ranks")
    first, second = launch(tmp_path / "two", "ranks", ranks=2)
    assert first == alone[0]
    assert second is None
