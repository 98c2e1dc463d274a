"""The example of docs/zigzags.md: the controls of a run whose layers are real and whose drift is planted.

    python benchmarks/controls.py [--prompts 256]

Layers are the seven of all-MiniLM-L6-v2; over eight samples every layer gets fresh noise of 5 % of its deviation, and
layers above the embedding drift besides, the last one most. So the embedding's samples have no order and the last
layers' have one. Writes docs/controls.png and prints the tables. Everything is seeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.spatial.distance import pdist

from topo_callback import TopologyConfig, Trajectory
from topo_callback.controls import controls_figure, write_tables, zigzag_controls
from topo_callback.figures.comparison_figures import encode_figure
from topo_callback.measuring import measure_sample
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record, write_whole
from topo_callback.records.sample import Sample

HERE = Path(__file__).parent
CLOUDS = HERE.parents[1] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"
STEPS = (0, 1, 2, 4, 8, 16, 24, 32)
LAYERS = tuple(range(7))


def write_run(root, prompts):
    """A recorded run that keeps the distances of its newest sample."""
    clouds = np.load(CLOUDS)["clouds"].astype(np.float64)
    _, first = np.unique(clouds[0], axis=0, return_index=True)
    clouds = clouds[:, np.sort(first)[:prompts]]
    config = TopologyConfig(layers=LAYERS, measures=("depth_persistence",))
    folder = TrajectoryFolder.new(root)
    probe = {"hash": "0" * 64, "points": prompts}
    folder.write_run(
        {"tool": "topo_callback", "config": config.to_dict(), "probe": probe, "layers": list(LAYERS), "model": {}}
    )
    generator = np.random.default_rng(0)
    unit = 0.05 * clouds.std(axis=(1, 2), keepdims=True)
    drift = np.arange(len(LAYERS))[:, None, None] / LAYERS[-1] * generator.standard_normal(clouds.shape)
    for step in STEPS:
        moved = clouds + unit * (step**0.5 * drift + generator.standard_normal(clouds.shape))
        sample = Sample(step, LAYERS, np.stack([pdist(cloud).astype(np.float32) for cloud in moved]), None)
        snapshot = measure_sample(sample, config, previous=None, first=None, kept={}, history=[])
        write_record(folder.step_file(folder.samples, step), *snapshot.to_record())
    folder.step_file(folder.distances, STEPS[-1]).write_bytes(sample.encode())
    return folder.path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        controls = zigzag_controls(Trajectory.load(write_run(Path(scratch), options.prompts)))
    write_tables(controls, sys.stdout)
    write_whole(HERE.parent / "docs" / "controls.png", encode_figure(controls_figure(controls), "png"))


if __name__ == "__main__":
    main()
