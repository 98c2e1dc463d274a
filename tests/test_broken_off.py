"""A run that breaks off is not drained at the end of the interpreter: it says what waits, and `finish` measures it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from broken_off_run import DRAIN_SECONDS

from topo_callback import Trajectory
from topo_callback.worker.finish import finish_folder

SCRIPT = Path(__file__).with_name("broken_off_run.py")
CODES = {"raise": 1, "exit": 7, "os_exit": 7, "terminate": -15, "interrupt": -2}
SPEAKING = ("raise", "exit", "interrupt")  # the others leave no moment to speak in
MOST_SECONDS = 30.0  # from the break to the end of the process, most of which are two disks' waits


@dataclass(frozen=True)
class Ended:
    """How one run ended: its exit code, the seconds from the break to the end, and what it printed."""

    way: str
    code: int
    seconds: float
    said: str
    folder: Path


@pytest.fixture(scope="module", params=CODES)
def ended(engines_ready: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    way = str(request.param)
    root = tmp_path_factory.mktemp(way)
    console = root / "console.txt"
    with console.open("w") as file:
        process = subprocess.Popen([sys.executable, SCRIPT, root / "run", way], stdout=file, stderr=file)
    try:
        code = process.wait(timeout=DRAIN_SECONDS)
    finally:
        process.kill()
        process.wait()
    at_end, said = time.time(), console.read_text()
    begun = [float(line.split()[1]) for line in said.splitlines() if line.startswith("here ")]
    assert begun, said[-3000:]
    return Ended(way, code, at_end - begun[0], said, root / "run")


@pytest.mark.slow
def test_no_sample_is_waited_for_and_finish_measures_what_waits(ended: Ended) -> None:
    assert ended.code == CODES[ended.way], ended.said[-3000:]
    assert ended.seconds < MOST_SECONDS
    run = Trajectory.load(ended.folder)
    assert (run.steps, run.state) == ((), "interrupted")
    if ended.way in SPEAKING:
        assert f"samples still wait to be measured; `topo-callback finish {run.folder}` does it" in ended.said
    finished = finish_folder(run.folder)
    assert len(finished.measured) >= 2
    assert (finished.failed, finished.undrawn) == ({}, None)
    assert Trajectory.load(run.folder).steps == finished.measured
