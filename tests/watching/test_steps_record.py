"""What training says at its steps, written and looked at: with references, and where their file is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trajectories import write_trajectory

from topo_callback.dynamics import References, Series
from topo_callback.records.training_steps import COLUMNS, Row, read_training_steps
from topo_callback.records.trajectory import Trajectory
from topo_callback.watching.steps_record import StepsRecord


def rows(seed: int, factor: float = 1.0) -> list[Row]:
    """A loss that is multiplied from step 100 on."""
    loss = np.exp(0.05 * np.random.default_rng(seed).normal(size=160)) * np.where(np.arange(160) >= 99, factor, 1.0)
    return [(step + 1.0, float(loss[step]), *[None] * (len(COLUMNS) - 2)) for step in range(160)]


def at_once(function: Callable[..., None], *arguments: object) -> None:
    function(*arguments)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    runs = []
    for seed in range(19):
        folder = write_trajectory(tmp_path / f"quiet-{seed}")
        StepsRecord(folder, at_once).put(rows(seed))
        runs.append(Series.of(Trajectory.load(folder.path)))
    References.of(runs).save(tmp_path / "references.npz")
    return tmp_path / "references.npz"


def test_new_steps_are_judged_by_the_references(tmp_path: Path, references: Path) -> None:
    found = {}
    for name, file in (("alone", None), ("beside them", str(references))):
        folder = write_trajectory(tmp_path / name)
        record = StepsRecord(folder, at_once, references=file)
        record.begin()
        for start in range(0, 160, 7):
            record.put(rows(40, 1.3)[start : start + 7])
        found[name] = record.found()
        assert len(read_training_steps(folder.training_steps).step) == 160
    assert found["alone"] == []
    kinds = [(event["kind"], event["level"]) for event in found["beside them"]]
    assert kinds == [("change", "calibrated")]


def test_a_run_that_goes_on_is_told_the_same(tmp_path: Path, references: Path) -> None:
    folder = write_trajectory(tmp_path / "run")
    first = StepsRecord(folder, at_once, references=str(references))
    first.begin()
    first.put(rows(40, 1.3)[:120])
    again = StepsRecord(folder, at_once, references=str(references))
    again.begin()
    again.put(rows(40, 1.3)[120:])
    assert first.found() == again.found() != []


def test_references_that_are_gone_leave_the_run_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = StepsRecord(write_trajectory(tmp_path / "run"), at_once, references=str(tmp_path / "none.npz"))
    with caplog.at_level(logging.WARNING, logger="topo_callback"):
        record.begin()
    record.put(rows(40, 6.0))
    assert "changes of training are judged by the run alone" in caplog.text
    assert {event["level"] for event in record.found()} == {"sequential"}
