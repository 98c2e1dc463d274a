"""Count what `topo-callback compare` says of simulated objectives that spread unequally, and of equal ones.

    python benchmarks/comparison_spread.py [--times 200] [--seed 16] [--tables null power exclusion thinned seeds]

Runs as in comparison.py (AR(1), correlation 0.9, 21 points, four measures; medians over layers only), with groups of
unequal size and spread and shocks that are Gaussian, of Student's t with 3 degrees of freedom, or skewed (exponential).
`R2` is the permutation test without studentising, `studentised` that test at 5 %, `claimed` what compare claims,
`cannot` the comparisons that cannot claim anything because no p-value is small enough. `wrong exclusion`: one of four
measures differs by one spread, and the bound of the largest difference is not above one spread. Rates have 95 %
Clopper-Pearson intervals.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import numpy as np
from comparison import Design, rate, simulate
from machine import describe_machine

from topo_callback.comparison import alignment
from topo_callback.comparison.effects import difference, largest_excluded, run_means
from topo_callback.comparison.explained import joined
from topo_callback.comparison.labelings import Labelings, labelings
from topo_callback.comparison.own_spread import LEVEL, levels
from topo_callback.comparison.permutation import Curves, permutation_test
from topo_callback.comparison.seeds import seeds_needed
from topo_callback.errors import ConfigurationError

SIZES = ((3, 9), (9, 3), (4, 6), (5, 5))
SHOCKS = ("gaussian", "t3", "skewed")


def medians(design: Design, generator: np.random.Generator) -> Curves:
    return {name: {None: by_layer[None]} for name, by_layer in simulate(design, generator).items()}


def plain_p(curves: Curves, labels: np.ndarray) -> float:
    """All measures together by R2 itself: equal group sizes are pretended by counting sums of squares only."""
    found = []
    for by_layer in curves.values():
        left = by_layer[None] - by_layer[None].mean(axis=0)
        products = (left @ left.T)[None] / (left**2).sum()
        ones = [(labels == objective).astype(float) for objective in np.unique(labels)]
        found.append(sum(np.einsum("lr,rs,ls->l", one, products[0], one) / one[0].sum() for one in ones))
    together = joined(np.stack(found, axis=1))
    return float((together >= together[0] - 1e-8).mean())


def null_table(times: int, seed: int) -> None:
    print(f"\n## One mean: claims in % of {times} comparisons\n")
    print("| runs | spreads | shocks | R2 | studentised | claimed | cannot |\n|---|---|---|---|---|---|---|")
    cells = [(s, r, k) for s, r, k in product(SIZES, (1.0, 3.0), SHOCKS) if r > 1 or k == "gaussian"]
    for number, (sizes, ratio, shocks) in enumerate(cells):
        design = Design(sizes=sizes, spreads=(ratio, 1.0), shocks=shocks)
        print(
            f"| {sizes[0]}, {sizes[1]} | {ratio:g} : 1 | {shocks} | {claims(design, times, seed + number)} |",
            flush=True,
        )


def power_table(times: int, seed: int) -> None:
    print(f"\n## All four measures differ from a third of the run on: claims in % of {times} comparisons\n")
    print("| runs | spreads | effect | R2 | studentised | claimed | cannot |\n|---|---|---|---|---|---|---|")
    cells = [(sizes, 1.0, effect) for sizes, effect in product(((5, 5), (4, 6), (3, 9)), (1.0, 2.0))]
    cells += [((3, 9), 3.0, 6.0), ((4, 6), 3.0, 6.0), ((5, 5), 3.0, 6.0)]
    for number, (sizes, ratio, effect) in enumerate(cells):
        design = Design(sizes=sizes, spreads=(ratio, 1.0), effect=effect)
        print(
            f"| {sizes[0]}, {sizes[1]} | {ratio:g} : 1 | {effect:g} | {claims(design, times, seed + number)} |",
            flush=True,
        )


def claims(design: Design, times: int, seed: int) -> str:
    generator = np.random.default_rng(seed)
    ways = labelings(design.labels, [0] * len(design.labels))
    counts = np.zeros(4, dtype=int)
    for draw in range(times):
        curves = medians(design, generator)
        test = permutation_test(curves, ways)
        assert test is not None
        allowed = levels(curves, ways, seed=draw).together
        p = test.together.p
        counts += [plain_p(curves, ways.labels) <= LEVEL, p <= LEVEL, p <= allowed, allowed < ways.smallest_p]
    return " | ".join(rate(int(count), times) for count in counts)


def exclusion_table(times: int, seed: int) -> None:
    """A true difference of one spread in one measure: how often a bound on the largest difference lies below it."""
    print(f"\n## The bound of the largest difference lies below it, in % of {times} comparisons\n")
    print("| runs | spreads | shocks | wrong exclusion |\n|---|---|---|---|")
    for number, (sizes, ratio, shocks) in enumerate(product(((3, 9), (5, 5), (20, 20)), (1.0, 3.0), SHOCKS)):
        generator = np.random.default_rng(seed + number)
        design = Design(sizes=sizes, spreads=(ratio, 1.0), shocks=shocks)
        means = [run_means(medians(design, generator)["betti_h1"][None]) for _ in range(400)]
        groups = np.array(design.labels)
        spread = np.sqrt(np.mean([np.var([m[groups == g] for m in means]) for g in (0, 1)]))
        wrong = 0
        for _ in range(times):
            found = {}
            for measure, by_layer in medians(design, generator).items():
                of = run_means(by_layer[None])
                first = of[groups == 0] + (spread if measure == "betti_h1" else 0.0)
                found[measure] = difference(first, of[groups == 1], paired=False, comparisons=4)
            excluded = largest_excluded(found)
            assert excluded is not None
            wrong += excluded[1] <= 1.0
        print(f"| {sizes[0]}, {sizes[1]} | {ratio:g} : 1 | {shocks} | {rate(wrong, times)} |", flush=True)


def thinned_table(times: int, seed: int) -> None:
    """Runs of one mean and spread at 65 points, one objective thinned: aligned as compare does, or refused."""
    print(f"\n## One objective thinned: claims in % of {times} comparisons\n")
    print("| runs, thinned first | samples left out | interpolated everywhere | compare claims | compare refuses |")
    print("|---|---|---|---|---|")
    steps = np.arange(65.0)
    shares: tuple[float | str, ...] = (0.0, 0.5, 0.8, "4 of 5, the same ones in all runs")
    for number, (sizes, share) in enumerate(product(((5, 5), (3, 7)), shares)):
        generator = np.random.default_rng(seed + number)
        design = Design(sizes=sizes, correlation=0.5)
        ways = labelings(design.labels, [0] * 10)
        counts = np.zeros(3, dtype=int)
        for draw in range(times):
            curves = {name: by_layer[None] for name, by_layer in simulate(design, generator, len(steps)).items()}
            kept = [_kept(steps, share if run < sizes[0] else 0.0, generator) for run in range(10)]
            counts[0] += _p(_interpolated(curves, kept, steps), ways) <= LEVEL
            try:
                points, _ = alignment._common_points([_Named()] * 10, kept)
            except ConfigurationError:
                counts[2] += 1
                continue
            aligned = _interpolated(curves, kept, points)
            counts[1] += _p(aligned, ways) <= levels(aligned, ways, seed=draw).together
        named = f"{100 * share:.0f} %, at random" if isinstance(share, float) else share
        shown = " | ".join(rate(int(count), times) for count in counts)
        print(f"| {sizes[0]}, {sizes[1]} | {named} | {shown} |", flush=True)


class _Named:
    given = "run"


def _kept(steps: np.ndarray, share: float | str, generator: np.random.Generator) -> np.ndarray:
    if isinstance(share, str):
        return steps[::5]
    inside = generator.random(len(steps)) >= share
    inside[[0, -1]] = True
    return steps[inside]


def _interpolated(curves: dict[str, np.ndarray], kept: list[np.ndarray], points: np.ndarray) -> Curves:
    return {
        name: {None: np.stack([np.interp(points, at, values[run][at.astype(int)]) for run, at in enumerate(kept)])}
        for name, values in curves.items()
    }


def _p(curves: Curves, ways: Labelings) -> float:
    test = permutation_test(curves, ways)
    assert test is not None
    return test.together.p


def seeds_table(seed: int) -> None:
    print(
        "\n## Seeds of each objective that are said to find a difference of one spread, from 5 and from 20 runs each\n"
    )
    print("| runs | to find it: median (10 to 90 %) of 20 comparisons | to exclude it |\n|---|---|---|")
    for each in (5, 20):
        design, generator = Design(seeds=each), np.random.default_rng(seed)
        labels = np.array(design.labels)
        needed = [seeds_needed(medians(design, generator), labels, (0,) * len(labels), 1.0) for _ in range(20)]
        found = [[of.find or 999 for of in needed], [of.exclude or 999 for of in needed]]
        shown = [f"{np.median(of):.0f} ({np.quantile(of, 0.1):.0f} to {np.quantile(of, 0.9):.0f})" for of in found]
        print(f"| {each}, {each} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--tables", nargs="+", default=["null", "power", "exclusion", "thinned", "seeds"])
    options = parser.parse_args()
    started = time.perf_counter()
    print(describe_machine(), flush=True)
    tables = {
        "null": lambda: null_table(options.times, 1000 * options.seed),
        "power": lambda: power_table(options.times, 1000 * options.seed + 200),
        "exclusion": lambda: exclusion_table(10 * options.times, 1000 * options.seed + 300),
        "thinned": lambda: thinned_table(options.times, 1000 * options.seed + 500),
        "seeds": lambda: seeds_table(1000 * options.seed + 400),
    }
    for name in options.tables:
        tables[name]()
    print(f"\nseed {options.seed}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
