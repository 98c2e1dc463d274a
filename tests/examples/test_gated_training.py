"""The steps of the workflow in examples/gated_training.yml pass a run in which nothing is wrong, and no other."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback.cli import main
from topo_callback.records.chain import seal_run
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.held import Open
from topo_callback.records.record import write_record

ROOT = Path(__file__).parents[2]
CHECKS = ("the record is whole", "nothing went wrong")
ALWAYS = ("say what became of it", "write the page")


def steps_of_the_workflow() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((ROOT / "examples" / "gated_training.yml").read_text())
    (job,) = content["jobs"].values()
    return {step["name"]: step for step in job["steps"] if "run" in step}


def sealed(work: Path, sizes: Mapping[int, float] = {}, invalid: Mapping[int, str] | None = None) -> TrajectoryFolder:
    """A closed run in runs/sft whose effective rank is multiplied at some steps."""
    bad = {STEPS[2]: invalid} if invalid else None
    folder = write_trajectory(work / "runs" / "sft" / "topology", invalid=bad)
    for snapshot in make_snapshots() if sizes else ():
        factor = sizes.get(snapshot.step, 1.0)
        numbers = {name: dict(snapshot.numbers[name]) for name in snapshot.numbers}
        numbers["effective_rank"] = dict.fromkeys(snapshot.layers, 8.0 * factor)
        path = folder.step_file(folder.samples, snapshot.step)
        write_record(path, *replace(snapshot, numbers=numbers).to_record(), compress=True)
    folder.lock()
    seal_run(folder, "began", Open(run=True))
    folder.note("finished", waiting=0)
    seal_run(folder, "closed", None)
    folder.unlock()
    return folder


def checked(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit statuses of the checks, in this process."""
    monkeypatch.chdir(work)
    return [main(shlex.split(steps_of_the_workflow()[name]["run"])[1:]) for name in CHECKS]


def status(name: str, work: Path) -> int:
    """Exit status of a step, run as GitHub runs it."""
    command = steps_of_the_workflow()[name]["run"].replace("topo-callback", f"{sys.executable} -m topo_callback")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(work / "summary")}
    words = ["bash", "-e", "-o", "pipefail", "-c", command]
    return subprocess.run(words, cwd=work, env=environment, capture_output=True, timeout=300).returncode


@pytest.mark.slow
def test_a_run_in_which_nothing_is_wrong_passes_and_is_described(tmp_path: Path) -> None:
    sealed(tmp_path)
    assert [status(name, tmp_path) for name in (*CHECKS, *ALWAYS)] == [0, 0, 0, 0]
    assert "structure kept" in (tmp_path / "summary").read_text()
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    "wrong", [{"sizes": dict.fromkeys(STEPS[-3:], 0.1)}, {"invalid": {LAYERS[0]: "not finite"}}], ids=str
)
def test_a_run_that_collapsed_or_is_not_finite_fails(
    wrong: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(tmp_path, **wrong)
    assert checked(tmp_path, monkeypatch) == [0, 1]


def test_a_record_that_was_edited_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sealed(tmp_path)
    folder.journal_file.write_bytes(folder.journal_file.read_bytes().replace(b"finished", b"started_"))
    assert checked(tmp_path, monkeypatch) == [1, 0]


def test_what_is_said_however_the_checks_end_is_said_always() -> None:
    steps = steps_of_the_workflow()
    assert {name for name, step in steps.items() if step.get("if") == "always()"} == set(ALWAYS)
    assert list(steps)[:2] == ["install", "train"]
