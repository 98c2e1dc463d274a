"""Inputs of the benchmarks of zigzags: clouds that move, MiniLM's layers, and the clock."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from topo_callback.homology import cloud_neighbours

ACTIVATIONS = Path(__file__).parents[2] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"


def drifting_neighbours(points, k, stages, latent=8, drift=0.02, seed=0):
    """Neighbours in clouds that move by an Ornstein-Uhlenbeck walk: each stage keeps sqrt(1 - drift^2) of the last."""
    generator = np.random.default_rng(seed)
    cloud = generator.standard_normal((points, latent))
    found = []
    for _ in range(stages):
        found.append(cloud_neighbours(cloud, k))
        cloud = np.sqrt(1 - drift**2) * cloud + drift * generator.standard_normal(cloud.shape)
    return np.stack(found)


def drifting_clouds(points, width, stages, latent=8, drift=0.02, seed=0):
    """The same walk, turned into a space of the given width, float32."""
    generator = np.random.default_rng(seed)
    frame = np.linalg.qr(generator.standard_normal((width, latent)))[0].T
    cloud = generator.standard_normal((points, latent))
    clouds = []
    for _ in range(stages):
        clouds.append((cloud @ frame).astype(np.float32))
        cloud = np.sqrt(1 - drift**2) * cloud + drift * generator.standard_normal(cloud.shape)
    return clouds


def activation_neighbours(k, stages):
    """MiniLM's seven layers on 1,000 prompts, with stages between them by linear interpolation."""
    layers = np.load(ACTIVATIONS)["clouds"].astype(np.float64)
    places = np.linspace(0, len(layers) - 1, stages)
    found = []
    for place in places:
        below = min(int(place), len(layers) - 2)
        found.append(cloud_neighbours(layers[below] + (place - below) * (layers[below + 1] - layers[below]), k))
    return np.stack(found)


def best_time(function, repeats=3):
    """The shortest of some runs, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result
