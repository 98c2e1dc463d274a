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
import tempfile
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
BY_HAND = "\n## Read with this (written by hand)"  # kept from there on
ACTIVATIONS = HERE.parents[1] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"


def drifting_neighbours(points, k, stages, latent=8, drift=0.02, seed=0, search=cloud_neighbours):
    """Neighbours in clouds that move by an Ornstein-Uhlenbeck walk: each stage keeps sqrt(1 - drift^2) of the last."""
    generator = np.random.default_rng(seed)
    cloud = generator.standard_normal((points, latent))
    found = []
    for _ in range(stages):
        found.append(search(cloud, k))
        cloud = np.sqrt(1 - drift**2) * cloud + drift * generator.standard_normal(cloud.shape)
    return np.stack(found)


def tree_neighbours(cloud, k):
    """The neighbours of `cloud_neighbours`, by a k-d tree: for many points in few dimensions."""
    from scipy.spatial import cKDTree

    return cKDTree(cloud).query(cloud, k + 1)[1][:, 1:].astype(np.int32)


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


def measured_alone(answers, file):
    """Seconds, peak memory of this process beyond its state before the barcode in MiB, bars."""
    neighbours = np.load(file)
    zigzag_persistence(np.array([[[1], [2], [0]]]))  # compiled, or read from the cache
    before = peak_mib(anew=True)
    seconds, found = best_time(lambda: zigzag_persistence(neighbours), repeats=1 if neighbours.size > 10**7 else 3)
    memory = peak_mib() - before
    answers.put((seconds, memory, len(found)))


def peak_mib(anew=False):
    """Largest resident memory of this process so far; with `anew`, Linux forgets what was before."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def growth_row(setting, search=cloud_neighbours):
    """One row of the table of growth, its seconds and MiB; measured in a process of its own for its own peak memory."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "neighbours.npy"
        np.save(file, drifting_neighbours(**setting, search=search))
        process = context.Process(target=measured_alone, args=(answers, file))
        process.start()
        seconds, memory, bars = answers.get()
        process.join()
    head = f"| {setting['points']:,} | {setting['k']} | {setting['stages']} | {setting['drift']}"
    return f"{head} | {bars:,} | {seconds:.3f} | {memory:.0f} |", seconds, memory


def growth_rows():
    """Seconds and memory for growing n, k and stages, one at a time around n=2000, k=5, 16 stages, H1."""
    rows, series = [], {}
    for drift in (0.02, 0.15):
        for what, values in (
            ("points", (1000, 2000, 4000, 8000)),
            ("k", (3, 5, 8, 12)),
            ("stages", (4, 16, 64, 256)),
        ):
            for value in values:
                setting = {"points": 2000, "k": 5, "stages": 16, "drift": drift, what: value}
                row, seconds, memory = growth_row(setting)
                series.setdefault((what, drift), []).append((value, seconds, memory))
                rows.append(row)
    return rows, series


def plot(series, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    names = list(dict.fromkeys(what for what, _ in series))
    figure, axes = pyplot.subplots(2, len(names), figsize=(10, 5.5), sharex="col", sharey="row", layout="constrained")
    for (what, drift), curve in series.items():
        values, seconds, memory = zip(*curve, strict=True)
        column = names.index(what)
        label = f"drift {drift:.2f}"
        for axis, heights in zip(axes[:, column], (seconds, memory), strict=True):
            axis.loglog(values, heights, marker="o", markersize=4, label=label)
            axis.grid(True, which="major", color="0.9")
            axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(what)
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.xaxis.set_minor_formatter(NullFormatter())
    for axis in axes[:, 0]:
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].legend(frameon=False)
    figure.suptitle("Native zigzag engine, neighbours to barcode, H1, around 2,000 points, k = 5, 16 stages")
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

    _, mark, text = RESULTS.read_text().partition(BY_HAND)
    by_hand = mark + text

    def note(line):
        lines.append(line)
        print(line, flush=True)
        RESULTS.write_text("\n".join(lines) + "\n" + by_hand)

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
    lines += ["", "| points | k | stages | drift | bars | native s | peak MiB |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        note(row)
    if options.large:
        # in 4 dimensions: in 8 the neighbour search takes half an hour
        large = {"points": 100_000, "k": 5, "stages": 80, "drift": 0.02, "latent": 4}
        note(growth_row(large, tree_neighbours)[0])
    lines += [
        "",
        "Peak memory: of a process of its own, beyond what it held with the neighbours ready.",
        "",
        "![growth](RESULTS_zigzag.png)",
    ]
    plot(series, HERE / "RESULTS_zigzag.png")
    RESULTS.write_text("\n".join(lines) + "\n" + by_hand)


if __name__ == "__main__":
    main()
