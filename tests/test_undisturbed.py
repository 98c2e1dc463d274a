"""Training is bit-identical with and without the callback; the comparison notices monitors that do disturb."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from forked_scripts import run_script

from topo_callback import Trajectory

SCRIPT = Path(__file__).with_name("undisturbed_run.py")

Hashes = dict[str, dict[str, str]]


def run(folder: Path, *runs: str) -> Hashes:
    """Hashes of runs made one after the other in one process."""
    result = run_script(SCRIPT, folder, *runs)
    assert result.returncode == 0, result.stderr[-3000:]
    hashes: Hashes = json.loads(result.stdout.splitlines()[-1])
    return hashes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def without(folder: Path) -> Hashes:
    return run(folder, "full,none", "full,dataloader", "full,train_mode")


def check(kinds: Sequence[str], without: Hashes, folder: Path) -> None:
    watched = run(folder, *(f"{kind},callback" for kind in kinds))
    for kind in kinds:
        assert watched[f"{kind},callback"] == without[f"{kind},none"]
        # and it did watch
        trajectory = Trajectory.load(folder / f"{kind},callback")
        assert len(trajectory.steps) == 10
        assert "general_text_loss" in trajectory.snapshot(0).numbers


def test_fault_17_training_is_bit_identical_with_and_without_the_callback(without: Hashes, folder: Path) -> None:
    check(["full"], without, folder)


@pytest.mark.slow
def test_fault_17_so_is_training_of_other_kinds(folder: Path) -> None:
    kinds = ("lora", "neftune", "checkpointing")
    check(kinds, run(folder, *(f"{kind},none" for kind in kinds)), folder)


@pytest.mark.parametrize(("watch", "changed"), [("dataloader", "random_states"), ("train_mode", "weights")])
def test_the_comparison_notices_a_monitor_that_disturbs(watch: str, changed: str, without: Hashes) -> None:
    assert without[f"full,{watch}"][changed] != without["full,none"][changed]


@pytest.mark.slow
def test_nor_with_an_optimizer_whose_state_has_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    found = run(tmp_path, "eight_bits,none", "eight_bits,callback")
    assert found["eight_bits,none"] == found["eight_bits,callback"]
    assert len(Trajectory.load(tmp_path / "eight_bits,callback").steps) == 10
