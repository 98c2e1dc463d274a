"""Comparison: everything that is computed from several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from topo_callback.comparison.alignment import Alignment, align
from topo_callback.comparison.effects import (
    Difference,
    EffectSizes,
    RunMap,
    curve_distances,
    difference,
    effect_sizes,
    energy_distance,
    joint_distances,
    paired_order,
    run_map,
    run_means,
)
from topo_callback.comparison.fingerprints import Fingerprints, compare_fingerprints
from topo_callback.comparison.labelings import MOST_LABELINGS, Labelings, blocks_of, labelings
from topo_callback.comparison.own_spread import LEVEL, NOTHING, Levels, levels, own_spread
from topo_callback.comparison.permutation import Curves, ObjectiveTest, permutation_test
from topo_callback.comparison.runs import Run
from topo_callback.comparison.seeds import seeds_needed
from topo_callback.comparison.units import check_enough, in_units, with_units
from topo_callback.comparison.verdict import ComparisonVerdict, decide
from topo_callback.errors import ConfigurationError

SEEDS_FOR_PAIRS = 4
Key = tuple[str, int | None]


@dataclass(frozen=True)
class PairEffects:
    """Two objectives in one measure and layer (None: median over layers).

    Attributes:
        mean: effect sizes of each run's mean over the points.
        last: effect sizes of each run's number at its last point.
        energy_distance: of the curves, in units of the measure.
    """

    mean: EffectSizes
    last: EffectSizes
    energy_distance: float


@dataclass(frozen=True)
class Pair:
    """Two objectives.

    Attributes:
        objectives: their names.
        effects: (measure, layer) -> sizes.
        differences: measure -> difference of the means of the runs, of the medians over layers.
        labelings: of the runs of these two; None where no pairwise claim is made.
        test: over them; None below `SEEDS_FOR_PAIRS` runs in either.
        levels: the largest p-values of that test that are claimed.
        pairs_tested: p-values are multiplied by it before they count (Bonferroni).
    """

    objectives: tuple[str, str]
    effects: Mapping[Key, PairEffects]
    differences: Mapping[str, Difference]
    labelings: Labelings | None
    test: ObjectiveTest | None
    levels: Levels
    pairs_tested: int


@dataclass(frozen=True)
class Control:
    """The same test for objectives that were dealt out by chance.

    Attributes:
        labels: name of the objective that each run was given.
        test: of the medians over layers.
    """

    labels: tuple[str, ...]
    test: ObjectiveTest | None


@dataclass(frozen=True)
class Comparison:
    """Several runs, compared.

    Attributes:
        verdict: the objectives differ, or differ by less than a size, or these runs cannot tell.
        runs: in order of objectives.
        objectives: their names, in the given order.
        alignment: the numbers that were compared.
        labelings: of the global test.
        test: objective against seed; None when no two runs differ in anything.
        levels: the largest p-values of that test that are claimed.
        spread_ratio: how many times as far the runs of the widest objective spread as those of the narrowest; None
            where an objective has one run.
        control: the test of a shuffled objective; None when there is no other labeling.
        pairs: every two objectives.
        distances: (measure, layer) -> [runs, runs].
        joint: all measures (medians over layers) together, without a unit; None when no two runs differ.
        map: of `joint`.
        fingerprints: which runs learned alike; None where no run has a fingerprint.
    """

    verdict: ComparisonVerdict
    runs: tuple[Run, ...]
    objectives: tuple[str, ...]
    alignment: Alignment
    labelings: Labelings
    test: ObjectiveTest | None
    levels: Levels
    spread_ratio: float | None
    control: Control | None
    pairs: tuple[Pair, ...]
    distances: Mapping[Key, Float64[np.ndarray, "runs runs"]]
    joint: Float64[np.ndarray, "runs runs"] | None
    map: RunMap | None
    fingerprints: Fingerprints | None = None


def compare_runs(
    runs: Sequence[Run],
    *,
    axis: str = "step",
    measures: Sequence[str] = (),
    size: float = 1.0,
    units: Mapping[str, str] | None = None,
    most_labelings: int = MOST_LABELINGS,
    seed: int = 0,
) -> Comparison:
    """Compare runs of at least two objectives.

    Args:
        runs: as `load_runs` gives them.
        axis: what they are aligned on: step, progress or clock.
        measures: names or patterns such as `wasserstein_*`; none: every measure. Fewer measures, chosen before looking,
            leave more power to each.
        size: the difference that is asked about, in spreads between the seeds of one objective.
        units: run -> what it shares with other runs, as of `with_units`. The runs of an objective in a unit then count
            as one, and a unit of several objectives as a block; seeds do not count.
        most_labelings: where there are more, so many are drawn.
        seed: of that draw, of the shuffled control and of the bootstrap; training seeds are not touched.

    Returns:
        Deterministic for equal arguments.

    Raises:
        ConfigurationError: runs that cannot be aligned, no measure to compare, a size that is not above 0, runs without
            a unit where there are units, or too few units.
    """
    if not (size > 0 and np.isfinite(size)):
        raise ConfigurationError(f"size {size!r} is not a number of spreads above 0, such as 1")
    if units is not None:
        runs = with_units(runs, units)
    alignment = align(runs, axis)
    if units is not None:
        runs, alignment = in_units(runs, alignment)
    curves = _chosen(alignment, measures)
    objectives = tuple(dict.fromkeys(run.objective for run in runs))
    labels = [objectives.index(run.objective) for run in runs]
    ways = labelings(labels, blocks_of([run.block for run in runs]), most=most_labelings, seed=seed)
    if units is not None:
        check_enough(runs, ways, LEVEL)
    test = permutation_test(curves, ways)
    allowed = NOTHING if test is None else levels(curves, ways, seed=seed)
    distances = {
        (measure, layer): matrix
        for measure, by_layer in curves.items()
        for layer, values in by_layer.items()
        if (matrix := curve_distances(values)) is not None
    }
    joint = joint_distances(matrix for (_, layer), matrix in distances.items() if layer is None)
    pairs = _pairs(runs, objectives, curves, distances, (ways, test, allowed), most_labelings, seed)
    spread = own_spread(_medians(curves), ways.labels[0], ways.blocks)
    ratio = None if spread is None else spread.spread_ratio()
    sizes = {name: labels.count(number) for number, name in enumerate(objectives)}
    needed = seeds_needed(curves, ways.labels[0], ways.blocks, size, seed=seed)
    return Comparison(
        verdict=decide(test, allowed, ways, [pair.differences for pair in pairs], needed, sizes, ratio, size),
        runs=tuple(runs),
        objectives=objectives,
        alignment=alignment,
        labelings=ways,
        test=test,
        levels=allowed,
        spread_ratio=ratio,
        control=_control(curves, ways, objectives, seed),
        pairs=pairs,
        distances=distances,
        joint=joint,
        map=run_map(joint) if joint is not None else None,
        fingerprints=compare_fingerprints(runs, most_labelings=most_labelings, seed=seed),
    )


def _chosen(alignment: Alignment, patterns: Sequence[str]) -> Curves:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in alignment.values):
            why = [f"{name}: {reason}" for name, reason in alignment.left_out.items() if fnmatchcase(name, pattern)]
            raise ConfigurationError(
                f"no measure {pattern!r} to compare; "
                + ("; ".join(why) if why else f"these runs have {', '.join(alignment.values) or 'none'}")
            )
    if not alignment.values:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(alignment.left_out.items())[:3])
        raise ConfigurationError(f"these runs have no measure in common at any point ({reasons or 'no numbers'})")
    return {
        name: by_layer
        for name, by_layer in alignment.values.items()
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _medians(curves: Curves) -> Curves:
    return {measure: {None: by_layer[None]} for measure, by_layer in curves.items()}


def _control(curves: Curves, ways: Labelings, objectives: Sequence[str], seed: int) -> Control | None:
    if len(ways.labels) == 1:
        return None
    drawn = int(np.random.default_rng(seed).integers(1, len(ways.labels)))
    order = [drawn, *(row for row in range(len(ways.labels)) if row != drawn)]
    shuffled = Labelings(ways.labels[order], ways.blocks, ways.possible, ways.exact)
    names = tuple(objectives[label] for label in ways.labels[drawn])
    return Control(names, permutation_test(_medians(curves), shuffled))


def _pairs(
    runs: Sequence[Run],
    objectives: Sequence[str],
    curves: Curves,
    distances: Mapping[Key, Float64[np.ndarray, "runs runs"]],
    of_all: tuple[Labelings, ObjectiveTest | None, Levels],
    most: int,
    seed: int,
) -> tuple[Pair, ...]:
    members = {name: [row for row, run in enumerate(runs) if run.objective == name] for name in objectives}
    testable = [
        pair for pair in combinations(objectives, 2) if min(len(members[name]) for name in pair) >= SEEDS_FOR_PAIRS
    ]
    found = []
    for pair in combinations(objectives, 2):
        first, second = (members[name] for name in pair)
        pair_ways, pair_test, pair_levels = None, None, NOTHING
        if pair in testable and len(objectives) == 2:
            pair_ways, pair_test, pair_levels = of_all
        elif pair in testable:
            rows = [*first, *second]
            blocks = blocks_of([runs[row].block for row in rows])
            pair_ways = labelings([0] * len(first) + [1] * len(second), blocks, most=most, seed=seed)
            within = {name: {layer: v[rows] for layer, v in by_layer.items()} for name, by_layer in curves.items()}
            pair_test = permutation_test(within, pair_ways)
            pair_levels = levels(within, pair_ways, comparisons=len(testable), seed=seed)
        effects = _effects(runs, first, second, curves, distances, seed)
        apart = _differences(runs, first, second, curves, math.comb(len(objectives), 2))
        found.append(Pair((pair[0], pair[1]), effects, apart, pair_ways, pair_test, pair_levels, len(testable)))
    return tuple(found)


def _effects(
    runs: Sequence[Run],
    first: list[int],
    second: list[int],
    curves: Curves,
    distances: Mapping[Key, Float64[np.ndarray, "runs runs"]],
    seed: int,
) -> dict[Key, PairEffects]:
    second, paired = _paired(runs, first, second)
    found = {}
    for measure, layer in distances:
        values = curves[measure][layer]
        numbers = values[:, ~np.isnan(values).any(axis=0)]
        mean, last = (
            # intervals for the medians over layers only: those of single layers are many, and nobody's claim
            effect_sizes(summary[first], summary[second], paired=paired, intervals=layer is None, seed=seed)
            for summary in (numbers.mean(axis=1), numbers[:, -1])
        )
        found[measure, layer] = PairEffects(mean, last, energy_distance(distances[measure, layer], first, second))
    return found


def _paired(runs: Sequence[Run], first: list[int], second: list[int]) -> tuple[list[int], bool]:
    """The rows of the second objective in the order of the first one's seeds, and whether they share all of them."""
    order = paired_order(*([runs[row].block for row in rows] for rows in (first, second)))
    return (second, False) if order is None else ([second[at] for at in order], True)


def _differences(
    runs: Sequence[Run], first: list[int], second: list[int], curves: Curves, pairs: int
) -> dict[str, Difference]:
    second, paired = _paired(runs, first, second)
    means = {measure: run_means(by_layer[None]) for measure, by_layer in curves.items()}
    varying = {measure: of for measure, of in means.items() if np.isfinite(of).all() and np.ptp(of) > 0}
    return {
        measure: difference(of[first], of[second], paired=paired, comparisons=pairs * len(varying))
        for measure, of in varying.items()
    }
