"""H0 and H1 of Vietoris-Rips filtrations: the native engine against every installed peer, side by side.

    python benchmarks/rips.py [--rounds 3] [--only NAME ...] [--large] [--growth picture.png]

Each input is computed by the native engine on one and on two threads, RedZeD, gudhi (over Z/2), ripser.py and
giotto-ph, as far as installed, in turn, round by round, so that other work on the machine falls on all of them alike;
the best round counts. Peers take one thread, and one thread is compared with one thread, in processor time of the
process; what two threads take is clock time. From a float32 distance matrix to a sorted `Barcode`: the conversion and
the checks that each engine makes of its input and the result object are part of every time. oineus builds every
triangle, which 1,000 points put out of reach, and is left out. A line is void unless the barcodes are equal.

Real clouds are MiniLM's activations of every layer, those repeated with jitter, and the clouds of Qwen2.5-0.5B that the
package actopo (MIT) brings. `--large` adds 5,000 and 10,000 points, native only; `--growth` draws time against points.
The table goes to the section of this script in RESULTS_rips.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from machine import describe_machine

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from rips_inputs import activation_distances, shared_file, standard_input

from topo_callback.homology import Barcode, rips_persistence, rips_persistence_batch
from topo_callback.libraries import versions

RESULTS = Path(__file__).with_name("RESULTS_rips.md")
TWO_THREADS = "native on two threads"
REAL = "real: "
Compute = Callable[[np.ndarray], Barcode]


def engines() -> dict[str, Compute]:
    """Every installed engine as a function from distances to a barcode."""
    found: dict[str, Compute] = {
        "native": lambda distances: rips_persistence(distances, engine="native", threads=1),
        TWO_THREADS: lambda distances: rips_persistence(distances, engine="native", threads=2),
        "gudhi": lambda distances: rips_persistence(distances, engine="gudhi"),
    }
    try:
        from redzed_tda import rips

        found["RedZeD"] = lambda distances: Barcode.from_diagrams(rips(distances, maxdim=1))
    except ImportError:
        pass
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
            ripser_parallel(distances, maxdim=1, metric="precomputed", n_threads=1)["dgms"]
        )
    except ImportError:
        pass
    return found


def compare(distances: np.ndarray, compared: dict[str, Compute], rounds: int) -> dict[str, float] | None:
    """The best time of each engine in seconds; None where two barcodes differ."""
    best = dict.fromkeys(compared, np.inf)
    expected = compared["native"](distances)  # compiles, and warms the caches
    for _ in range(rounds):
        for name, compute in compared.items():
            # several runs of what is quick, and as many of ours as of each peer
            for _ in range(1 if len(distances) > 700 else 3):
                clock = time.perf_counter if name == TWO_THREADS else time.process_time
                start = clock()
                barcode = compute(distances)
                best[name] = min(best[name], clock() - start)
            if barcode != expected:
                return None
    return best


def inputs() -> Iterator[tuple[str, np.ndarray]]:
    """Real clouds first, then the standard inputs and drawn ones."""
    qwen = {kind: qwen_cloud(kind) for kind in ("base", "instruct")}
    for kind, cloud in qwen.items():
        if cloud is not None:
            yield f"{REAL}Qwen2.5-0.5B, {kind}", distances_of(cloud)
    clouds = [cloud for cloud in qwen.values() if cloud is not None]
    if len(clouds) == 2:
        yield f"{REAL}Qwen2.5-0.5B, both", distances_of(np.concatenate(clouds))
    for layer in range(7):
        yield f"{REAL}MiniLM, layer {layer}", activation_distances(layer)
        yield f"{REAL}MiniLM, layer {layer}, twice", distances_of(jittered(layer, 2))
    for name in ("sphere_3_192", "celegans", "fractal_r", "o3_1024", "dragon_2000"):
        yield name, standard_input(name)
    generator = np.random.default_rng(0)
    for points in (1000, 2000):
        yield f"Gaussian, 64 wide, {points}", distances_of(generator.standard_normal((points, 64)).astype(np.float32))
    yield "cube", distances_of(generator.random((1000, 3)).astype(np.float32))
    angle = generator.uniform(0, 2 * np.pi, 1000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * generator.standard_normal((1000, 2))
    yield "noisy circle", distances_of(circle.astype(np.float32))


def qwen_cloud(kind: str) -> np.ndarray | None:
    """float32 [600, 896]: hidden states of Qwen2.5-0.5B in the middle, from the package actopo; None without it."""
    found = importlib.util.find_spec("actopo")
    if found is None or found.origin is None:
        return None
    return np.load(Path(found.origin).parent / "data" / f"example_{kind}.npy").astype(np.float32)


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


def batch_line(rounds: int) -> str:
    """64 sub-samples of 160 real activations, on one thread; gudhi through its own batch form."""
    whole = activation_distances(3)
    generator = np.random.default_rng(0)
    chosen = [generator.choice(len(whole), 160, replace=False) for _ in range(64)]
    clouds = np.stack([whole[np.ix_(rows, rows)] for rows in chosen])
    from gudhi.sklearn import RipsPersistence

    transform = RipsPersistence([0, 1], input_type="full distance matrix", homology_coeff_field=2, n_jobs=1)
    ways: dict[str, Callable[[], list[Barcode]]] = {
        "native": lambda: rips_persistence_batch(clouds, threads=1),
        TWO_THREADS: lambda: rips_persistence_batch(clouds, threads=2),
        "gudhi": lambda: [Barcode.from_diagrams(found) for found in transform.fit_transform(list(clouds))],
    }
    one_by_one = engines().get("RedZeD")
    if one_by_one is not None:
        ways["RedZeD"] = lambda: [one_by_one(cloud) for cloud in clouds]
    expected = ways["native"]()
    best = dict.fromkeys(ways, np.inf)
    equal = True
    for _ in range(rounds):
        for name, compute in ways.items():
            clock = time.perf_counter if name == TWO_THREADS else time.process_time
            start = clock()
            found = compute()
            best[name] = min(best[name], clock() - start)
            equal = equal and found == expected
    return line_of("64 clouds", 160, best if equal else None)


def line_of(name: str, points: int, best: dict[str, float] | None) -> str:
    """A line of the table; void where the barcodes differ."""
    if best is None:
        return f"| {name} | {points} | void: barcodes differ | | | |"
    ours, theirs = best["native"], {peer: best[peer] for peer in best if not peer.startswith("native")}
    return (
        f"| {name} | {points} | {ours:.4f} | {best[TWO_THREADS]:.4f} | "
        + ", ".join(f"{peer} {seconds:.4f}" for peer, seconds in theirs.items())
        + f" | {min(theirs.values()) / ours:.1f} |"
    )


def large_lines(threads: int) -> Iterator[str]:
    """The native engine alone on 5,000 and 10,000 jittered activations: time, and how much memory it added."""
    for copies in (5, 10):
        distances = distances_of(jittered(3, copies))
        seconds, added, whole = watched(
            lambda given=distances: rips_persistence(given, engine="native", threads=threads)
        )
        yield (
            f"| activations, {copies} times | {len(distances)} | - | {seconds:.2f} | "
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


def draw_growth(path: Path) -> None:
    """Processor time of one thread against the number of points, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    compared = engines()
    sizes = [125, 250, 500, 1000, 2000, 4000]
    whole = distances_of(jittered(3, 4))
    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for name in ("native", "RedZeD", "gudhi"):
        if name not in compared:
            continue
        used = [size for size in sizes if name == "native" or size <= 2000]
        seconds = []
        for size in used:
            distances = np.ascontiguousarray(whole[:size, :size])
            times = []
            for _ in range(10 if name == "native" else 3):
                start = time.process_time()
                compared[name](distances)
                times.append(time.process_time() - start)
            seconds.append(min(times))
        axes.loglog(used, seconds, "o-", label=name)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="points", ylabel="seconds of one processor", title="H0 and H1 of real activations")
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
    parser.add_argument("--only", nargs="*", help="inputs whose name contains one of these words")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--growth", type=Path)
    given = parser.parse_args()
    lines = [
        describe_machine(),
        f"- peers: {versions_of_peers()}",
        f"- one thread each, in processor time, and the native engine on two threads in clock time; rounds: "
        f"{given.rounds}, the best counts",
        "",
        "| input | points | native, s | on two threads, s | peers, s | times faster than the fastest peer |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    compared = engines()
    ratios: list[float] = []
    for name, distances in inputs():
        if given.only and not any(word in name for word in given.only):
            continue
        best = compare(distances, compared, given.rounds)
        add(line_of(name, len(distances), best))
        if best is not None and name.startswith(REAL):
            ratios.append(min(best[peer] for peer in best if not peer.startswith("native")) / best["native"])
    add(batch_line(3 * given.rounds))
    if ratios:
        middle, least, most = np.median(ratios), min(ratios), max(ratios)
        add(f"| median of the real ones (range) | | | | | {middle:.1f} ({least:.1f} to {most:.1f}) |")
    if given.large:
        for line in large_lines(2):
            add(line)
    if given.growth:
        draw_growth(given.growth)
        add(f"\n![time against points]({given.growth.name})")
    write_section("Vietoris-Rips H0 and H1", "\n".join(lines))


def versions_of_peers() -> str:
    """Which of them are installed."""
    found = versions(("redzed-tda", "gudhi", "ripser", "giotto-ph", "actopo"))
    return ", ".join(f"{name} {number}" for name, number in found.items())


if __name__ == "__main__":
    main()
