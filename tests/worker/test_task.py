"""What the worker keeps of the samples it has measured."""

from __future__ import annotations

from pathlib import Path

from trajectories import make_sample

from topo_callback.config import TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
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
