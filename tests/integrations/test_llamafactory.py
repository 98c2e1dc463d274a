"""LLaMA-Factory itself, where it is installed: every stage through `run_exp`, and its launcher behind our `run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llamafactory_run
import pytest
import yaml
from llamafactory_run import COMMON, KINDS, prepare
from safetensors_hash import weights_hash

from topo_callback import Trajectory

pytest.importorskip("llamafactory", reason="llamafactory is not installed", exc_type=ImportError)
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
SETTINGS = ("--topo-max-overhead", "none", "--topo-drain-seconds", "200", "--topo-measures", "scale",
            "--topo-prompts", "12")  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
RUN = ("-m", "topo_callback", "run", *SETTINGS)


def python(*words: str, folder: Path) -> str:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    ended = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "nothing was watched" not in ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llamafactory")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What `run_exp` leaves in every stage: all without the callback in one process, all with it in another."""
    found: dict[str, dict[str, Any]] = {}
    for watch in ("none", "callback"):
        script = str(Path(llamafactory_run.__file__))
        said = python(script, str(folder), *(f"{kind},{watch}" for kind in KINDS), folder=folder)
        found |= json.loads(said.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_is_watched_and_trains_the_same_weights(
    kind: str, results: dict[str, dict[str, Any]], folder: Path
) -> None:
    assert results[f"{kind},callback"]["weights"] == results[f"{kind},none"]["weights"]
    trajectory = Trajectory.load(folder / f"{kind},callback")
    assert trajectory.steps == (0, 1, 2, 3)
    for step in trajectory.steps:
        assert set(trajectory.snapshot(step).status.values()) == {"ok"}
    assert trajectory.snapshot(3).median("median_distance") != trajectory.snapshot(0).median("median_distance")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pretraining"])
def test_the_probe_holds_the_questions_of_the_data(kind: str, results: dict[str, dict[str, Any]]) -> None:
    prompts = results[f"{kind},none"]["prompts"]
    expected = {
        (f"Human: What do {i} and {i * 7 % 23} make?<eos>\nAssistant:", f"{i + i * 7 % 23}<eos>\n") for i in range(24)
    }
    assert {(prompt, answer) for prompt, answer in prompts} == expected


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ((), ("llamafactory.launcher", "sft.yaml")),
        ((), ("llamafactory.cli", "train", "sft.yaml")),
        (TORCHRUN, ("llamafactory.launcher", "sft.yaml")),
    ],
    ids=["launcher", "cli", "two ranks"],
)
def test_its_own_launcher_is_watched_and_trains_the_same_weights(
    launcher: tuple[str, ...], words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    settings = {**COMMON, **KINDS["sft"], "ddp_backend": "gloo" if launcher else None}
    for name in ("model", "data"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    python(*launcher, "-m", *words, "output_dir=without", folder=tmp_path)
    python(*launcher, *RUN, "-m", *words, "output_dir=with", folder=tmp_path)
    assert weights_hash(tmp_path / "with") == weights_hash(tmp_path / "without")
    assert Trajectory.load(tmp_path / "with").steps == (0, 1, 2, 3)
    assert not (tmp_path / "without/topology").exists()
