"""The pictures of a run as PNG files in its folder, each written whole or not at all. The worker calls these."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from topo_callback.figures.figures import STYLE, TRAJECTORY_PANELS, barcode_figure, heat_map_figure, trajectory_figure
from topo_callback.figures.panels import measure_table
from topo_callback.figures.zigzag_figures import depth_figure, time_zigzag_figure
from topo_callback.homology.descriptors import effective_persistence_image
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

HEAT_MAPS = (*(measure for measure, _ in TRAJECTORY_PANELS), "survival_h1.first")
TIME_SAMPLES = 3  # fewer say no more than two-stage survival


def pictured_layers(snapshot: Snapshot, count: int) -> list[int]:
    """So many layers, evenly spaced among those that are ok."""
    layers = [layer for layer in snapshot.layers if layer in snapshot.barcodes]
    return [layers[i] for i in evenly_spaced(len(layers), count)]


def draw_sample_pictures(folder: TrajectoryFolder, snapshot: Snapshot, layers: Sequence[int]) -> list[str]:
    """Draw the barcodes of some layers and the depth zigzag of one sample.

    Args:
        folder: where the pictures go.
        snapshot: what is drawn.
        layers: which layers; those without a barcode are passed over.

    Returns:
        The file names in `folder.pictures`, `barcode-L07-step-00000032.png` and `depth-step-00000032.png`, for
        `provenance["pictures"]`; a picture that would be empty is not drawn.

    Raises:
        OSError: a picture cannot be written.
    """
    metric = str(snapshot.provenance.get("config", {}).get("metric", ""))
    unit = f"{metric} distance".strip().capitalize()
    names = []
    for layer in layers:
        if layer in snapshot.barcodes:
            name = f"barcode-L{layer:02d}-step-{snapshot.step:08d}.png"
            figure = barcode_figure(snapshot.barcodes[layer], layer=layer, step=snapshot.step, unit=unit)
            _write(folder, name, figure)
            names.append(name)
    stages = len(snapshot.zigzag_layers)
    zigzag = snapshot.depth_zigzag
    if zigzag is not None and stages > 1 and effective_persistence_image(zigzag, stages).any():
        name = f"depth-step-{snapshot.step:08d}.png"
        _write(folder, name, depth_figure(snapshot))
        names.append(name)
    return names


def draw_time_pictures(folder: TrajectoryFolder, trajectory: Trajectory, layers: Sequence[int]) -> list[str]:
    """Draw the time zigzag of some layers over the samples so far, on the window of the configuration.

    Returns:
        The file names, `time-L07.png`, which later calls write again. Layers that are ok in fewer than three samples
        or have no loop in any are passed over, and all of them where the configuration has no zigzags.

    Raises:
        OSError: a picture cannot be written.
    """
    config = trajectory.config
    names = []
    for layer in layers if config.zigzag_engine != "off" else ():
        held = [step for step in trajectory.steps if layer in trajectory.snapshot(step).barcodes]
        if len(held) < TIME_SAMPLES:
            continue
        barcode, steps = trajectory.time_zigzag(layer, window=config.time_window)
        if len(steps) > 1 and effective_persistence_image(barcode, len(steps)).any():
            name = f"time-L{layer:02d}.png"
            _write(folder, name, time_zigzag_figure(trajectory, layer, barcode, steps))
            names.append(name)
    return names


def draw_run_pictures(folder: TrajectoryFolder) -> list[str]:
    """Draw the whole trajectory as far as it is recorded: `trajectory.png`, heat maps of measures, time zigzags.

    Returns:
        The file names in `folder.pictures`; pictures that would be empty are not drawn, and none of a run whose
        configuration has `pictures=0`.

    Raises:
        RecordError: run.json is missing or damaged.
        OSError: a picture cannot be written.
    """
    trajectory = Trajectory(folder)
    if trajectory.config.pictures == 0:
        return []
    drawn = [measure for measure in HEAT_MAPS if not np.isnan(measure_table(trajectory, measure)).all()]
    names = []
    if any(measure in drawn for measure, _ in TRAJECTORY_PANELS):
        _write(folder, "trajectory.png", trajectory_figure(trajectory))
        names.append("trajectory.png")
    for measure in drawn:
        name = f"heat-map-{re.sub(r'[^A-Za-z0-9_]', '-', measure)}.png"
        _write(folder, name, heat_map_figure(trajectory, measure))
        names.append(name)
    if trajectory.steps:
        newest = trajectory.snapshot(trajectory.steps[-1])
        names += draw_time_pictures(folder, trajectory, pictured_layers(newest, trajectory.config.picture_layers))
    return names


def _write(folder: TrajectoryFolder, name: str, figure: Any) -> None:
    folder.pictures.mkdir(exist_ok=True)
    image = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(image, format="png")
    write_whole(folder.pictures / name, image.getvalue())
