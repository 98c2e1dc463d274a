"""Run folders for tests of the page: measured for real, with the facts of a training run beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from trajectories import LAYERS, STEPS, make_sample, make_snapshots

from topo_callback.config import TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record, write_whole

SHORT = TopologyConfig(measures=("scale", "wasserstein", "mutual_knn", "depth_persistence", "survival"))


def facts_at(step: int) -> dict[str, float]:
    """The loss is not logged before the first step."""
    logged = {"loss": 3.0 / (1 + step), "grad_norm": 1.0 + 0.1 * step, "learning_rate": 1e-4 / (1 + step)}
    return {"path_length": float(step) ** 0.7, **(logged if step else {})}


def write_run(
    root: Path,
    steps: Sequence[int] = STEPS,
    *,
    config: TopologyConfig = SHORT,
    invalid: Mapping[int, Mapping[int, str]] | None = None,
    facts: bool = True,
    run: Mapping[str, Any] | None = None,
) -> TrajectoryFolder:
    """A finished run under `root`.

    Args:
        root: an output_dir's `topology`.
        steps: the sampled steps.
        config: settings of the measurement.
        invalid: step -> layer -> reason.
        facts: whether samples know loss, gradient norm, learning rate and path length.
        run: entries of run.json that differ.
    """
    folder = TrajectoryFolder.new(root)
    folder.write_run(
        {
            "tool": "topo_callback",
            "created": "2026-01-02T03:04:05+0000",
            "config": config.to_dict(),
            "probe": {"hash": "0123456789abcdef" * 4, "points": 40},
            "layers": list(LAYERS),
            "model": {"name": "example/synthetic", "class": "Synthetic"},
            "training": {"max_steps": steps[-1], "seed": 0},
            "versions": {"topo_callback": "0"},
            **(run or {}),
        }
    )
    folder.note("started", step=steps[0])
    for snapshot in make_snapshots(steps, config=config, invalid=invalid):
        known = {**snapshot.provenance["facts"], **(facts_at(snapshot.step) if facts else {})}
        provenance = {**snapshot.provenance, "facts": known, "versions": {"gudhi": "3.0"}}
        record = replace(snapshot, provenance=provenance).to_record()
        write_record(folder.step_file(folder.samples, snapshot.step), *record, compress=True)
    write_whole(folder.step_file(folder.distances, steps[-1]), make_sample(steps[-1]).encode())
    folder.note("finished", step=steps[-1])
    return folder


def bars_from(values: np.ndarray, content: Mapping[str, Any], layers: int) -> dict[tuple[int, int, int], np.ndarray]:
    """(Sample, place of the layer, dimension) -> bars, read as the page's script reads them."""
    found, start = {}, 0
    dimensions = content["dimensions"]
    for index, count in enumerate(content["counts"]):
        if count < 0:
            continue
        rest, d = divmod(index, len(dimensions))
        sample, layer = divmod(rest, layers)
        births = np.zeros(count, np.float32)
        if dimensions[d] not in content["born_at_0"]:
            births, start = values[start : start + count], start + count
        deaths, start = values[start : start + count], start + count
        found[content["samples"][sample], layer, dimensions[d]] = np.stack([births, deaths], axis=1)
    assert start == len(values)
    return found
