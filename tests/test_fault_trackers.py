"""Row 11 of the list of faults: W&B cannot be reached, or is lost in the middle of a run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from forked_scripts import run_script

from topo_callback import Trajectory

pytest.importorskip("wandb")
SCRIPT = Path(__file__).with_name("lost_tracker_run.py")
GETS_NO_MORE = "gets no further numbers; the record in"


def run(folder: Path, how: str) -> tuple[dict[str, Any], str]:
    """What the run saw of itself, and what it printed; it must end in good order."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # settings of the tests' own, which say that W&B is offline, are not those of the run
        for name in filter(lambda each: each.startswith("WANDB_"), list(os.environ)):
            patch.delenv(name)
        ended = run_script(SCRIPT, folder, how, seconds=250)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "seen.json").read_text()), ended.stderr


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("untracked") / "run", "none")[0]


def assert_nothing_was_lost(folder: Path, seen: dict[str, Any], untracked: dict[str, Any], printed: str) -> None:
    """Training, the record and the other sinks are those of a run without the tracker; one warning."""
    assert seen["steps"] == 5
    assert seen["weights"] == untracked["weights"]
    assert seen["sent"] == [0, 1, 2, 3, 4, 5]
    trajectory = Trajectory.load(folder)
    assert trajectory.steps == (0, 1, 2, 3, 4, 5)
    assert trajectory.state == "finished"
    assert trajectory.damaged == {}
    (dead,) = [entry for entry in trajectory.journal if entry["event"] == "sink_dead"]
    assert dead["sink"] == "WandbSink"
    assert printed.count(GETS_NO_MORE) == 1


@pytest.mark.slow
def test_fault_11_the_service_of_wandb_is_killed_in_mid_run(tmp_path: Path, untracked: dict[str, Any]) -> None:
    seen, printed = run(tmp_path / "run", "service_killed")
    assert_nothing_was_lost(tmp_path / "run", seen, untracked, printed)
    assert "WandbSink failed in log (ConnectionResetError" in printed


@pytest.mark.slow
def test_fault_11_wandb_cannot_be_reached_at_the_start(tmp_path: Path, untracked: dict[str, Any]) -> None:
    seen, printed = run(tmp_path / "run", "no_server")
    assert_nothing_was_lost(tmp_path / "run", seen, untracked, printed)
    assert "WandbSink failed in start" in printed


@pytest.mark.slow
def test_fault_11_the_server_of_wandb_is_lost_in_mid_run(tmp_path: Path, untracked: dict[str, Any]) -> None:
    started = time.monotonic()
    seen, printed = run(tmp_path / "run", "server_killed")
    # the end of the run has a limit of its own, here 5 s, where W&B would wait for ever
    assert time.monotonic() - started < 150
    assert_nothing_was_lost(tmp_path / "run", seen, untracked, printed)
    assert "WandbSink failed in finish" in printed
