"""`topo-callback demo` as a user runs it: a fresh process, an empty home, the full length."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LONGEST = 180  # seconds, on two cores


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_demo_command_shows_everything_within_three_minutes(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    hidden = {"HF_HUB_OFFLINE": "1", "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "topo_callback", "demo"],
        cwd=work,
        env={**os.environ, **hidden},
        capture_output=True,
        text=True,
        timeout=800,
    )
    seconds = time.monotonic() - start
    assert ended.returncode == 0, ended.stderr
    folder = work / "topo-callback-demo" / "run-001"
    assert (folder / "trajectory.png").stat().st_size > 10_000
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert (folder / "topology" / "latest").exists()
    assert [path.name for path in work.iterdir()] == ["topo-callback-demo"]
    assert "wandb sync topo-callback-demo/run-001/wandb/offline-run-" in ended.stdout
    before, after = ended.stdout.split("held-out loss ")[-1].splitlines()[0].split(" -> ")
    assert float(after) < float(before) - 0.3
    assert "topo-callback report topo-callback-demo/run-001 --prompts-of topo-callback-demo/run-001" in ended.stdout
    assert len(list(folder.glob("topology/*/prompts.jsonl"))) == 1
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    assert seconds < LONGEST
