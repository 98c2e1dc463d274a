"""Zigzag persistence: the native engine beside dionysus, on the same complexes, in one run.

    python benchmarks/zigzag.py [--limit SECONDS] [--large]

Every comparison is void unless the barcodes are equal. Peers run in a process of their own and are ended at the limit.
Writes RESULTS_zigzag.md and RESULTS_zigzag.png beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import queue
import resource
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe_machine

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.dionysus_engine import (
    classical_barcode_of_simplices,
    fast_barcode_of_simplices,
    simplices_with_times,
)
from topo_callback.homology.neighbour_graphs import cloud_neighbours
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import zigzag_persistence

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS_zigzag.md"
ACTIVATIONS = HERE.parents[1] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"


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


def answer(answers, function, arguments):
    start = time.perf_counter()
    result = function(*arguments)
    answers.put((time.perf_counter() - start, result.dimension, result.birth, result.death))


def limited(function, arguments, limit):
    """(seconds, barcode) of a peer in its own process; (None, None) when it was ended at the limit."""
    # Spawned, not forked: scikit-learn's OpenMP threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=answer, args=(answers, function, arguments))
    process.start()
    try:
        seconds, *bars = answers.get(timeout=limit)
        return seconds, Barcode(*bars)
    except queue.Empty:
        return None, None
    finally:
        process.kill()
        process.join()


def compare(name, neighbours, max_dimension, limit, with_fast_zigzag=False):
    """One row: from neighbours to barcode here, from ready simplices to barcode for the peers."""
    stages = len(neighbours)
    seconds, found = best_time(lambda: zigzag_persistence(neighbours, max_dimension=max_dimension))
    simplices, times = simplices_with_times(StageGraphs.from_neighbours(neighbours), max_dimension + 2)
    cells = sum(len(moments) // 2 for moments in times)
    row = f"| {name} | {cells:,} | {len(found):,} | {seconds:.3f} |"
    peers = [(classical_barcode_of_simplices, (simplices, times, stages, max_dimension))]
    if with_fast_zigzag:
        peers.append((fast_barcode_of_simplices, (simplices, times, max_dimension)))
    for peer, arguments in peers:
        taken, other = limited(peer, arguments, limit)
        if taken is None:
            row += f" > {limit:.0f} | > {limit / seconds:.0f}x, not checked |"
        elif other != found:
            row += " void: barcodes differ | |"
        else:
            row += f" {taken:.2f} | {taken / seconds:.0f}x |"
    return row + (" | |" if not with_fast_zigzag else "")


def published_route(clouds, k, max_dimension):
    """scikit-learn's graph, gudhi's expansion, intersections as times, dionysus' classical zigzag."""
    import gudhi
    from sklearn.neighbors import kneighbors_graph

    moments: dict[tuple[int, ...], list[int]] = {}
    for stage, cloud in enumerate(clouds):
        graph = kneighbors_graph(cloud, k, mode="connectivity", include_self=False).tocoo()
        tree = gudhi.SimplexTree()
        tree.insert_batch(np.arange(len(cloud))[None], np.zeros(len(cloud)))
        tree.insert_batch(np.stack([graph.row, graph.col]), np.zeros(graph.nnz))
        tree.expansion(max_dimension + 1)
        for simplex, _ in tree.get_simplices():
            own = moments.setdefault(tuple(simplex), [])
            if own and own[-1] == 2 * stage - 1:
                own[-1] = 2 * stage + 1
            else:
                own += [2 * stage, 2 * stage + 1]
    return classical_barcode_of_simplices(list(moments), list(moments.values()), len(clouds), max_dimension)


def route_row(limit):
    clouds = drifting_clouds(2000, 384, 4)

    def own_route():
        return zigzag_persistence(np.stack([cloud_neighbours(cloud, 5) for cloud in clouds]))

    own_route()
    seconds, found = best_time(own_route)
    search, _ = best_time(lambda: [cloud_neighbours(cloud, 5) for cloud in clouds])
    row = f"| route from 4 clouds of 2,000 x 384, k=5, H1 | {seconds:.3f} |"
    try:
        from sklearn.neighbors import kneighbors_graph
    except ImportError:
        return row + f" scikit-learn is not installed | (neighbours alone {search:.3f} s) |"
    their_search, _ = best_time(lambda: [kneighbors_graph(cloud, 5) for cloud in clouds])
    taken, other = limited(published_route, (clouds, 5, 1), limit)
    verdict = "beyond the limit" if taken is None else f"{taken:.2f}" if other == found else "void: barcodes differ"
    ratio = f"{taken / seconds:.0f}x" if taken else "-"
    return row + f" {verdict} | {ratio}; neighbours alone {search:.3f} s against {their_search:.3f} s |"


