"""SIGTERM, as a scheduler sends it before it takes the node away."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from topo_callback import Trajectory

SCRIPT = Path(__file__).with_name("terminated_run.py")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["probe", "wait"])
def test_fault_19_sigterm_ends_the_run_at_once_wherever_the_callback_is(tmp_path: Path, place: str) -> None:
    with (tmp_path / "errors.txt").open("w") as errors:
        process = subprocess.Popen([sys.executable, SCRIPT, tmp_path, place], stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith(b"here")), b"")
        assert said == b"here True\n", (tmp_path / "errors.txt").read_text()[-3000:]  # no handler of ours
        time.sleep(0.5)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(timeout=5) == -15
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert Trajectory.load(tmp_path).state == "interrupted"
