"""Simulated runs: autocorrelated curves with effects of seeds and, where wanted, of objectives; arrays or folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.signal import lfilter

from topo_callback import Barcode, Snapshot, TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record

STEPS = (0, 1, 2, 4, 8, *range(16, 257, 16))
MEASURES = ("wasserstein_h1.first", "betti_h1", "mutual_knn.first", "h1_total_persistence_scaled")
LAYERS = (2, 4, 6)


@dataclass(frozen=True)
class Design:
    """A simulated experiment.

    Attributes:
        objectives: how many.
        seeds: runs of each objective.
        shared: whether objectives share their seeds, and with them a part of their noise.
        effect: height of the planted difference in standard deviations between runs.
        onset: index of the point at which it begins; it grows over three points.
        correlation: of the noise from one point to the next.
        differing: how many of the measures carry the difference, the first ones.
        heights: the part of the effect that each objective has.
        sizes: runs of each objective where they are unequal; `seeds` and `objectives` do not count then.
        spreads: of each objective, times that of the others; the effect stays in standard deviations of spread 1.
        shocks: "gaussian", "t3" or "skewed" (exponential), of variance 1.
    """

    objectives: int = 2
    seeds: int = 5
    shared: bool = False
    effect: float = 0.0
    onset: int = 8
    correlation: float = 0.9
    differing: int = len(MEASURES)
    heights: tuple[float, ...] = (0.0, 1.0, 2.0)
    sizes: tuple[int, ...] = ()
    spreads: tuple[float, ...] = (1.0, 1.0, 1.0)
    shocks: str = "gaussian"

    @property
    def labels(self) -> list[int]:
        if self.sizes:
            return [objective for objective, size in enumerate(self.sizes) for _ in range(size)]
        return [objective for objective in range(self.objectives) for _ in range(self.seeds)]

    @property
    def seed_numbers(self) -> list[int]:
        if self.shared:
            return [*range(self.seeds)] * self.objectives
        return list(range(len(self.labels)))


def simulate(
    design: Design, generator: np.random.Generator, points: int = len(STEPS)
) -> dict[str, dict[int | None, Float64[np.ndarray, "runs points"]]]:
    """measure -> layer -> curves of all runs; layer None is the median over layers."""
    curves: dict[str, dict[int | None, Any]] = {}
    rise = 3.0 * (1.0 - np.exp(-np.arange(points) / 8.0))
    planted = np.clip((np.arange(points) - design.onset + 1) / 3.0, 0.0, 1.0) * design.effect
    heights = np.array(design.heights)[design.labels]
    spreads = np.array(design.spreads)[design.labels][:, None]
    for row, measure in enumerate(MEASURES):
        of_seed = _noise(generator, max(design.seed_numbers) + 1, points, design)
        own = _noise(generator, len(heights), points, design)
        noise = spreads * (of_seed[design.seed_numbers] + own) / np.sqrt(2.0)
        effect = planted * (row < design.differing) * heights[:, None]
        by_layer: dict[int | None, Any] = {
            layer: (1.0 + 0.1 * layer) * rise
            + noise
            + effect
            + 0.3 * spreads * generator.normal(size=(len(heights), points))
            for layer in LAYERS
        }
        by_layer[None] = np.median([by_layer[layer] for layer in LAYERS], axis=0)
        curves[measure] = by_layer
    return curves


def _noise(
    generator: np.random.Generator, rows: int, points: int, design: Design
) -> Float64[np.ndarray, "rows points"]:
    """AR(1) noise of variance 1."""
    correlation = design.correlation
    shocks = _shocks(generator, (rows, points), design.shocks) * np.sqrt(1.0 - correlation**2)
    shocks[:, 0] = _shocks(generator, (rows,), design.shocks)
    noise: np.ndarray = lfilter([1.0], [1.0, -correlation], shocks, axis=1)
    return noise


def _shocks(generator: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if kind == "t3":
        return generator.standard_t(3, size=shape) / np.sqrt(3.0)
    return generator.exponential(size=shape) - 1.0 if kind == "skewed" else generator.normal(size=shape)


def write_run(
    folder: Path,
    numbers: Mapping[str, Mapping[int | None, Sequence[float]]],
    *,
    steps: Sequence[int] = STEPS,
    seed: int | None = 0,
    finished: bool = True,
    facts: Mapping[str, Sequence[float]] | None = None,
    max_steps: int | None = None,
    layers: Sequence[int] = LAYERS,
    **changes: Any,
) -> Path:
    """A run folder with given numbers, as the callback writes it.

    Args:
        folder: where it goes; it must not exist.
        numbers: measure -> layer (None: whole depth) -> one number for each step; NaN is left out.
        steps: the sampled steps.
        seed: of training; None leaves it out.
        finished: whether the run came to its end.
        facts: fact -> one number for each step.
        max_steps: of training; the last step when None.
        layers: layers that were read.
        changes: `neighbours`, `metric`, `tap`, `probe`, `points` or `model` that differ.
    """
    written = TrajectoryFolder(folder)
    for part in (written.samples, written.distances, written.spool, written.pictures):
        part.mkdir(parents=True)
    config = TopologyConfig(**{name: changes[name] for name in ("neighbours", "metric", "tap") if name in changes})
    training = {"max_steps": max_steps or steps[-1], **({} if seed is None else {"seed": seed})}
    written.write_run(
        {
            "tool": "topo_callback",
            "config": config.to_dict(),
            "probe": {"hash": changes.get("probe", "a" * 64), "points": changes.get("points", 30)},
            "layers": list(layers),
            "model": {"name": changes.get("model", "example/simulated")},
            "training": training,
        }
    )
    bars = Barcode(np.array([0, 1]), np.array([0.0, 1.0]), np.array([np.inf, 2.0]))
    written.note("started", step=steps[0])
    for column, step in enumerate(steps):
        found = {
            measure: {layer: float(row[column]) for layer, row in by_layer.items() if not np.isnan(row[column])}
            for measure, by_layer in numbers.items()
        }
        snapshot = Snapshot(
            step=step,
            layers=tuple(layers),
            status=dict.fromkeys(layers, "ok"),
            numbers=found,
            barcodes=dict.fromkeys(layers, bars),
            neighbours=np.zeros((len(layers), 30, 5), dtype=np.int32),
            previous=steps[column - 1] if column else None,
            first=steps[0] if column else None,
            provenance={"facts": {name: float(row[column]) for name, row in (facts or {}).items()}},
        )
        write_record(written.step_file(written.samples, step), *snapshot.to_record())
    if finished:
        written.note("finished", step=steps[-1])
    return folder


def write_runs(root: Path, design: Design, generator: np.random.Generator) -> dict[str, list[Path]]:
    """The folders of a simulated experiment, by objective; numbers of single layers only, as a run has them."""
    curves = simulate(design, generator)
    names = ("helpful", "harmless", "mixed")[: design.objectives]
    groups: dict[str, list[Path]] = {name: [] for name in names}
    for run, (label, seed) in enumerate(zip(design.labels, design.seed_numbers, strict=True)):
        numbers: dict[str, dict[int | None, Sequence[float]]] = {
            measure: {layer: values[run].tolist() for layer, values in by_layer.items() if layer is not None}
            for measure, by_layer in curves.items()
        }
        folder = root / f"{names[label]}-{seed}"
        groups[names[label]].append(write_run(folder, numbers, seed=seed))
    return groups
