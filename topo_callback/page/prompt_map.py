"""The map of prompts: every layer's cloud in two dimensions, on the same axes at all samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.errors import RecordError
from topo_callback.page.cycles import longest_cycles
from topo_callback.page.wording import number
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

NEIGHBOURS = 5  # of every prompt at most: those of the chosen one are drawn and named, of all others the first two
_UNIT = 1000  # coordinates are whole numbers: thousandths of the median distance
_MOST_NUMBERS = 450_000  # in the page, of all its runs: at most 2 MB
_ROUNDS = 5


def map_content(trajectory: Trajectory, *, share: int = 1) -> dict[str, Any] | None:
    """Positions, neighbours and what the map shows of the distances, for every layer; None without coordinates.

    The clouds of a layer are turned onto their common mean (generalised Procrustes, without scaling); the axes are the
    two principal ones of all of them together. So what moves on the map moved against the other prompts: a turn or a
    shift of the whole cloud is not seen. Loops are those of samples on the map whose distances are kept.

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
    loops = longest_loops(trajectory, {step: place for place, step in chosen})
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
                "loops": loops.get(layer, {}),
                "shown": [round(float(one * two), 3) for one, two in zip(kept, shares, strict=True)],
            }
    return {"unit": _UNIT, "near": near, "layers": found}


def longest_loops(trajectory: Trajectory, places: Mapping[int, int]) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """The longest-lived loops of every layer's cloud, where distances are kept.

    Args:
        trajectory: the run.
        places: step -> what the page calls it, of the samples that are wanted.

    Returns:
        layer -> sample -> loops, the longest first: ends of the bar in the unit of the distances, and the prompts of
        each closed walk of its cycle.
    """
    folder = TrajectoryFolder(trajectory.folder)
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for step in places.keys() & set(folder.steps(folder.distances)):
        try:
            sample = Sample.read(folder.step_file(folder.distances, step))
        except (RecordError, OSError):
            continue  # that sample has no loops on the map
        snapshot = trajectory.snapshot(step)
        if num_obs_y(sample.distances[0]) != snapshot.neighbours.shape[1]:
            continue
        for row, layer in enumerate(sample.layers):
            if snapshot.status.get(layer) == "ok":
                found.setdefault(layer, {})[str(places[step])] = [
                    {
                        "birth": number(cycle.birth),
                        "death": number(cycle.death),
                        "walks": [walk.tolist() for walk in cycle.loops],
                    }
                    for cycle in longest_cycles(squareform(sample.distances[row]))
                ]
    return found


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
