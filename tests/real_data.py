"""The real data that come with the tests; tests/data/README.md says where they are from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
MINILM_LAYERS = (2, 4, 6)
MINILM_POINTS = 140


def minilm_cloud(layer: int, points: int = MINILM_POINTS) -> np.ndarray:
    """The first points [points, 384] of layer 2, 4 or 6 of a real encoder, float64."""
    assert points <= MINILM_POINTS
    with np.load(DATA / "minilm_clouds.npz") as file:
        cloud: np.ndarray = file["clouds"][MINILM_LAYERS.index(layer), :points].astype(np.float64)
    return cloud


def minilm_neighbours() -> np.ndarray:
    """int32 [7, 996, 5]: the nearest neighbours of many more prompts in all layers of that encoder."""
    with np.load(DATA / "minilm_neighbours.npz") as file:
        neighbours: np.ndarray = file["neighbours"].astype(np.int32)
    return neighbours


def real_prompts(count: int = 64) -> list[str]:
    """Instructions that people wrote, all different."""
    prompts: list[str] = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))
    assert count <= len(prompts)
    return prompts[:count]


def copy_of_the_old_run(folder: Path) -> Path:
    """A run that version 0.1.0 recorded in schema 1, copied to where it may be changed."""
    return Path(shutil.copytree(DATA / "schema_1_run", folder / "schema_1_run"))
