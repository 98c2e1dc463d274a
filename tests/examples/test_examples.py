"""Every example as a user runs it: a process of its own, an empty folder, tiny sizes, to the end.

The first one is a fresh interpreter; the others are forked from a process that has imported the trainers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_scripts import run_script

from topo_callback import Trajectory
from topo_callback.demo.surroundings import offline_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]


def run(example: str, work: Path, *arguments: str, fresh: bool = False) -> str:
    """What an example prints; its only files are below `work`."""
    script, offline = ROOT / "examples" / f"{example}.py", {"HF_HUB_OFFLINE": "1"}
    if fresh:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **offline}
        command = [sys.executable, str(script), *arguments]
        ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=1100)
    else:
        with contextlib.chdir(work):
            ended = run_script(script, *arguments, seconds=1100, environment=offline)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that is there already."""
    return offline_model(tmp_path_factory.mktemp("model"), pretraining_steps=10)


@pytest.mark.parametrize(
    ("example", "folder"),
    [
        ("sft_lora", "sft-lora"),
        ("dpo", "dpo"),
        ("own_loop", "own-loop"),
        ("accelerate_loop", "accelerate-loop"),
        ("metrics_processor", "metrics-processor"),
    ],
)
def test_training(tmp_path: Path, example: str, folder: str, model: str) -> None:
    first = example == "sft_lora"  # it builds its own model
    run(example, tmp_path, "--steps", "3", *(() if first else ("--model", model)), fresh=first)
    trajectory = Trajectory.load(tmp_path / folder)
    assert trajectory.state == "finished"
    assert {0, 3} <= set(trajectory.steps)  # those between are left out where they cost too much
    steps = trajectory.training_steps()
    assert len(steps) == 3
    assert steps["loss"].notna().all()


def test_torchtitan_calls_what_the_example_has() -> None:
    processor = pytest.importorskip("torchtitan.components.metrics").MetricsProcessor
    spec = importlib.util.spec_from_file_location("metrics_processor", ROOT / "examples" / "metrics_processor.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name in ("should_log", "log", "close"):
        given = list(inspect.signature(inspect.unwrap(getattr(processor, name))).parameters)
        assert given == list(inspect.signature(getattr(example.Watching, name)).parameters)
    assert {"model_parts", "optimizers"} <= set(processor.__annotations__)


def test_scan(tmp_path: Path) -> None:
    printed = run("scan", tmp_path)
    assert "how far its layers' shapes moved from step 0" in printed
    (folder,) = (path.parent for path in (tmp_path / "scan" / "trajectories").glob("*/run.json"))
    assert Trajectory.load(folder).steps == (0, 10, 20, 40)


def test_prune(tmp_path: Path) -> None:
    printed = run("prune", tmp_path, "--tokens", "1024")
    assert "written to pruning/pruned; it answers:" in printed
    depth = [json.loads((tmp_path / "pruning" / name / "config.json").read_text()) for name in ("base_model", "pruned")]
    assert depth[1]["num_hidden_layers"] < depth[0]["num_hidden_layers"]


def write_rows(folder: Path) -> Path:
    """Rows of both kinds in both forms: prompt and completion, and whole conversations."""
    helpful = [{"prompt": f"Name the number after {i}.", "completion": f"It is {i + 1}."} for i in range(40)]
    harmless = [
        {"chosen": f"\n\nHuman: May I take {i}?\n\nAssistant: Why?\n\nHuman: For fun.\n\nAssistant: Better ask first."}
        for i in range(40)
    ]
    folder.mkdir()
    for name, rows in (("helpful", helpful), ("harmless", harmless)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_objectives(tmp_path: Path) -> None:
    # what is there is kept, too: other examples build their model, with fewer steps than the 240 of this one
    offline_model(tmp_path / "objectives" / "base_model", pretraining_steps=10)
    given = ("--dataset", str(write_rows(tmp_path / "rows")), "--seeds", "2", "--steps", "2", "--batch", "2")
    printed = run("objectives", tmp_path, *given, "--probe-size", "16")
    assert "6 runs: helpful (2 runs, seeds 0, 1); harmless (2 runs, seeds 2, 3); mixed (2 runs, seeds 4, 5)" in printed
    assert "wrote objectives/report.html" in printed
    found = json.loads((tmp_path / "objectives" / "comparison" / "comparison.json").read_text())
    assert found["alignment"]["positions"] == [0, 1, 2]
    assert [run["objective"] for run in found["runs"]] == ["helpful"] * 2 + ["harmless"] * 2 + ["mixed"] * 2
    assert (tmp_path / "objectives" / "comparison" / "map.svg").is_file()
    page = (tmp_path / "objectives" / "report.html").read_text()
    assert "Control, the same runs with shuffled objectives" in page
    assert "Name the number" not in page
    # finished runs are kept
    assert "training on" not in run("objectives", tmp_path, *given, "--probe-size", "16")
