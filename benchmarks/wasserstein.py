"""The 2-Wasserstein distance of barcodes: this package against POT's exact solver and hera, side by side.

    python benchmarks/wasserstein.py [--rounds 3]

Barcodes are those of 1,000 real activations of two layers, of one layer and its jittered copy (two checkpoints that
are close), and random ones of 1,200 bars. POT is called as gudhi.wasserstein calls it (network simplex on the dense
problem); hera is run to a relative error of 1 %. A line is void unless POT agrees to 9 digits. The table goes to
RESULTS_rips.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from machine import describe_machine
from rips import distances_of, jittered, write_section

from topo_callback.homology import rips_persistence, wasserstein_distance


def barcodes() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, first, second): finite bars [bars, 2] of one dimension."""
    layers = {layer: rips_persistence(distances_of(jittered(layer, 1))) for layer in (1, 3, 6)}
    noise = np.random.default_rng(0).standard_normal((1000, 384)).astype(np.float32)
    points = jittered(3, 1)
    near = rips_persistence(distances_of(points + 0.02 * points.std() * noise))
    for dimension in (0, 1):
        first = finite(layers[3].of(dimension))
        yield f"H{dimension}, layers 3 and 1", first, finite(layers[1].of(dimension))
        yield f"H{dimension}, layers 3 and 6", first, finite(layers[6].of(dimension))
        yield f"H{dimension}, layer 3 and its jittered copy", first, finite(near.of(dimension))
    generator = np.random.default_rng(1)
    for lifetime in (0.02, 0.2, 2.0):
        sides = []
        for _ in range(2):
            birth = generator.uniform(0, 1, 1200)
            sides.append(np.stack([birth, birth + lifetime * generator.exponential(size=1200)], axis=1))
        yield f"random, mean lifetime {lifetime}", sides[0], sides[1]


def finite(bars: np.ndarray) -> np.ndarray:
    return bars[np.isfinite(bars[:, 1])]


def best_time(compute: Callable[[], float], rounds: int) -> tuple[float, float]:
    """(seconds of the best round, the value)."""
    best = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        value = compute()
        best = min(best, time.perf_counter() - start)
    return best, value


def main() -> None:
    from gudhi import hera
    from gudhi.wasserstein import wasserstein_distance as pot_distance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    lines = [
        describe_machine(),
        f"- one thread; rounds: {given.rounds}, the best counts",
        "",
        "| barcodes | bars | native, s | POT, s | hera to 1 %, s | times faster than POT |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    wasserstein_distance(np.array([[0.0, 1.0]]), np.array([[0.0, 2.0]]))
    wasserstein_distance(np.array([[0.0, 1.0]]), np.array([[0.5, 2.0]]))
    for name, first, second in barcodes():
        ours, value = best_time(lambda one=first, two=second: wasserstein_distance(one, two), 3 * given.rounds)
        pot, expected = best_time(
            lambda one=first, two=second: pot_distance(one, two, order=2, internal_p=2), given.rounds
        )
        near, _ = best_time(
            lambda one=first, two=second: hera.wasserstein_distance(one, two, order=2, internal_p=2, delta=0.01),
            given.rounds,
        )
        agree = abs(value - expected) <= 1e-9 * max(value, expected)
        ratio = f"{pot / ours:.0f}" if agree else "void: values differ"
        lines.append(f"| {name} | {len(first)}, {len(second)} | {ours:.5f} | {pot:.4f} | {near:.4f} | {ratio} |")
        print(lines[-1], flush=True)
    write_section("2-Wasserstein distances", "\n".join(lines))


if __name__ == "__main__":
    main()
