"""Row 33 of the list of faults: the disk with the trajectory stops answering, and training goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hanging_disk_run.py")
SECONDS = 30  # 2 that the drain is allowed, 5 for what is left, and those of the run on a busy machine


def run(folder: Path, when: str, ranks: int = 1) -> str:
    """What the run printed; it must end in good order and soon, its interpreter too."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", f"{ranks}"] if ranks > 1 else []
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, SCRIPT, folder, when], capture_output=True, text=True, timeout=200
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    found = re.findall(r"trained (\d+) steps in ([0-9.]+) s", ended.stdout)
    assert len(found) == ranks, printed
    for steps, seconds in found:
        assert int(steps) == (8 if when == "resume" else 5)
        assert float(seconds) < SECONDS
    # the training thread itself has named none of our files
    assert "touched" not in ended.stdout, ended.stdout
    return printed


@pytest.mark.slow
def test_fault_33_a_disk_that_hangs_in_mid_run_costs_the_drain(tmp_path: Path) -> None:
    assert "does not answer; training goes on" in run(tmp_path, "step")


@pytest.mark.slow
def test_fault_33_a_disk_that_hangs_when_a_run_is_resumed_costs_the_wait(tmp_path: Path) -> None:
    run(tmp_path, "never")
    printed = run(tmp_path, "resume")
    assert printed.count("monitoring is off, training goes on") == 1
    assert "did not answer in time" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("when", "said"), [("begin", "did not answer in time"), ("end", "does not answer")])
def test_fault_33_a_disk_that_hangs_at_an_end_of_the_run_costs_the_drain(when: str, said: str, tmp_path: Path) -> None:
    assert said in run(tmp_path, when)


@pytest.mark.slow
def test_fault_33_a_disk_that_hangs_on_the_first_of_two_ranks_costs_the_drain(tmp_path: Path) -> None:
    assert "does not answer; training goes on" in run(tmp_path, "step", ranks=2)
