"""The runs of three objectives as series of medians over layers, and as rows to be regressed on one another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from objectives_real_statistics import Panel

from topo_callback import Trajectory
from topo_callback.dynamics import Series

OBJECTIVES, SCHEDULES, SEEDS = ("helpful", "harmless", "mixed"), ("constant", "cosine"), 5


@dataclass(frozen=True)
class Watched:
    """One run; numbers are medians over layers, for the samples after the first."""

    objective: str
    schedule: str
    seed: int
    steps: tuple[int, ...]
    series: Series
    numbers: Mapping[str, np.ndarray]
    late_loss: float

    @property
    def displacement(self) -> np.ndarray:
        return self.numbers["wasserstein_h1.previous"]


def read(folder: Path) -> Watched | None:
    """A finished run, or None."""
    record_file = folder / "training.json"
    if not record_file.is_file():
        return None
    trajectory = Trajectory.load(folder)
    if trajectory.state != "finished":
        return None
    record = json.loads(record_file.read_text())
    objective, schedule, seed, _ = folder.name.rsplit("-", 3)
    snapshots = [trajectory.snapshot(step) for step in trajectory.steps]
    depth = {
        name: np.array([np.median(list(snapshot.numbers[name].values())) for snapshot in snapshots])
        for name in ("median_distance", "effective_rank")
    }
    pairs = {}
    for name in ("wasserstein_h1", "mutual_knn", "survival_h1"):
        for since in ("previous", "first"):
            values = [np.median(list(snapshot.numbers[f"{name}.{since}"].values())) for snapshot in snapshots[1:]]
            pairs[f"{name}.{since}"] = np.array(values) if name == "wasserstein_h1" else 1 - np.array(values)
    series = _with_model_name(Series.of(trajectory))
    steps = np.array(trajectory.steps)
    loss, grad_norm = (_means(np.array(record[name]), steps) for name in ("loss", "grad_norm"))
    numbers = {
        **pairs,
        "scale.previous": np.abs(np.diff(np.log(depth["median_distance"]))),
        "scale.first": np.abs(np.log(depth["median_distance"] / depth["median_distance"][0]))[1:],
        "rank.previous": np.abs(np.diff(np.log(depth["effective_rank"]))),
        "rank.first": np.abs(np.log(depth["effective_rank"] / depth["effective_rank"][0]))[1:],
        "loss": loss,
        "grad_norm": grad_norm,
        "path.previous": series.path,
        "path.first": np.cumsum(series.path),
        "loss.next": np.append(loss[1:], np.nan),
        "grad_norm.next": np.append(grad_norm[1:], np.nan),
        "mutual_knn.next": np.append(pairs["mutual_knn.previous"][1:], np.nan),
    }
    late = float(np.mean(record["loss"][-20:]))
    return Watched(objective, schedule, int(seed.removeprefix("seed")), trajectory.steps, series, numbers, late)


def _with_model_name(series: Series) -> Series:
    """The base model by the name of its folder: the path to that may have been written otherwise."""
    model = series.identity["model"]
    return replace(series, identity={**series.identity, "model": {**model, "name": Path(model["name"]).name}})


def _means(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: np.ndarray = np.diff(sums[steps]) / np.diff(steps)
    return means


def load(folder: Path) -> tuple[list[Watched], list[Watched]]:
    """The runs of the three objectives, five seeds each, and all quiet ones (helpful, constant)."""
    found = []
    for objective in OBJECTIVES:
        for schedule in SCHEDULES:
            for path in sorted(folder.glob(f"{objective}-{schedule}-seed*-every4")):
                run = read(path)
                if run is not None:
                    found.append(run)
    quiet = [run for run in found if (run.objective, run.schedule) == ("helpful", "constant")]
    return [run for run in found if run.seed < SEEDS], quiet


def groups(runs: Sequence[Watched]) -> dict[tuple[str, str], list[Watched]]:
    held = {
        (o, s): [run for run in runs if (run.objective, run.schedule) == (o, s)] for o in OBJECTIVES for s in SCHEDULES
    }
    return {key: members for key, members in held.items() if members}


def panel_of(runs: Sequence[Watched]) -> Panel:
    """Rows are intervals; positive numbers enter as logarithms, losses and gradient norms as they are."""
    values: dict[str, list[np.ndarray]] = {}
    for run in runs:
        for name, row in run.numbers.items():
            plain = name.startswith(("loss", "survival")) or name.endswith("first")
            with np.errstate(divide="ignore"):
                logarithm = np.where(row > 0, np.log(np.where(row > 0, row, 1.0)), np.nan)
            values.setdefault(name, []).append(row if plain else logarithm)
    intervals = len(runs[0].steps) - 1
    kinds = {key: number for number, key in enumerate(groups(runs))}
    cells = [kinds[run.objective, run.schedule] * 1000 + np.arange(intervals) for run in runs]
    seeds = [np.full(intervals, run.seed) for run in runs]
    return Panel(np.concatenate(seeds), np.concatenate(cells), {n: np.concatenate(v) for n, v in values.items()})
