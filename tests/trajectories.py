"""Small trajectories of synthetic clouds, measured for real and written as a run writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import pdist, squareform

from topo_callback.config import TopologyConfig
from topo_callback.measuring import measure_sample
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.neighbour_history import NeighbourGraphs
from topo_callback.records.record import write_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

STEPS = (0, 1, 2, 4, 8, 16)
LAYERS = (1, 2, 4, 6)


def synthetic_cloud(layer: int, step: int, points: int = 40, width: int = 12) -> Float[np.ndarray, "points width"]:
    """Topics on a noisy circle; depth spreads them, and a few early steps move the deep layers most."""
    fixed = np.random.default_rng(7)
    angle = fixed.uniform(0, 2 * np.pi, points)
    base = fixed.normal(size=(points, width)) * 0.35
    turn = fixed.normal(size=(points, width))
    base[:, 0] += (1 + 0.2 * layer) * np.cos(angle)
    base[:, 1] += (1 + 0.2 * layer) * np.sin(angle)
    moved = 0.12 * layer * (1 - np.exp(-step / 6))
    return base + 0.1 * layer * np.roll(base, layer, axis=1) + moved * turn


def make_sample(
    step: int,
    *,
    layers: Sequence[int] = LAYERS,
    points: int = 40,
    neighbours: int = 5,
    invalid: Mapping[int, str] | None = None,
) -> Sample:
    """The sample of the synthetic clouds at one step; invalid layers have distances 0 and neighbours -1."""
    invalid = dict(invalid or {})
    distances, nearest = [], []
    for layer in layers:
        condensed = pdist(synthetic_cloud(layer, step, points)).astype(np.float32)
        square = squareform(condensed)
        np.fill_diagonal(square, np.inf)
        order = np.argsort(square, axis=1, kind="stable")[:, :neighbours].astype(np.int32)
        distances.append(np.zeros_like(condensed) if layer in invalid else condensed)
        nearest.append(np.full_like(order, -1) if layer in invalid else order)
    return Sample(
        step=step,
        layers=tuple(layers),
        distances=np.stack(distances),
        neighbours=np.stack(nearest),
        invalid=invalid,
        facts={"overhead": 0.01},
    )


def make_snapshots(
    steps: Sequence[int] = STEPS,
    *,
    layers: Sequence[int] = LAYERS,
    points: int = 40,
    config: TopologyConfig | None = None,
    invalid: Mapping[int, Mapping[int, str]] | None = None,
) -> list[Snapshot]:
    """The measured snapshots of a run, each compared with the one before it and with the first.

    Args:
        steps: the sampled steps, ascending.
        layers: the layers read.
        points: prompts of the probe.
        config: settings of the measurement.
        invalid: step -> layer -> reason, for layers that could not be read.
    """
    reasons = tuple((step, tuple((invalid or {}).get(step, {}).items())) for step in steps)
    return list(_measured(reasons, tuple(layers), points, config or TopologyConfig()))


@cache
def _measured(
    reasons: tuple[tuple[int, tuple[tuple[int, str], ...]], ...],
    layers: tuple[int, ...],
    points: int,
    config: TopologyConfig,
) -> tuple[Snapshot, ...]:
    """The snapshots of a run; those of a run that is its beginning are kept too."""
    if not reasons:
        return ()
    before = _measured(reasons[:-1], layers, points, config)

    def sample(step: int, invalid: tuple[tuple[int, str], ...]) -> Sample:
        return make_sample(step, layers=layers, points=points, neighbours=config.neighbours, invalid=dict(invalid))

    kept = [sample(*each) for each in (reasons[0], reasons[-2])] if before else []
    previous, first = (before[-1], before[0]) if before else (None, None)
    history = [NeighbourGraphs.of(snapshot) for snapshot in before]
    newest = measure_sample(
        sample(*reasons[-1]), config, previous=previous, first=first, kept={each.step: each for each in kept},
        history=history,
    )  # fmt: skip
    return (*before, newest)


def write_trajectory(
    root: Path,
    steps: Sequence[int] = STEPS,
    *,
    layers: Sequence[int] = LAYERS,
    points: int = 40,
    config: TopologyConfig | None = None,
    invalid: Mapping[int, Mapping[int, str]] | None = None,
) -> TrajectoryFolder:
    """A finished run under `root` (an output_dir's `topology`); the arguments are those of `make_snapshots`."""
    config = config or TopologyConfig()
    folder = TrajectoryFolder.new(root)
    folder.write_run(
        {
            "tool": "topo_callback",
            "config": config.to_dict(),
            "probe": {"hash": "0" * 64, "points": points},
            "layers": list(layers),
            "model": {"name": "example/synthetic", "class": "None"},
            "versions": {"topo_callback": "0"},
        }
    )
    folder.note("started", step=steps[0])
    for snapshot in make_snapshots(steps, layers=layers, points=points, config=config, invalid=invalid):
        write_record(folder.step_file(folder.samples, snapshot.step), *snapshot.to_record(), compress=True)
    folder.note("finished", step=steps[-1])
    return folder
