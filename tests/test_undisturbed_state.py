"""Whole runs with state outside the weights are bit-identical with and without the callback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked_scripts import run_script
from undisturbed_run import STATEFUL

from topo_callback import Trajectory

SCRIPT = Path(__file__).with_name("undisturbed_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def hashes(folder: Path) -> dict[str, dict[str, str]]:
    runs = [f"{kind},{watch}" for kind in STATEFUL for watch in ("none", "callback")]
    result = run_script(SCRIPT, folder, *runs)
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", STATEFUL)
def test_faults_29_and_30_training_is_bit_identical(kind: str, hashes: dict[str, dict[str, str]], folder: Path) -> None:
    assert hashes[f"{kind},callback"] == hashes[f"{kind},none"]
    # and it did watch
    assert len(Trajectory.load(folder / f"{kind},callback").steps) == 10
