"""Count false and true claims of `topo-callback compare` on simulated runs.

    python benchmarks/comparison.py [--null 1500] [--planted 200] [--correlation 0.9 0] [--seed 8]

Every simulated run has four measures of three layers at 21 points: a common rise, autocorrelated noise (AR(1), half of
its variance the seed's and shared by the objectives where they share seeds) and noise of every layer. Null comparisons
have no effect of the objective; planted ones a step at point 8, full after three points, in all measures or one. Rates
have 95 % Clopper-Pearson intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from machine import describe_machine
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "comparison"))

from simulated_runs import MEASURES, Design, simulate

from topo_callback.comparison.labelings import Labelings, blocks_of, labelings
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.comparison.permutation import ObjectiveTest, permutation_test

MOST = 2_000  # all labelings, but for three objectives with four or five seeds of their own
DESIGNS = [
    Design(objectives=objectives, seeds=seeds, shared=shared)
    for objectives, shared, seeds in product((2, 3), (False, True), (3, 4, 5))
]


def ways_of(design: Design, rows: list[int] | None = None, draw: int = 0) -> Labelings:
    rows = rows if rows is not None else list(range(len(design.labels)))
    return labelings(
        [design.labels[row] for row in rows],
        blocks_of([design.seed_numbers[row] for row in rows]),
        most=MOST,
        seed=draw,
    )


def count(
    design: Design, times: int, seed: int, claims: Callable[[ObjectiveTest], dict[str, bool]]
) -> tuple[Counter[str], Labelings]:
    """How often each claim is made in so many simulated comparisons."""
    generator = np.random.default_rng(seed)
    ways = ways_of(design)
    found: Counter[str] = Counter()
    for draw in range(times):
        # a draw is valid on average over draws: each comparison has its own
        ways = ways if ways.exact else ways_of(design, draw=draw)
        test = permutation_test(simulate(design, generator), ways)
        assert test is not None
        found.update({name: int(made) for name, made in claims(test).items()})
    return found, ways


def null_claims(test: ObjectiveTest) -> dict[str, bool]:
    """Claims where nothing differs; `report` is what a report states, the others without waiting for its gate."""
    return {
        "report": test.together.p <= LEVEL,
        "measure": any(found.p_all <= LEVEL for found in test.measures.values()),
        "layer": any(found.p_all <= LEVEL for found in test.layers.values()),
        "step": any(np.nanmin(found.p_all) <= LEVEL for found in test.steps.values()),
        "step, together": bool(np.nanmin(test.together_steps.p) <= LEVEL),
    }


def planted_claims(design: Design) -> Callable[[ObjectiveTest], dict[str, bool]]:
    """Claims where the first measures differ from a known point on, behind the gate as in a report."""
    true, false = MEASURES[: design.differing], MEASURES[design.differing :]

    def claims(test: ObjectiveTest) -> dict[str, bool]:
        gate = test.together.p <= LEVEL
        early = [np.nanmin(test.steps[measure].p_all[: design.onset]) for measure in true]
        late = [np.nanmin(test.steps[measure].p_all[design.onset :]) for measure in true]
        return {
            "report": gate,
            "measure": gate and any(test.measures[measure].p_all <= LEVEL for measure in true),
            "step": gate and min(late) <= LEVEL,
            "too early": gate and min(early) <= LEVEL,
            "wrong measure": gate and any(test.measures[measure].p_all <= LEVEL for measure in false),
        }

    return claims


def rate(made: int, times: int) -> str:
    interval = binomtest(made, times).proportion_ci(0.95)
    return f"{100 * made / times:.1f} ({100 * interval.low:.1f}-{100 * interval.high:.1f})"


def named(design: Design, ways: Labelings) -> str:
    seeds = "shared" if design.shared else "own"
    return f"| {design.objectives} | {design.seeds} {seeds} | {ways.possible:,} | {1 / min(ways.possible, MOST):.3f} "


def null_table(times: int, correlation: float, seed: int) -> None:
    columns = ("report", "measure", "layer", "step", "step, together")
    print(f"\n## Nothing differs, correlation {correlation:g}: false claims in % of {times:,} comparisons\n")
    print("| objectives | seeds | labelings | smallest p | " + " | ".join(columns) + " |")
    print("|---" * (4 + len(columns)) + "|", flush=True)
    pooled: Counter[str] = Counter()
    for number, design in enumerate(DESIGNS):
        design = replace(design, correlation=correlation)
        found, ways = count(design, times, seed + number, null_claims)
        pooled.update(found)
        print(named(design, ways) + "| " + " | ".join(rate(found[name], times) for name in columns) + " |", flush=True)
    print(
        "| all | | | | " + " | ".join(rate(pooled[name], times * len(DESIGNS)) for name in columns) + " |", flush=True
    )


def planted_table(times: int, differing: int, seed: int) -> None:
    columns = ("report", "measure", "step", "too early", "wrong measure")
    print(f"\n## {differing} of {len(MEASURES)} measures differ: claims in % of {times:,} comparisons\n")
    print("| objectives | seeds | labelings | smallest p | effect | " + " | ".join(columns) + " |")
    print("|---" * (5 + len(columns)) + "|", flush=True)
    for number, (design, effect) in enumerate(product(DESIGNS, (1.0, 2.0, 4.0))):
        ways = ways_of(design)
        if ways.smallest_p > LEVEL:
            continue
        design = replace(design, effect=effect, differing=differing)
        found, _ = count(design, times, seed + number, planted_claims(design))
        print(
            f"{named(design, ways)}| {effect:g} | " + " | ".join(rate(found[name], times) for name in columns) + " |",
            flush=True,
        )


def pair_table(times: int, seed: int) -> None:
    """Three objectives, the first two alike: how often each pair is claimed, with the correction for three pairs."""
    print(f"\n## Two of three objectives alike (effect 4): pairs claimed in % of {times:,} comparisons\n")
    print("| seeds | the pair that is alike | a pair that differs |\n|---|---|---|", flush=True)
    for number, seeds in enumerate((4, 5, 6)):
        design = Design(objectives=3, seeds=seeds, effect=4.0, heights=(0.0, 0.0, 1.0))
        generator = np.random.default_rng(seed + number)
        everything = ways_of(design)
        members = [[row for row, label in enumerate(design.labels) if label in pair] for pair in ((0, 1), (0, 2))]
        claimed = [0, 0]
        for _ in range(times):
            curves = simulate(design, generator)
            test = permutation_test(curves, everything)
            for which, rows in enumerate(members):
                part = {name: {layer: v[rows] for layer, v in found.items()} for name, found in curves.items()}
                pair = permutation_test(part, ways_of(design, rows))
                assert test is not None
                assert pair is not None
                smallest = min(found.p_all for found in pair.measures.values())
                claimed[which] += test.together.p <= LEVEL and 3 * smallest <= LEVEL
        print(f"| {seeds} own | {rate(claimed[0], times)} | {rate(claimed[1], times)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", type=int, default=1500)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.9, 0.0])
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    started = time.perf_counter()
    for correlation in options.correlation:
        null_table(options.null, correlation, 1_000 * options.seed + round(100 * correlation))
    if options.planted:
        for number, differing in enumerate((len(MEASURES), 1)):
            planted_table(options.planted, differing, 1_000 * options.seed + 500 + 100 * number)
        pair_table(options.planted, 1_000 * options.seed + 900)
    print(f"\nseed {options.seed}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
