"""Training is bit-identical with each study of alignment on, and every one of them has its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked_scripts import run_script

from topo_callback import Trajectory

SCRIPT = Path(__file__).with_name("alignment_run.py")
NUMBERS = {
    "cross_lingual": "translation_retrieval",
    "repetition_neurons": "repetition_neurons",
    "sensitive_directions": "sensitivity_principal_ratio",
    "topographic_correlation": "topographic_correlation",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alignment")


@pytest.fixture(scope="module")
def hashes(folder: Path) -> dict[str, dict[str, str]]:
    result = run_script(SCRIPT, folder, *NUMBERS, seconds=500)
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, dict[str, str]] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("study", NUMBERS)
def test_fault_17_training_is_bit_identical_with_and_without_the_study(
    study: str, hashes: dict[str, dict[str, str]], folder: Path
) -> None:
    assert hashes[study] == hashes["none"]
    trajectory = Trajectory.load(folder / study)
    assert len(trajectory.steps) == 10
    for step in trajectory.steps:
        snapshot = trajectory.snapshot(step)
        assert set(snapshot.numbers[NUMBERS[study]]) == {1, 2, 3}, snapshot.missing.get(NUMBERS[study])


@pytest.mark.slow
def test_the_drift_is_missing_at_the_first_sample_only(hashes: dict[str, dict[str, str]], folder: Path) -> None:
    assert "sensitive_directions" in hashes
    trajectory = Trajectory.load(folder / "sensitive_directions")
    first, *others = (trajectory.snapshot(step) for step in trajectory.steps)
    reasons = set(first.missing["sensitivity_drift_ratio"].values())
    assert reasons == {"the first sample that this process takes has no drift"}
    for snapshot in others:
        assert set(snapshot.numbers["sensitivity_drift_ratio"]) == {1, 2, 3}
