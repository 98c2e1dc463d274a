"""Whole training runs with every study on: not disturbed, and on two ranks the numbers of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked_scripts import run_script
from ranks_launch import launch_ranks
from tiny import needs_fsdp2_on_cpu

from topo_callback import Trajectory
from topo_callback.config import STUDIES
from topo_callback.studies import ModelStudy, ProbeStudy, studies
from topo_callback.studies.running import SHARDED

SCRIPT = Path(__file__).with_name("studies_run.py")


def values(trajectory: Trajectory, step: int) -> dict[str, dict[int | None, float]]:
    names = {name for study in STUDIES for name in (*studies[study].measures, *studies[study].whole)}
    snapshot = trajectory.snapshot(step)
    return {name: dict(snapshot.numbers[name]) for name in names & {*snapshot.numbers}}


@pytest.mark.slow
def test_fault_17_training_is_bit_identical_with_and_without_the_studies(tmp_path: Path) -> None:
    result = run_script(SCRIPT, tmp_path, "undisturbed", "lora,none", "lora,callback", seconds=400)
    assert result.returncode == 0, result.stderr[-3000:]
    hashes: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert hashes["lora,callback"] == hashes["lora,none"]
    # and they did watch
    trajectory = Trajectory.load(tmp_path / "lora,callback")
    assert len(trajectory.steps) == 10
    for step in trajectory.steps:
        for study in ("info_nce", "dime", "lidar", "random_tokens", "shuffled_tokens"):
            assert values(trajectory, step)[studies[study].measures[0]].keys() == {1, 2, 3}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    folder = tmp_path_factory.mktemp("alone")
    launch_ranks(SCRIPT, folder, "ranks", "plain", "full-fine", ranks=1, seconds=400).well()
    return Trajectory.load(folder / "full-fine")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "fsdp2"])
def test_two_ranks_give_the_numbers_of_one(kind: str, alone: Trajectory, tmp_path: Path) -> None:
    if kind == "fsdp2":
        needs_fsdp2_on_cpu()
    launched = launch_ranks(SCRIPT, tmp_path / "two", "ranks", kind, "full-fine", seconds=400)
    seen = [rank["full-fine"] for rank in launched.well()]
    two = Trajectory.load(tmp_path / "two" / "full-fine")
    assert [run["error"] for run in seen] == [None, None]
    assert [run["warnings"] for run in seen] == [[], []]
    one, other = values(alone, 0), values(two, 0)
    probe_numbers = {n for s in STUDIES if isinstance(studies[s], ProbeStudy) for n in studies[s].measures}
    assert {"lidar", "random_tokens_mutual_knn"} <= probe_numbers & {*one}
    for name in probe_numbers & {*one}:
        assert other[name] == pytest.approx(one[name], rel=1e-12 if kind == "plain" else 1e-3, abs=1e-5), name
    model_numbers = {n for s in STUDIES if isinstance(studies[s], ModelStudy) for n in studies[s].measures}
    if kind == "fsdp2":
        missing = two.snapshot(0).missing
        assert {reason for name in model_numbers for reason in missing[name].values()} <= {SHARDED}
        # every rank ran the model equally often
        assert seen[0]["forwards"] == seen[1]["forwards"]
