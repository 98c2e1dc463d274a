"""ms-swift itself, where it is installed: supervised fine-tuning with the callback as an external plugin."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import ms_swift_run
import pytest
from ms_swift_run import KINDS, prepare

from topo_callback import Trajectory
from topo_callback.errors import MissingExtraError

TESTS = Path(__file__).parents[1]


def runs(folder: Path, *words: str) -> dict[str, Any]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(Path(ms_swift_run.__file__)), str(folder), *words]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "nothing was watched" not in ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_is_watched_and_trains_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("swift.callbacks", reason="ms-swift is not installed", exc_type=ImportError)
    prepare(tmp_path)
    alone = runs(tmp_path, *(f"{kind},none" for kind in KINDS))
    watched = runs(tmp_path, *(f"{kind},callback" for kind in KINDS))
    for kind in KINDS:
        assert watched[f"{kind},callback"] == alone[f"{kind},none"]
        trajectory = Trajectory.load(tmp_path / f"{kind},callback")
        assert trajectory.steps == (0, 1, 2, 3)
        assert trajectory.state == "finished"
        steps = trajectory.training_steps()
        assert steps["loss"].notna().all()
    assert len(set(alone.values())) == len(KINDS)


@pytest.mark.skipif(importlib.util.find_spec("swift") is not None, reason="ms-swift is installed")
def test_without_ms_swift_it_says_so() -> None:
    with pytest.raises(MissingExtraError, match=r"needs ms-swift 4 \(pip install ms-swift\)"):
        importlib.import_module("topo_callback.integrations.ms_swift")


def test_the_path_for_external_plugins_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("topo_callback.integrations.ms_swift", run_name="__main__")
    assert Path(capsys.readouterr().out.strip()).name == "ms_swift.py"
