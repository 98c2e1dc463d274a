"""Pictures as files in the trajectory folder, written whole or not at all. The worker calls these."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from topo_callback.folder import TrajectoryFolder
from topo_callback.record import write_whole
from topo_callback.report.figures import (
    STYLE,
    barcode_figure,
    heat_map_figure,
    measure_table,
    trajectory_figure,
)
from topo_callback.sinks.headline import layer_label
from topo_callback.snapshot import Snapshot
from topo_callback.trajectory import Trajectory

HEAT_MAPS = ("wasserstein_h1.previous", "wasserstein_h1.first", "mutual_knn.first", "depth_similarity_h1")


def draw_sample_pictures(folder: TrajectoryFolder, snapshot: Snapshot, layers: Sequence[int]) -> list[str]:
    """Draw the barcodes of some layers at one step.

    Args:
        folder: where the pictures go.
        snapshot: what is drawn.
        layers: which layers; those without a barcode are passed over.

    Returns:
        The file names in `folder.pictures`, `barcode-L07-step-00000032.png`, for `provenance["pictures"]`.

    Raises:
        OSError: a picture cannot be written.
    """
    metric = str(snapshot.provenance.get("config", {}).get("metric", ""))
    unit = f"{metric} distance".strip().capitalize()
    names = []
    for layer in layers:
        if layer in snapshot.barcodes:
            name = f"barcode-{layer_label(layer)}-step-{snapshot.step:08d}.png"
            figure = barcode_figure(snapshot.barcodes[layer], layer=layer, step=snapshot.step, unit=unit)
            _write(folder, name, figure)
            names.append(name)
    return names


def draw_run_pictures(folder: TrajectoryFolder) -> list[str]:
    """Draw the whole trajectory as far as it is recorded: `trajectory.png` and one heat map for each measure.

    Returns:
        The file names in `folder.pictures`; pictures that would be empty are not drawn.

    Raises:
        RecordError: run.json is missing or damaged.
        OSError: a picture cannot be written.
    """
    trajectory = Trajectory(folder)
    drawn = [measure for measure in HEAT_MAPS if not np.isnan(measure_table(trajectory, measure)).all()]
    names = []
    if drawn:
        _write(folder, "trajectory.png", trajectory_figure(trajectory))
        names.append("trajectory.png")
    for measure in drawn:
        name = f"heat-map-{re.sub(r'[^A-Za-z0-9_]', '-', measure)}.png"
        _write(folder, name, heat_map_figure(trajectory, measure))
        names.append(name)
    return names


def _write(folder: TrajectoryFolder, name: str, figure: Any) -> None:
    folder.pictures.mkdir(exist_ok=True)
    image = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(image, format="png")
    write_whole(folder.pictures / name, image.getvalue())
