"""Pictures of zigzags over depth and time, on disk and in Weights & Biases, at the samples that are pictured.

The samples go through the worker's own function; the uploads are read back from the file of an offline run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from trajectories import LAYERS, STEPS, make_sample
from wandb_files import offline_wandb, read_wandb, rows_of
from zigzag_pictures import panels_of

from topo_callback import Snapshot, TopologyConfig, Trajectory
from topo_callback.figures import depth_figure, time_figure
from topo_callback.figures.figures import STYLE
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.sinks import WandbSink
from topo_callback.worker.task import measure_spooled

PICTURED = (0, 4, 16)
CURVES = ["Number of loops", "Loops shared with other {}s", "Births of loops"]
MATRICES = ["Loops alive from {0} i to {0} j", "Births and deaths of loops"]


@dataclass(frozen=True)
class Pictured:
    """A run of six samples, three of them pictured, logged to an offline run of W&B."""

    records: list[dict[str, Any]]
    folder: TrajectoryFolder
    files: Path  # what W&B would upload
    early: bytes  # time-L06.png as it lay on disk after the second pictured sample


def measured(folder: TrajectoryFolder) -> Iterator[Snapshot]:
    """Every sample as the worker measures and draws it."""
    for step in STEPS:
        sample = replace(make_sample(step), facts={"pictures": step in PICTURED})
        write_whole(folder.step_file(folder.spool, step), sample.encode())
        yield measure_spooled(str(folder.path), step)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Pictured:
    import wandb

    base = tmp_path_factory.mktemp("pictured")
    folder = TrajectoryFolder.new(base / "topology")
    measures = ("survival", "depth_persistence", "time_persistence")
    config = TopologyConfig(picture_layers=1, measures=measures).to_dict()
    folder.write_run({"tool": "topo_callback", "config": config, "probe": {"hash": "0" * 64}, "layers": list(LAYERS)})
    early = b""
    with offline_wandb(base):
        run = wandb.init(project="test", settings=wandb.Settings(x_disable_stats=True))
        sink = WandbSink(table=False, artifact=False)
        sink.start(folder.read_run(), folder.path)
        for snapshot in measured(folder):
            sink.log(snapshot)
            if snapshot.step == PICTURED[1]:
                early = (folder.pictures / "time-L06.png").read_bytes()
        sync_dir = Path(run.settings.sync_dir)
        run.finish()
        return Pictured(read_wandb(sync_dir), folder, sync_dir / "files", early)


def png_of(figure: Any) -> bytes:
    image = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(image, format="png")
    return image.getvalue()


def uploads(pictured: Pictured, key: str) -> dict[int, bytes]:
    """What was logged under a key: step -> content of the file."""
    rows = rows_of(pictured.records, f"topology_pictures/{key}.path")
    return {row["topology/step"]: (pictured.files / row[f"topology_pictures/{key}.path"]).read_bytes() for row in rows}


@pytest.mark.slow
def test_every_pictured_sample_has_its_zigzag_over_depth(pictured: Pictured) -> None:
    trajectory = Trajectory(pictured.folder)
    found = uploads(pictured, "depth")
    assert list(found) == list(PICTURED)
    for step, content in found.items():
        figure = depth_figure(trajectory.snapshot(step))
        assert list(panels_of(figure)) == [title.format("layer") for title in (*MATRICES, *CURVES)]
        assert content == png_of(figure)
        assert content == (pictured.folder.pictures / f"depth-step-{step:08d}.png").read_bytes()


@pytest.mark.slow
def test_every_pictured_sample_from_the_third_on_has_its_zigzag_over_time(pictured: Pictured) -> None:
    found = uploads(pictured, "time-L06")
    assert list(found) == list(PICTURED[1:])
    assert found[4] == pictured.early
    assert found[16] == (pictured.folder.pictures / "time-L06.png").read_bytes()
    figure = time_figure(Trajectory(pictured.folder), 6)
    titles = [title.format("sample") for title in (*MATRICES, *CURVES)]
    assert set(panels_of(figure)) == {*titles, "Loops left of those at the start"}
    assert found[16] == png_of(figure)
