"""Slim series of the runs: the main numbers of every sample and layer, the weights' path, loss and gradient norm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topo_callback import Snapshot, Trajectory
from topo_callback.homology import persistence_similarity
from topo_callback.measures import LayerView, pair_measures

SWITCH = 40  # step; numbers ending in `.switch` compare with the sample of that step
_PAIRS = (
    "survival_h1", "survival_h1_gaussian", "wasserstein_h1", "wasserstein_h0", "mutual_knn", "cka", "distance_change",
)  # fmt: skip
MEASURES = (
    *(f"{name}.{since}" for since in ("previous", "first") for name in _PAIRS),
    *(f"{name}.switch" for name in ("survival_h1", "survival_h1_gaussian", "wasserstein_h1", "mutual_knn")),
    "time_survival_h1", "time_births_h1", "h1_bars", "h1_total_persistence_scaled", "median_distance", "effective_rank",
)  # fmt: skip
_SINCE_SWITCH = ("survival", "survival_gaussian", "wasserstein", "mutual_knn")  # what needs no kept distances


@dataclass(frozen=True)
class Series:
    """One run.

    Attributes:
        name: condition-schedule-seed-every.
        steps, layers: of the samples.
        values: float32 [samples, layers, measures]; NaN where a number is undefined.
        path_length, learning_rate_sum: [samples], since step 0.
        loss, grad_norm, learning_rate: of every optimizer step, from step 1; the loss before its update.
        weights: SHA-256 of the trained weights at the end.
    """

    name: str
    steps: np.ndarray
    layers: np.ndarray
    values: np.ndarray
    path_length: np.ndarray
    learning_rate_sum: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray
    learning_rate: np.ndarray
    weights: str

    def of(self, measure: str) -> np.ndarray:
        """One measure, [samples, layers]; `loss` and `grad_norm` are means over the steps since the sample before."""
        if measure in ("loss", "grad_norm"):
            ends = np.searchsorted(np.arange(len(self.loss) + 1), self.steps)
            sums = np.concatenate([[0.0], np.cumsum(getattr(self, measure))])
            means = np.full((len(ends), 1), np.nan)
            means[1:, 0] = np.diff(sums[ends]) / np.diff(ends)
            return means
        return self.values[:, :, MEASURES.index(measure)].astype(np.float64)


def read_run(folder: Path) -> Series:
    """The series of a run that is done."""
    trajectory = Trajectory.load(folder)
    record = json.loads((folder / "training.json").read_text())
    snapshots = [trajectory.snapshot(step) for step in trajectory.steps]
    values = np.full((len(snapshots), len(trajectory.layers), len(MEASURES)), np.nan, dtype=np.float32)
    for row, snapshot in enumerate(snapshots):
        numbers = {name: by_layer for name, by_layer in snapshot.numbers.items() if name in MEASURES}
        if snapshot.step > SWITCH and SWITCH in trajectory.steps:
            numbers |= since(snapshot, trajectory.snapshot(SWITCH))
        for name, by_layer in numbers.items():
            for column, layer in enumerate(trajectory.layers):
                values[row, column, MEASURES.index(name)] = by_layer.get(layer, np.nan)
    facts = [snapshot.provenance["facts"] for snapshot in snapshots]
    return Series(
        record["run"],
        np.array(trajectory.steps),
        np.array(trajectory.layers),
        values,
        np.array([fact["path_length"] for fact in facts]),
        np.array([fact["learning_rate_sum"] for fact in facts]),
        *(np.array(record[name]) for name in ("loss", "grad_norm", "learning_rate")),
        record["weights"],
    )


def since(now: Snapshot, earlier: Snapshot) -> dict[str, dict[int, float]]:
    """Numbers that compare two samples, under names ending in `.switch`; layer by layer."""
    found: dict[str, dict[int, float]] = {}
    for layer in now.layers:
        if layer in now.barcodes and layer in earlier.barcodes:
            for measure in _SINCE_SWITCH:
                for name, value in pair_measures[measure](_view(now, layer), _view(earlier, layer)).items():
                    if f"{name}.switch" in MEASURES:
                        found.setdefault(f"{name}.switch", {})[layer] = value
    return found


def _view(snapshot: Snapshot, layer: int) -> LayerView:
    row = snapshot.layers.index(layer)
    return LayerView(
        layer=layer,
        barcode=snapshot.barcodes[layer],
        neighbours=snapshot.neighbours[row],
        median=snapshot.numbers["median_distance"][layer],
        metric="euclidean",
        gaussian_neighbours=None if snapshot.gaussian_neighbours is None else snapshot.gaussian_neighbours[row],
    )


def write_series(runs: list[Series], file: Path) -> None:
    """All runs that were sampled at the same steps, as one compressed .npz."""
    np.savez_compressed(
        file,
        runs=np.array([run.name for run in runs]),
        measures=np.array(MEASURES),
        steps=runs[0].steps,
        layers=runs[0].layers,
        values=np.stack([run.values for run in runs]),
        weights=np.array([run.weights for run in runs]),
        **{
            name: np.stack([getattr(run, name) for run in runs]).astype(np.float64 if "_sum" in name else np.float32)
            for name in ("path_length", "learning_rate_sum", "loss", "grad_norm", "learning_rate")
        },
    )


def load_series(file: Path) -> dict[str, Series]:
    """The runs of `write_series`, by name."""
    with np.load(file) as held:
        arrays = {name: held[name] for name in held.files}
    if tuple(arrays["measures"]) != MEASURES:
        raise SystemExit(f"{file} holds other measures; write it again with `fine_tuning.py series`")
    names = ("values", "path_length", "learning_rate_sum", "loss", "grad_norm", "learning_rate", "weights")
    return {
        str(name): Series(str(name), arrays["steps"], arrays["layers"], *(arrays[key][row] for key in names))
        for row, name in enumerate(arrays["runs"])
    }


def write_similarity(folders: Mapping[str, Path], layer: int, file: Path) -> None:
    """Of one run of every condition, the share of the loops of sample j alive from sample i to j along the zigzag."""
    matrices = {}
    for condition, folder in folders.items():
        barcode, steps = Trajectory.load(folder).time_zigzag(layer)
        matrices[condition] = persistence_similarity(barcode, len(steps), dimension=1).astype(np.float32)
    np.savez_compressed(file, **matrices)
