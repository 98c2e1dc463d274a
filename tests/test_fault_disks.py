"""Rows 9 and 10 of the list of faults, on a disk that is really full, or becomes really read-only, in mid-run.

The disk is a small tmpfs in a mount namespace of the run's own, which ends with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("small_disk_run.py")
NAMESPACE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="needs a mount namespace (Linux, and the right to have one)")


def run(folder: Path, how: str) -> str:
    """What the run printed; it must end in good order."""
    disk = folder / "disk"
    disk.mkdir()
    shell = f'mount -t tmpfs -o size=2m none "{disk}" && exec "{sys.executable}" "{SCRIPT}" "{disk}" {how}'
    ended = subprocess.run([*NAMESPACE, "sh", "-c", shell], capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert "trained 5 steps" in ended.stdout
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_fault_9_a_disk_that_is_full_for_a_while_costs_nothing_but_a_warning(tmp_path: Path) -> None:
    printed = run(tmp_path, "full-for-a-while")
    assert printed.count("training goes on, recent samples are kept in memory and retried") == 1
    assert "No space left on device" in printed
    assert "recorded (0, 1, 2, 3, 4, 5) damaged [] state finished" in printed


@pytest.mark.slow
def test_fault_9_a_disk_that_stays_full_costs_samples_that_are_named(tmp_path: Path) -> None:
    printed = run(tmp_path, "full")
    assert printed.count("training goes on, recent samples are kept in memory and retried") == 1
    # what was recorded before stays whole, and what was lost is said
    assert "recorded (0, 1, 2) damaged []" in printed
    assert "was lost" in printed


@pytest.mark.slow
def test_fault_10_a_disk_that_becomes_read_only_costs_samples_and_no_training(tmp_path: Path) -> None:
    printed = run(tmp_path, "read-only")
    assert printed.count("training goes on, recent samples are kept in memory and retried") == 1
    assert "Read-only file system" in printed
    assert "recorded (0, 1, 2) damaged []" in printed
    assert "was lost" in printed
