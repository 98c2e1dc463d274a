"""Row 20 of the list of faults, with ranks that are really lost, really slow, or told not to watch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ranks_launch import launch_ranks

from topo_callback import Trajectory
from topo_callback.worker.finish import finish_folder

SCRIPT = Path(__file__).with_name("rank_fault_run.py")
STEPS = tuple(range(6))


def launch(folder: Path, how: str, *, torchrun: bool = False) -> tuple[int, dict[int, dict[str, Any]], str]:
    """The exit status of the launcher, what each rank that lived saw, and all that was printed."""
    launched = launch_ranks(SCRIPT, folder, how, seconds=200, torchrun=torchrun)
    assert launched.code is not None, f"took too long:\n{launched.printed[-4000:]}"
    return launched.code, launched.seen, launched.printed


@pytest.mark.slow
def test_fault_20_a_killed_rank_leaves_a_readable_record_and_no_process(tmp_path: Path) -> None:
    code, _, printed = launch(tmp_path / "run", "killed", torchrun=True)
    assert code != 0  # the launcher says so and ends the other rank, as it does without the callback
    assert "SIGKILL" in printed
    end = time.monotonic() + 10
    left = list(psutil.process_iter(["cmdline"]))
    while time.monotonic() < end:
        left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
        if not left:
            break
        time.sleep(0.2)
    assert left == []
    assert Trajectory.load(tmp_path / "run").state == "interrupted"
    finish_folder(tmp_path / "run")
    trajectory = Trajectory.load(tmp_path / "run")
    # rank 1 died before the sample of step 3, which both would have taken
    assert trajectory.steps == (0, 1, 2)
    assert trajectory.damaged == {}
    assert set(trajectory.snapshot(2).status.values()) == {"ok"}


@pytest.mark.slow
def test_fault_20_a_slow_rank_is_waited_for_by_training_only(tmp_path: Path) -> None:
    code, seen, printed = launch(tmp_path / "run", "slow")
    assert code == 0, printed
    assert [seen[rank]["error"] for rank in (0, 1)] == [None, None]
    assert seen[0]["warnings"] == seen[1]["warnings"] == []
    trajectory = Trajectory.load(tmp_path / "run")
    assert trajectory.steps == STEPS
    assert trajectory.state == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(0,), (1,)], ids=str)
def test_fault_20_a_rank_that_is_told_not_to_watch_stops_all_with_one_warning(
    ranks: tuple[int, ...], tmp_path: Path
) -> None:
    code, seen, printed = launch(tmp_path / "run", f"disabled-{ranks[0]}")
    assert code == 0, printed
    for rank in (0, 1):
        assert seen[rank]["error"] is None
        assert seen[rank]["step"] == STEPS[-1]
        assert seen[rank]["folder"] is None
        said = [line for line in seen[rank]["warnings"] if "TOPO_DISABLED" in line]
        assert len(said) == (rank not in ranks)
        assert seen[rank]["texts"] == ["", "\udcff"]
        # who says nothing is not quoted
        assert seen[rank]["said"] == ["", "rank 1: I", "rank 0: we"]
    assert not (tmp_path / "run" / "topology").exists()


@pytest.mark.slow
def test_ranks_that_are_all_told_not_to_watch_say_nothing(tmp_path: Path) -> None:
    code, seen, printed = launch(tmp_path / "run", "disabled-0-1")
    assert code == 0, printed
    assert seen[0]["warnings"] == seen[1]["warnings"] == []
    assert not (tmp_path / "run" / "topology").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen on this system")
@pytest.mark.parametrize("what", ["texts", "worst", "late"])
def test_fault_20_ranks_that_end_right_after_speaking_end_well(what: str, tmp_path: Path) -> None:
    # where the tensors are not kept some of 24 die by SIGABRT: about one in three after texts, one in seven after worst
    command = [sys.executable, str(SCRIPT.with_name("ending_ranks_run.py")), str(tmp_path), "12", what]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert found.stdout.split() == ["0"] * 24, found.stderr
