"""The native engine with its first half on an accelerator: time, and the share of each stage.

Used by `rips.py`. The points start on the device, as activations do; the bars end in the memory of the processor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from topo_callback.capture.device_rips import bars_of_clouds, device_edges
from topo_callback.geometry import condensed_distances
from topo_callback.homology import rips_persistence, rips_persistence_batch
from topo_callback.homology.machine import ThreadTeam
from topo_callback.homology.native_rips import GREATEST_FINITE_KEY, KeyedDistances, barcode_of_bars


def square_keys(distances: torch.Tensor) -> torch.Tensor:
    """The keys of distances in the condensed order of scipy's `pdist`, int32 [points, points] on their device."""
    points = (1 + math.isqrt(1 + 8 * len(distances))) // 2
    keys = torch.zeros((points, points), dtype=torch.int32, device=distances.device)
    bits, filled = distances.view(torch.int32), 0
    for row in range(points):
        keys[row, row + 1 :] = bits[filled : filled + points - 1 - row]
        filled += points - 1 - row
    return keys + keys.T


def device_lines(large: np.ndarray, layers: np.ndarray, threads: int, rounds: int) -> Iterator[str]:
    """One line for a large cloud and one for a batch of layers, float32 [points, width] and [layers, points, width]."""
    if not torch.cuda.is_available():
        yield "\nAccelerator: none at hand, not measured."
        return
    name = torch.cuda.get_device_name()
    yield f"\nWith the first half on {name}; the points start there. The best of {rounds} rounds.\n"
    yield "| input | distances, s | order and graph, s | lunes and reduction, s | all, s | processor alone, s |"
    yield "|---|---|---|---|---|---|"
    for label, clouds in ((f"{len(large)} points", large[None]), ("{} x {} points".format(*layers.shape[:2]), layers)):
        yield measured_line(label, clouds, "cuda", threads, rounds)


def measured_line(label: str, clouds: np.ndarray, device: str, threads: int, rounds: int) -> str:
    """The stages of one input, void unless the bars are those of the processor alone."""
    points = torch.from_numpy(clouds).to(device)
    best: list[float] | None = None
    alone = np.inf
    for _ in range(rounds + 1):  # the first one warms up and does not count
        start = time.perf_counter()
        condensed = [condensed_distances(cloud) for cloud in points]
        _wait(device)
        distances_end = time.perf_counter()
        keys = torch.stack([square_keys(one) for one in condensed])
        limits = torch.full((len(keys),), GREATEST_FINITE_KEY, device=device)
        edges = device_edges(keys, limits, device_bytes=8 << 30)
        edges_end = time.perf_counter()
        with ThreadTeam(threads) as team:
            bars = bars_of_clouds(edges, team)
        end = time.perf_counter()
        stages = [distances_end - start, edges_end - distances_end, end - edges_end]
        squares = keys.cpu().numpy().view(np.float32)
        start = time.perf_counter()
        if len(squares) == 1:
            expected = [rips_persistence(squares[0], threads=threads)]
        else:
            expected = rips_persistence_batch(squares, threads=threads)
        alone = min(alone, time.perf_counter() - start)
        found = [
            barcode_of_bars(KeyedDistances(square.view(np.uint32), None), len(square), *these)
            for square, these in zip(squares, bars, strict=True)
        ]
        if found != expected:
            return f"| {label} | void: barcodes differ | | | | |"
        if best is None or sum(stages) < sum(best):
            best = stages
    cells = " | ".join(f"{seconds:.3f}" for seconds in (*(best or []), sum(best or []), alone))
    return f"| {label} | {cells} |"


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
