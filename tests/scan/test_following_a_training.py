"""`scan --watch` beside a real training that is killed and resumed, and is itself killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scan.checkpoints import SETTINGS, save_model, write_probe
from scan.test_same_numbers import OF_TRAINING
from small_runs import TEXTS, fork_server, train

from topo_callback import Trajectory

PATIENCE = 100.0


def watcher(folder: Path) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "topo_callback",
        "scan",
        "--watch",
        folder / "run",
        "--base",
        folder / "base",
    ]
    command += [
        "--prompts",
        folder / "probe.txt",
        "--tokenizer",
        folder / "base",
        "--topo-config",
        folder / "topology.yaml",
    ]
    command += ["--output-dir", folder / "scan", "--every", "0.2", "--stop-file", folder / "stop"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    with (folder / "console").open("ab") as console:
        return subprocess.Popen(command, stdout=console, stderr=console, env={**os.environ, "PYTHONPATH": path})


def until(holds: Callable[[], bool], process: Any) -> None:
    began = time.monotonic()
    while not holds():
        assert process.poll() is None, "the watcher has ended"
        assert time.monotonic() - began < PATIENCE, "the watcher hangs"
        time.sleep(0.05)


def recorded(folder: Path) -> set[int]:
    return {int(path.stem[5:]) for path in (folder / "scan" / "run" / "samples").glob("step-*.npz")}


@pytest.fixture
def watchers(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        begun.append(watcher(tmp_path))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_training_is_killed_and_resumed_and_so_is_what_follows_it(
    tmp_path: Path, watchers: Callable[[], subprocess.Popen[bytes]]
) -> None:
    save_model(tmp_path / "base")
    write_probe(tmp_path)
    (tmp_path / "topology.yaml").write_text(yaml.safe_dump({**SETTINGS, "measures": list(SETTINGS["measures"])}))
    run = str(tmp_path / "run")
    options: dict[str, Any] = {"settings": SETTINGS, "save_steps": 1, "save_total_limit": 4, "step_seconds": 1.0}
    process = watchers()
    # a training that were ahead of it would have dropped its first checkpoints
    until(lambda: "a look every" in (tmp_path / "console").read_text(), process)
    with fork_server() as context:
        first = context.Process(target=train, args=(run,), kwargs={**options, "max_steps": 8, "die_at": 6})
        first.start()
        until(lambda: {1, 2} <= recorded(tmp_path), process)
        process.kill()
        process.wait()
        assert Trajectory.load(tmp_path / "scan").state == "interrupted"
        process = watchers()
        until(lambda: {4, 5} <= recorded(tmp_path), process)
        first.join(PATIENCE)
        assert first.exitcode == -signal.SIGKILL
        resumed = {
            "resume": f"{run}/checkpoint-3",
            "data": TEXTS[::-1],
            "max_steps": 8,
            "result": str(tmp_path / "ended"),
        }
        second = context.Process(target=train, args=(run,), kwargs={**options, **resumed})
        second.start()
        second.join(PATIENCE)
        assert second.exitcode == 0
    (tmp_path / "stop").touch()
    assert process.wait(PATIENCE) == 0
    followed, trained = Trajectory.load(tmp_path / "scan"), Trajectory.load(run)
    assert (tmp_path / "ended").read_text() == '{"steps": [4, 5, 6, 7, 8], "error": null}'
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 4
    assert followed.steps == trained.steps == tuple(range(9))
    assert followed.state == "finished"
    for step in range(9):
        one, other = followed.snapshot(step).numbers, trained.snapshot(step).numbers
        expected = {name: values for name, values in other.items() if name not in OF_TRAINING}
        for name, values in expected.items():  # processes place arrays otherwise, which moves the last digits of sums
            assert dict(one[name]) == pytest.approx(dict(values), rel=1e-6, abs=1e-9, nan_ok=True), (step, name)
        # the callback keeps what step 4 is compared with for one checkpoint, the newest; here step 3 was read again
        assert {name.endswith(".previous") for name in {*one} - {*expected}} <= {step == 4}
    assert "checkpoint-4 was written anew: the records of steps 4, 5 are dropped" in (tmp_path / "console").read_text()
