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
    proved = str(SAMPLED[1])  # for the second time, with each prompt alone
    assert {**seen["callback"]["theirs"], proved: 0} == {**seen["none"]["theirs"], proved: 0}


@pytest.mark.slow
def test_a_planted_wait_is_noticed(tmp_path: Path) -> None:
    (seen,) = launch(tmp_path, "waiting")
    assert all(seen["waiting"]["ours"].values())


def test_a_sample_waits_a_few_times(seen: dict[str, Any]) -> None:
    """Beside the four of the sample: the beginning that its prompts share, its general text, the rows of the steps, the
    path of the weights. At the second sample the reading is proved again."""
    layers = 2
    for step in SAMPLED[2:]:
        assert sum(seen["callback"]["ours"][str(step)].values()) == 4 + 1 + 1 + 1 + 1 <= 2 * layers + 4


@pytest.mark.slow
def test_a_device_that_fails_costs_the_sample_and_training_gets_its_own_error(tmp_path: Path) -> None:
    (seen,) = launch(tmp_path, "none", "memory", "memory_of_training", "lost", "kernel")
    first, second, third = SAMPLED
    assert seen["memory"]["error"] is None
    assert seen["memory"]["left"] == seen["none"]["left"]
    assert seen["memory"]["steps"] == [first, third]
    ((step, cause),) = seen["memory"]["skipped"]
    assert step == second
    assert "out of memory with 1 prompt per forward pass" in cause or "out of memory" in cause
    for fault, said in (("lost", "the device is gone"), ("kernel", "device-side assert triggered")):
        assert said in seen[fault]["error"]
        assert seen[fault]["step"] == second
        assert [step for step, _ in seen[fault]["skipped"]] == [second]
        assert [f"step {second} could not be read and is skipped" in line for line in seen[fault]["warned"]] == [True]
    assert seen["memory_of_training"]["error"].startswith("OutOfMemoryError: standin out of memory")
    assert seen["memory_of_training"]["skipped"] == []


def test_the_memory_of_a_sample_is_returned(seen: dict[str, Any]) -> None:
    watched, alone = seen["callback"], seen["none"]
    held = [one - other for one, other in zip(watched["held"], alone["held"], strict=True)]
    assert max(held) <= OF_PATH + OF_ROWS
    assert max(held) - min(held) <= OF_ROWS  # after every sample what it was before
    # between samples the peak is higher by what is held, and by what the path reads anew
    peaks = [one - other for one, other in zip(watched["peaks"], alone["peaks"], strict=True)]
    assert max(each for step, each in enumerate(peaks, 1) if step not in SAMPLED) <= OF_PATH + OF_ROWS + 65_536 * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ranks", "offloaded"])
def test_two_ranks_read_what_one_reads(kind: str, tmp_path: Path) -> None:
    """Each with a copy on its device; or on the processor, sharded by FSDP2 and offloaded."""
    alone = launch(tmp_path / "one", kind)
    first, second = launch(tmp_path / "two", kind, ranks=2)
    assert first == alone[0]
    assert second is None