def growth_rows():
    """Seconds and cells for growing n, k and stages, one at a time around n=2000, k=5, 16 stages, H1."""
    rows, series = [], {}
    for what, values in (("points", (500, 1000, 2000, 4000, 8000)), ("k", (3, 5, 8, 12)), ("stages", (4, 16, 64, 256))):
        for value in values:
            setting = {"points": 2000, "k": 5, "stages": 16, what: value}
            neighbours = drifting_neighbours(setting["points"], setting["k"], setting["stages"])
            seconds, found = best_time(lambda chosen=neighbours: zigzag_persistence(chosen), repeats=1)
            series.setdefault(what, []).append((value, seconds))
            rows.append(
                f"| {setting['points']:,} | {setting['k']} | {setting['stages']} | {len(found):,} | {seconds:.3f} |"
            )
    return rows, series


def plot(series, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(10, 3), sharey=True, layout="constrained")
    for axis, (what, curve) in zip(axes, series.items(), strict=True):
        axis.loglog(*zip(*curve, strict=True), marker="o")
        axis.set_xlabel(what)
    axes[0].set_ylabel("seconds, neighbours to barcode")
    figure.suptitle("Native zigzag engine, H1, around 2,000 points, k = 5, 16 stages")
    figure.savefig(file, dpi=120)


def scikit_learn_version():
    try:
        return importlib.metadata.version("scikit-learn")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a peer is ended")
    parser.add_argument("--large", action="store_true", help="also 100,000 points, 80 stages")
    options = parser.parse_args()
    head = describe_machine() + f"\n- scikit-learn {scikit_learn_version()}"
    zigzag_persistence(np.array([[[1], [2], [0]]]), max_dimension=3)  # compiled, or read from the cache
    lines = [
        "# Zigzag persistence",
        "",
        head,
        "",
        "Native: from neighbours to barcode, best of three, one thread. dionysus: from ready simplices to barcode, one",
        "run. 'drift' is the step of the walk, relative to the spread of the cloud, in 8 dimensions.",
        "",
        "| input | cells | bars | native s | dionysus classical s | ratio | dionysus fast_zigzag s | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def note(line):
        lines.append(line)
        print(line, flush=True)
        RESULTS.write_text("\n".join(lines) + "\n")

    cases = [
        ("n=1,000, k=5, 32 stages, H1, drift .02", drifting_neighbours(1000, 5, 32), 1, True),
        ("n=2,000, k=10, 32 stages, cliques of 5, drift .02", drifting_neighbours(2000, 10, 32), 3, False),
        ("n=10,000, k=5, 32 stages, cliques of 5, drift .02", drifting_neighbours(10000, 5, 32), 3, False),
        ("time zigzag: n=1,000, k=5, 100 samples, H1, drift .02", drifting_neighbours(1000, 5, 100), 1, False),
        ("n=1,000, k=5, 32 stages, H1, drift .15", drifting_neighbours(1000, 5, 32, drift=0.15), 1, False),
    ]
    if ACTIVATIONS.exists():
        cases.append(("MiniLM, n=1,000, k=5, 7 layers made 32, H1", activation_neighbours(5, 32), 1, False))
    for name, neighbours, max_dimension, with_fast_zigzag in cases:
        note(compare(name, neighbours, max_dimension, options.limit, with_fast_zigzag))
    lines += ["", "| whole route | ours s | scikit-learn, gudhi, dionysus s | ratio |", "|---|---|---|---|"]
    note(route_row(options.limit))
    rows, series = growth_rows()
    lines += ["", "| points | k | stages | bars | native s |", "|---|---|---|---|---|"]
    for row in rows:
        note(row)
    if options.large:
        seconds, found = best_time(lambda: zigzag_persistence(drifting_neighbours(100_000, 5, 80)), repeats=1)
        note(f"| 100,000 | 5 | 80 | {len(found):,} | {seconds:.1f} with the neighbour search |")
    scale = 2**20 if sys.platform == "linux" else 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    lines += [
        "",
        f"Largest memory of this process, inputs included: {peak:.2f} GiB.",
        "",
        "![growth](RESULTS_zigzag.png)",
    ]
    plot(series, HERE / "RESULTS_zigzag.png")
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
