"""Neighbour graphs whose loops are known, and recorded runs with the distances that a run keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform
from trajectories import STEPS, make_sample, write_trajectory

from topo_callback.homology.neighbours import nearest_neighbours

BLOCK = 5
SPAN = 3


def with_loops(blocks: int, loops: set[int]) -> np.ndarray:
    """Neighbours [blocks * 5, 1]: in the blocks named the five points form a loop, in the others a star."""
    first = np.arange(blocks * BLOCK) // BLOCK * BLOCK
    place = np.arange(blocks * BLOCK) - first
    star = np.where(place == 0, first + 1, first)
    ring = first + (place + 1) % BLOCK
    return np.where(np.isin(first // BLOCK, list(loops)), ring, star)[:, None].astype(np.int32)


def passing_loops(stages: int) -> np.ndarray:
    """Stage s has the loops s, s + 1 and s + 2: each lives for three stages in this order, and in no other."""
    return np.stack([with_loops(stages + SPAN - 1, {s, s + 1, s + 2}) for s in range(stages)])


def exchangeable(stages: int, generator: np.random.Generator) -> np.ndarray:
    """Neighbours of one cloud with fresh noise at every stage: no order of them is special."""
    cloud = generator.standard_normal((30, 3))
    noisy = [cloud + 0.25 * generator.standard_normal(cloud.shape) for _ in range(stages)]
    return np.stack([nearest_neighbours(squareform(pdist(each)), 3) for each in noisy])


def write_run(root: Path, *, kept: tuple[int, ...] = (0, 16), **options: Any) -> Path:
    """The output_dir of a synthetic run that keeps the distances of some samples; options of `write_trajectory`."""
    folder = write_trajectory(root / "topology", **options)
    sizes = {name: options[name] for name in ("layers", "points") if name in options}
    invalid = options.get("invalid") or {}
    for step in set(kept) & set(options.get("steps", STEPS)):
        sample = make_sample(step, invalid=invalid.get(step), **sizes)
        folder.step_file(folder.distances, step).write_bytes(sample.encode())
    return root
