"""H0 and H1 of Vietoris-Rips filtrations: the native engine against every installed peer, side by side.

    python benchmarks/rips.py [--rounds 3] [--threads 2] [--only NAME ...] [--large] [--growth picture.png] [--device]

Each input is computed by the native engine, gudhi (over Z/2), ripser.py and giotto-ph, as far as installed, in turn,
round by round, so that other work on the machine falls on all of them alike; the best round counts. oineus builds
every triangle, which 1,000 points put out of reach, and is left out. H0, the checks of the input and the result object
are part of the native time. A line is void unless the barcodes are equal.
`--large` adds 5,000 and 10,000 points, native only; `--growth` draws time against points; `--device` adds the stages
on an accelerator. The table goes to the section
of this script in RESULTS_rips.md.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from machine import describe_machine

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from rips_device import device_lines
from rips_inputs import activation_distances, shared_file, standard_input

from topo_callback.homology import Barcode, rips_persistence, rips_persistence_batch

RESULTS = Path(__file__).with_name("RESULTS_rips.md")
Compute = Callable[[np.ndarray], Barcode]


def peers(threads: int) -> dict[str, Compute]:
    """Every installed engine as a function from distances to a barcode."""
    found: dict[str, Compute] = {
        "native": lambda distances: rips_persistence(distances, engine="native", threads=threads),
        "gudhi": lambda distances: rips_persistence(distances, engine="gudhi"),
    }
    try:
        from ripser import ripser

        found["ripser.py"] = lambda distances: Barcode.from_diagrams(
            ripser(distances, maxdim=1, distance_matrix=True)["dgms"]
        )
    except ImportError:
        pass
    try:
        from gph import ripser_parallel

        found["giotto-ph"] = lambda distances: Barcode.from_diagrams(
            ripser_parallel(distances, maxdim=1, metric="precomputed", n_threads=threads)["dgms"]
        )
    except ImportError:
        pass
    return found


def compare(distances: np.ndarray, engines: dict[str, Compute], rounds: int) -> dict[str, float] | None:
    """The best time of each engine in seconds; None where two barcodes differ."""
    best = dict.fromkeys(engines, np.inf)
    expected = engines["native"](distances)  # compiles, and warms the caches
    for _ in range(rounds):
        for name, compute in engines.items():
            start = time.perf_counter()
            barcode = compute(distances)
            best[name] = min(best[name], time.perf_counter() - start)
            if barcode != expected:
                return None
    return best


def inputs() -> Iterator[tuple[str, np.ndarray]]:
    """The standard inputs, and real activations of every layer: 1,000, and 2,000 by repeating them with jitter."""
    for name in ("sphere_3_192", "celegans", "fractal_r", "o3_1024", "dragon_2000"):
        yield name, standard_input(name)
    for layer in range(7):
        yield f"activations of layer {layer}", activation_distances(layer)
        yield f"activations of layer {layer}, twice", distances_of(jittered(layer, 2))


def jittered(layer: int, copies: int) -> np.ndarray:
    """float32 [1000 * copies, width]: the real activations and copies of them, moved by a fifth of their spread."""
    with np.load(shared_file("activations", "minilm_l6_mean_pooled.npz")) as file:
        points = file["clouds"][layer].astype(np.float32)
    noise = np.random.default_rng(layer).standard_normal((copies - 1, *points.shape)).astype(np.float32)
    moved = points + 0.2 * points.std() * noise
    return np.concatenate([points, moved.reshape(-1, points.shape[1])])


def distances_of(points: np.ndarray) -> np.ndarray:
    """float32 [points, points], symmetric, zero diagonal; in strips, so that 10,000 points fit."""
    squares = (points.astype(np.float64) ** 2).sum(axis=1)
    distances = np.empty((len(points), len(points)), np.float32)
    for start in range(0, len(points), 500):
        strip = slice(start, start + 500)
        products = points[strip] @ points.T
        distances[strip] = np.sqrt(np.maximum(squares[strip, None] + squares[None, :] - 2 * products, 0))
    for start in range(0, len(points), 500):
        strip = slice(start, start + 500)
        distances[strip] = np.maximum(distances[strip], distances[:, strip].T)
        distances[:, strip] = distances[strip].T
    np.fill_diagonal(distances, 0)
    return distances


def batch_line(threads: int, rounds: int) -> str:
    """64 sub-samples of 160 real activations; gudhi with as many jobs, through its own batch form."""
    whole = activation_distances(3)
    generator = np.random.default_rng(0)
    chosen = [generator.choice(len(whole), 160, replace=False) for _ in range(64)]
    clouds = np.stack([whole[np.ix_(rows, rows)] for rows in chosen])
    from gudhi.sklearn import RipsPersistence

    peer = RipsPersistence(
        [0, 1], input_type="full distance matrix", homology_coeff_field=2, n_jobs=threads
    ).fit_transform
    expected = rips_persistence_batch(clouds, threads=threads)
    ours = theirs = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        rips_persistence_batch(clouds, threads=threads)
        ours = min(ours, time.perf_counter() - start)
        start = time.perf_counter()
        diagrams = peer(list(clouds))
        theirs = min(theirs, time.perf_counter() - start)
    equal = expected == [Barcode.from_diagrams(diagram) for diagram in diagrams]
    ratio = f"{theirs / ours:.1f}" if equal else "void"
    return f"| 64 clouds | 160 | {ours:.4f} | gudhi {theirs:.4f} | {ratio} |"


def large_lines(threads: int) -> Iterator[str]:
    """The native engine alone on 5,000 and 10,000 jittered activations: time, and how much memory it added."""
    for copies in (5, 10):
        distances = distances_of(jittered(3, copies))
        seconds, added, whole = watched(
            lambda given=distances: rips_persistence(given, engine="native", threads=threads)
        )
        yield (
            f"| activations, {copies} times | {len(distances)} | {seconds:.2f} | "
            f"peak {whole / 2**30:.2f} GiB with input, {added / distances.size:.1f} bytes per entry on top | - |"
        )


def watched(compute: Callable[[], object]) -> tuple[float, int, int]:
    """(seconds, resident bytes added at most while it ran, resident bytes at most), looked up every 2 ms."""
    process = psutil.Process()
    before = most = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.002):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    compute()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    return seconds, most - before, most


def draw_growth(path: Path, threads: int) -> None:
    """Time against the number of points, native and gudhi, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    engines = peers(threads)
    sizes = [125, 250, 500, 1000, 2000, 4000]
    whole = distances_of(jittered(3, 4))
    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for name in ("native", "gudhi"):
        used = [size for size in sizes if name == "native" or size <= 2000]
        seconds = []
        for size in used:
            distances = np.ascontiguousarray(whole[:size, :size])
            times = []
            for _ in range(3):
                start = time.perf_counter()
                engines[name](distances)
                times.append(time.perf_counter() - start)
            seconds.append(min(times))
        axes.loglog(used, seconds, "o-", label=name)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="points", ylabel="seconds", title="H0 and H1 of real activations")
    axes.legend()
    figure.savefig(path, dpi=120)


