"""What the worker keeps of the samples it has measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from trajectories import make_sample, make_snapshots

from topo_callback.config import TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record, write_record, write_whole
from topo_callback.worker.task import measure_spooled


def test_distances_stay_for_the_first_the_newest_and_the_newest_saved_sample(tmp_path: Path) -> None:
    folder = TrajectoryFolder.new(tmp_path)
    config = TopologyConfig(measures=("scale",), zigzag_engine="off")
    folder.write_run({"tool": "topo_callback", "config": config.to_dict(), "probe": {"hash": "0"}})
    kept = {}
    for step in (0, 1, 2, 4, 8):
        write_whole(folder.step_file(folder.spool, step), make_sample(step).encode())
        if step in (1, 2):
            folder.note("saved", step=step)
        measure_spooled(str(folder.path), step)
        kept[step] = folder.steps(folder.distances)
    assert kept == {0: [0], 1: [0, 1], 2: [0, 2], 4: [0, 2, 4], 8: [0, 2, 8]}
    assert folder.steps(folder.spool) == []


def test_graphs_of_a_window_are_read_once_and_records_done_anew_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topo_callback.worker import task

    read: list[str] = []

    def counted(path: Path) -> Any:
        read.append(path.name)
        return read_record(path)

    monkeypatch.setattr(task, "_remembered", {})
    monkeypatch.setattr(task, "read_record", counted)
    folder = TrajectoryFolder.new(tmp_path)
    config = TopologyConfig(time_window=None)
    for step, snapshot in enumerate(make_snapshots(range(6), points=12)):
        write_record(folder.step_file(folder.samples, step), *snapshot.to_record())
    for last in range(1, 6):
        assert [graph.step for graph in task._history(folder, list(range(last)), config)] == list(range(last))
    assert read == [f"step-{step:08d}.npz" for step in range(5)]
    os.utime(folder.step_file(folder.samples, 2), ns=(1, 1))
    task._history(folder, list(range(5)), config)
    assert read[5:] == ["step-00000002.npz"]
    task._history(folder, list(range(5)), TopologyConfig(time_window=3))
    assert [Path(name).name for name, _ in task._remembered] == ["step-00000003.npz", "step-00000004.npz"]
    monkeypatch.setattr(task, "_REMEMBERED_BYTES", 0)
    task._history(folder, list(range(5)), config)
    task._history(folder, list(range(5)), config)
    assert task._remembered == {}
