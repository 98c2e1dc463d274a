"""Layer scores from a trajectory, without the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.pruning.scores import LayerScores
from topo_callback.records.trajectory import Trajectory


def recorded_scores(path: str | Path, step: int | None = None) -> LayerScores:
    """What a run recorded at one step; the zigzag alone, since a trajectory keeps no activations.

    Args:
        path: a trajectory folder, or the output_dir of a run.
        step: of a sample; the last one unless given.

    Raises:
        RecordError: no trajectory there, or no readable sample.
        ConfigurationError: no sample of that step, or one that has not all layers.
    """
    trajectory = Trajectory.load(path)
    if not trajectory.steps:
        raise RecordError(f"{trajectory.folder} has no readable sample")
    step = trajectory.steps[-1] if step is None else step
    if step not in trajectory.steps:
        raise ConfigurationError(f"no sample at step {step}; sampled steps: {', '.join(map(str, trajectory.steps))}")
    snapshot = trajectory.snapshot(step)
    try:
        depth, tap = int(trajectory.run["model"]["depth"]), str(trajectory.run["reading"]["tap"])
        probe = trajectory.run["probe"]["hash"]
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{trajectory.folder}/run.json does not say how deep the model is and where it was read"
        ) from error
    usable = [layer for layer in snapshot.layers if snapshot.status[layer] == "ok"]
    missing = sorted(set(range(1, depth + 1)) - set(usable))
    if missing:
        status = snapshot.status.get(missing[0], "not read")
        raise ConfigurationError(
            f"the sample at step {step} lacks layer {missing[0]} of 1 to {depth} ({status}), and layers are scored "
            "against all others; record with TopologyConfig(layers='all'), or give a model and a probe instead"
        )
    if snapshot.depth_zigzag is not None and list(snapshot.zigzag_layers) == usable:
        zigzag = snapshot.depth_zigzag
    else:
        rows = [snapshot.layers.index(layer) for layer in usable]
        zigzag = zigzag_persistence(np.stack([snapshot.neighbours[row] for row in rows]))
    facts = {
        "run": trajectory.folder.name,
        "step": step,
        "probe": probe,
        "points": int(snapshot.neighbours.shape[1]),
        "neighbours": int(snapshot.neighbours.shape[2]),
        "tap": tap,
        "final_norm": False,
    }
    return LayerScores(depth, zigzag, tuple(layer or None for layer in usable), facts=facts)
