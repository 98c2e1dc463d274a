"""What each measure costs the worker, by layer.

    OMP_NUM_THREADS=1 python benchmarks/measures.py [--points 256 1000] [--repeats 5] [--layers 3 4]

Two neighbouring layers of a real encoder stand for a layer at two steps: real barcodes, neighbours and distances.
Every measure is timed alone, its views made anew each time, so that nothing is shared between measures;
after one call that is not counted. Given are processor seconds (median), which other work on the machine leaves alone,
and the clock. Depth and time measures see eight layers, the latter in place of eight samples; zigzags and barcodes
themselves are not in the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from machine import describe_machine
from scipy.spatial.distance import pdist, squareform

from topo_callback.homology import nearest_neighbours, rips_persistence, zigzag_persistence
from topo_callback.measures import (
    DepthView,
    LayerView,
    TimeView,
    depth_measures,
    layer_measures,
    pair_measures,
    time_measures,
)
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.zigzags import gaussian_draws

CLOUDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"
NEIGHBOURS = 5
MODEL_LAYERS = 32


def make_view(cloud: np.ndarray, layer: int) -> LayerView:
    distances = pdist(cloud).astype(np.float32)
    square = squareform(distances)
    return LayerView(
        layer=layer,
        barcode=rips_persistence(square, max_dimension=1, threads=1),
        neighbours=nearest_neighbours(square, NEIGHBOURS),
        median=float(np.median(distances)),
        distances=distances,
        gaussian_neighbours=gaussian_draws(gram_matrix(distances), NEIGHBOURS, 0),
    )


def seconds(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(processor, clock) seconds, medians; the first call is not counted."""
    run()
    spent = []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        spent.append((time.process_time() - processor, time.perf_counter() - clock))
    return statistics.median(pair[0] for pair in spent), statistics.median(pair[1] for pair in spent)


def measure_all(points: int, repeats: int, chosen: tuple[int, int]) -> list[tuple[str, str, float, float]]:
    """(measure, kind, processor seconds for a layer, clock seconds for a layer)."""
    with np.load(CLOUDS) as file:
        clouds = file["clouds"][:, :points].astype(np.float64)
    views = {layer: make_view(clouds[layer], layer) for layer in chosen}
    earlier, now = (views[layer] for layer in chosen)
    # 8 layers for the depth measures: the seven of the file and one again
    order = [*range(len(clouds)), 3]
    stack = np.stack([nearest_neighbours(squareform(pdist(clouds[layer])), NEIGHBOURS) for layer in order])
    zigzag = zigzag_persistence(stack)
    depth = DepthView(
        layers=tuple(range(len(order))),
        views={row: dataclasses.replace(now, neighbours=found) for row, found in enumerate(stack)},
        zigzag=zigzag,
    )
    over_time = TimeView(layer=1, steps=tuple(range(len(order))), zigzag=zigzag)

    def fresh(view: LayerView) -> LayerView:
        return dataclasses.replace(view)  # without what it has cached

    rows = []
    for name, of_layer in sorted(layer_measures.items()):
        rows.append((name, "layer", *seconds(lambda call=of_layer: call(fresh(now)), repeats)))
    for name, of_pair in sorted(pair_measures.items()):
        rows.append((name, "pair", *seconds(lambda call=of_pair: call(fresh(now), fresh(earlier)), repeats)))
    for name, of_depth in sorted(depth_measures.items()):
        processor, clock = seconds(lambda call=of_depth: call(depth), repeats)
        rows.append((name, "depth", processor / len(order), clock / len(order)))
    for name, of_time in sorted(time_measures.items()):
        rows.append((name, "time", *seconds(lambda call=of_time: call(over_time), repeats)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[256, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs=2, default=[3, 4])
    options = parser.parse_args()
    print(describe_machine())
    print(
        f"- scipy {scipy.__version__}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}; "
        f"k = {NEIGHBOURS}; {options.repeats} repeats\n"
    )
    tables = {points: measure_all(points, options.repeats, tuple(options.layers)) for points in options.points}
    head = " | ".join(f"{points:,} points: processor (clock), ms" for points in options.points)
    print(f"| measure | kind | {head} |\n|---|---|{'---|' * len(options.points)}")
    totals = dict.fromkeys(options.points, 0.0)
    for row, (name, kind, _, _) in enumerate(tables[options.points[0]]):
        cells = []
        for points, table in tables.items():
            times = 2 if kind == "pair" else 1
            totals[points] += times * table[row][2]
            cells.append(f"{1000 * table[row][2]:.2f} ({1000 * table[row][3]:.2f})")
        print(f"| `{name}` | {kind} | {' | '.join(cells)} |")
    for points, total in totals.items():
        print(
            f"\nAll of them, pair measures against two samples, {points:,} points: {total:.3f} s of processor for a "
            f"layer, {MODEL_LAYERS * total:.1f} s for {MODEL_LAYERS} layers."
        )


if __name__ == "__main__":
    main()
