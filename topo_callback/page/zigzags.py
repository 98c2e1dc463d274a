"""The zigzags of a run as JSON values: shared features and births and deaths, all of them whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import effective_persistence_image, shared_features
from topo_callback.page.wording import part, plain
from topo_callback.records.trajectory import Trajectory
from topo_callback.spacing import evenly_spaced

MOST_COUNTS = 250_000
MOST_STAGES = 256
_DIMENSION = 1


def depth_content(trajectory: Trajectory, *, most_counts: int = MOST_COUNTS) -> list[dict[str, Any] | None]:
    """For every sample its depth zigzag as `zigzag_content` with the layers; None where there is none to draw.

    Where all of them would be too much, evenly spaced samples are kept and the others say so: `{"thinned": True}`.
    """
    present = []
    for sample, step in enumerate(trajectory.steps):
        snapshot = trajectory.snapshot(step)
        if snapshot.depth_zigzag is not None and len(snapshot.zigzag_layers) > 1:
            present.append(sample)
    stages = max((len(trajectory.snapshot(trajectory.steps[i]).zigzag_layers) for i in present), default=1)
    room = max(2, most_counts // (stages * (stages + 1) // 2))
    kept = {present[i] for i in evenly_spaced(len(present), room)} if present else set()
    found: list[dict[str, Any] | None] = []
    for sample, step in enumerate(trajectory.steps):
        snapshot = trajectory.snapshot(step)
        if sample in kept and snapshot.depth_zigzag is not None:
            layers = list(snapshot.zigzag_layers)
            found.append({"layers": layers, **zigzag_content(snapshot.depth_zigzag, len(layers))})
        else:
            found.append({"thinned": True} if sample in present else None)
    return found


def time_content(trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    """For every layer its zigzag over time as `zigzag_content` with the places of its samples in `steps`.

    The window is that of the configuration, at most 256 samples. Recorded neighbours that form no graph give `problem`,
    in words. Layers that are ok in fewer than two samples are left
    out, and all of them where the run was made without zigzags.
    """
    config = part(trajectory.run, "config")
    if config.get("zigzag_engine") == "off":
        return {}
    window = config.get("time_window")
    window = min(window, MOST_STAGES) if isinstance(window, int) and window >= 2 else MOST_STAGES
    place = {step: sample for sample, step in enumerate(trajectory.steps)}
    found: dict[str, dict[str, Any]] = {}
    for layer in trajectory.layers:
        if sum(layer in trajectory.snapshot(step).barcodes for step in trajectory.steps[-window:]) < 2:
            continue
        try:
            barcode, steps = trajectory.time_zigzag(layer, window=window)
        except ValueError as error:
            found[str(layer)] = {"problem": plain(error)}
            continue
        if len(steps) > 1:
            found[str(layer)] = {"samples": [place[step] for step in steps], **zigzag_content(barcode, len(steps))}
    return found


def zigzag_content(barcode: Barcode, stages: int) -> dict[str, Any]:
    """`shared`: S(i, j) for j >= i, row by row; `image`: [birth, death, bars], death = stages for never."""
    shared = shared_features(barcode, stages, _DIMENSION)
    image = effective_persistence_image(barcode, stages, _DIMENSION)
    rows, columns = np.nonzero(image)
    return {
        "stages": stages,
        "shared": shared[np.triu_indices(stages)].tolist(),
        "image": [[int(r), int(c), int(image[r, c])] for r, c in zip(rows, columns, strict=True)],
    }
