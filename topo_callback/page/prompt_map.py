"""The map of prompts: every layer's cloud in two dimensions, on the same axes at all samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.linalg import orthogonal_procrustes

from topo_callback.records.trajectory import Trajectory
from topo_callback.spacing import evenly_spaced

NEIGHBOURS = 2  # of every prompt, drawn as lines
_UNIT = 1000  # coordinates are whole numbers: thousandths of the median distance
_MOST_NUMBERS = 300_000  # in the page, of all its runs
_ROUNDS = 5


def map_content(trajectory: Trajectory, *, share: int = 1) -> dict[str, Any] | None:
    """Positions, neighbours and what the map shows of the distances, for every layer; None without coordinates.

    The clouds of a layer are turned onto their common mean (generalised Procrustes, without scaling); the axes are the
    two principal ones of all of them together. So what moves on the map moved against the other prompts: a turn or a
    shift of the whole cloud is not seen.

    Args:
        trajectory: the run, with the samples that are in the page.
        share: of how many runs in the page it is one.
    """
    held = [(place, step) for place, step in enumerate(trajectory.steps) if _has_coordinates(trajectory, step)]
    if not held:
        return None
    layers = trajectory.layers
    _, count, near = trajectory.snapshot(held[0][1]).neighbours.shape
    near = min(NEIGHBOURS, near)
    each = count * (2 + near) * len(layers)
    chosen = [held[i] for i in evenly_spaced(len(held), max(2, _MOST_NUMBERS // share // each))]
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        clouds, shares, graphs, places = [], [], [], []
        for place, step in chosen:
            snapshot = trajectory.snapshot(step)
            if snapshot.coordinates is None or snapshot.status.get(layer) != "ok":
                continue
            row = snapshot.layers.index(layer)
            clouds.append(snapshot.coordinates[row].astype(np.float64))
            shares.append(float(snapshot.provenance["coordinates"][str(layer)]))
            graphs.append(snapshot.neighbours[row, :, :near])
            places.append(place)
        if clouds:
            flat, kept = on_common_axes(np.stack(clouds))
            found[str(layer)] = {
                "samples": places,
                "xy": np.rint(flat * _UNIT).astype(int).reshape(len(places), -1).tolist(),
                "neighbours": np.stack(graphs).reshape(len(places), -1).tolist(),
                "shown": [round(float(one * two), 3) for one, two in zip(kept, shares, strict=True)],
            }
    return {"unit": _UNIT, "near": near, "layers": found}


def on_common_axes(
    clouds: Float64[np.ndarray, "samples points dimensions"],
) -> tuple[Float64[np.ndarray, "samples points 2"], Float64[np.ndarray, " samples"]]:
    """Clouds of the same points in two dimensions, and the share of each one's squared distances that is left there.

    Deterministic. The clouds are turned, never scaled.
    """
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    mean = centred[0]
    for _ in range(_ROUNDS):
        turned = np.stack([cloud @ orthogonal_procrustes(cloud, mean)[0] for cloud in centred])
        mean = turned.mean(axis=0)
    every = turned.reshape(-1, turned.shape[2])
    _, vectors = np.linalg.eigh(every.T @ every)
    axes = vectors[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    flat = np.zeros((*turned.shape[:2], 2))
    flat[:, :, : axes.shape[1]] = turned @ axes
    whole = (turned**2).sum(axis=(1, 2))
    return flat, (flat**2).sum(axis=(1, 2)) / np.where(whole > 0, whole, 1.0)


def _has_coordinates(trajectory: Trajectory, step: int) -> bool:
    return bool(trajectory.overview(step).provenance.get("coordinates"))