def write_section(title: str, text: str) -> None:
    """Replace or append one section of the results file."""
    heading = f"## {title}\n"
    sections = RESULTS.read_text().split("\n## ") if RESULTS.exists() else ["# Homology and barcode distances\n"]
    kept = [section for section in sections if not section.startswith(f"{title}\n")]
    body = "\n## ".join(kept).rstrip("\n")
    RESULTS.write_text(f"{body}\n\n{heading}\n{text.strip()}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="inputs whose name contains one of these words")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--growth", type=Path)
    parser.add_argument("--device", action="store_true")
    given = parser.parse_args()
    lines = [
        describe_machine(),
        f"- threads: {given.threads}; rounds: {given.rounds}, the best counts; peers besides: "
        f"{', '.join(sorted(set(peers(given.threads)) - {'native'}))}",
        "",
        "| input | points | native, s | peers, s | times faster than the fastest peer |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    ratios: dict[int, list[float]] = {1000: [], 2000: []}
    for name, distances in inputs():
        if given.only and not any(word in name for word in given.only):
            continue
        engines = peers(given.threads)
        best = compare(distances, engines, given.rounds)
        if best is None:
            add(f"| {name} | {len(distances)} | void: barcodes differ | | |")
            continue
        ours = best.pop("native")
        ratio = min(best.values()) / ours
        if name.startswith("activations"):
            ratios[len(distances)].append(ratio)
        add(
            f"| {name} | {len(distances)} | {ours:.4f} | "
            + ", ".join(f"{peer} {seconds:.4f}" for peer, seconds in best.items())
            + f" | {ratio:.1f} |"
        )
    add(batch_line(given.threads, 3 * given.rounds))
    for points, found in ratios.items():
        if found:
            add(f"| median over layers | {points} | | | {np.median(found):.1f} |")
    if given.large:
        for line in large_lines(given.threads):
            add(line)
    if given.device:
        layers = np.stack([jittered(number % 7, 2)[number // 7 :][:1000] for number in range(32)])
        for line in device_lines(jittered(3, 10), layers, given.threads, given.rounds):
            add(line)
    if given.growth:
        draw_growth(given.growth, given.threads)
        add(f"\n![time against points]({given.growth.name})")
    write_section("Vietoris-Rips H0 and H1", "\n".join(lines))


if __name__ == "__main__":
    main()
