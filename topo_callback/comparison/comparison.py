"""Comparison: everything that is computed from several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from topo_callback.comparison.alignment import Alignment, align
from topo_callback.comparison.effects import (
    EffectSizes,
    RunMap,
    curve_distances,
    effect_sizes,
    energy_distance,
    joint_distances,
    run_map,
)
from topo_callback.comparison.labelings import MOST_LABELINGS, Labelings, blocks_of, labelings
from topo_callback.comparison.permutation import Curves, ObjectiveTest, permutation_test
from topo_callback.comparison.runs import Run
from topo_callback.errors import ConfigurationError

SEEDS_FOR_PAIRS = 4
LEVEL = 0.05
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
        labelings: of the runs of these two; None where no pairwise claim is made.
        test: over them; None below `SEEDS_FOR_PAIRS` runs in either.
        pairs_tested: p-values are multiplied by it before they count (Bonferroni).
    """

    objectives: tuple[str, str]
    effects: Mapping[Key, PairEffects]
    labelings: Labelings | None
    test: ObjectiveTest | None
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
        runs: in order of objectives.
        objectives: their names, in the given order.
        alignment: the numbers that were compared.
        labelings: of the global test.
        test: objective against seed; None when no two runs differ in anything.
        control: the test of a shuffled objective; None when there is no other labeling.
        pairs: every two objectives.
        distances: (measure, layer) -> [runs, runs].
        joint: all measures (medians over layers) together, without a unit; None when no two runs differ.
        map: of `joint`.
    """

    runs: tuple[Run, ...]
    objectives: tuple[str, ...]
    alignment: Alignment
    labelings: Labelings
    test: ObjectiveTest | None
    control: Control | None
    pairs: tuple[Pair, ...]
    distances: Mapping[Key, Float64[np.ndarray, "runs runs"]]
    joint: Float64[np.ndarray, "runs runs"] | None
    map: RunMap | None


def compare_runs(
    runs: Sequence[Run],
    *,
    axis: str = "step",
    measures: Sequence[str] = (),
    most_labelings: int = MOST_LABELINGS,
    seed: int = 0,
) -> Comparison:
    """Compare runs of at least two objectives.

    Args:
        runs: as `load_runs` gives them.
        axis: what they are aligned on: step, progress or clock.
        measures: names or patterns such as `wasserstein_*`; none: every measure. Fewer measures, chosen before looking,
            leave more power to each.
        most_labelings: where there are more, so many are drawn.
        seed: of that draw, of the shuffled control and of the bootstrap; training seeds are not touched.

    Returns:
        Deterministic for equal arguments.

    Raises:
        ConfigurationError: runs that cannot be aligned, or no measure to compare.
    """
    alignment = align(runs, axis)
    curves = _chosen(alignment, measures)
    objectives = tuple(dict.fromkeys(run.objective for run in runs))
    labels = [objectives.index(run.objective) for run in runs]
    ways = labelings(labels, blocks_of([run.seed for run in runs]), most=most_labelings, seed=seed)
    test = permutation_test(curves, ways)
    distances = {
        (measure, layer): matrix
        for measure, by_layer in curves.items()
        for layer, values in by_layer.items()
        if (matrix := curve_distances(values)) is not None
    }
    joint = joint_distances(matrix for (_, layer), matrix in distances.items() if layer is None)
    return Comparison(
        runs=tuple(runs),
        objectives=objectives,
        alignment=alignment,
        labelings=ways,
        test=test,
        control=_control(curves, ways, objectives, seed),
        pairs=_pairs(runs, objectives, curves, distances, ways, test, most_labelings, seed),
        distances=distances,
        joint=joint,
        map=run_map(joint) if joint is not None else None,
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
    ways: Labelings,
    test: ObjectiveTest | None,
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
        pair_ways, pair_test = None, None
        if pair in testable and len(objectives) == 2:
            pair_ways, pair_test = ways, test
        elif pair in testable:
            rows = [*first, *second]
            blocks = blocks_of([runs[row].seed for row in rows])
            pair_ways = labelings([0] * len(first) + [1] * len(second), blocks, most=most, seed=seed)
            within = {name: {layer: v[rows] for layer, v in by_layer.items()} for name, by_layer in curves.items()}
            pair_test = permutation_test(within, pair_ways)
        effects = _effects(runs, first, second, curves, distances, seed)
        found.append(Pair((pair[0], pair[1]), effects, pair_ways, pair_test, len(testable)))
    return tuple(found)


def _effects(
    runs: Sequence[Run],
    first: list[int],
    second: list[int],
    curves: Curves,
    distances: Mapping[Key, Float64[np.ndarray, "runs runs"]],
    seed: int,
) -> dict[Key, PairEffects]:
    seeds = [[runs[row].seed for row in rows] for rows in (first, second)]
    paired = None not in seeds[0] and set(seeds[0]) == set(seeds[1]) and len(seeds[0]) == len(seeds[1])
    if paired:
        second = [second[seeds[1].index(one)] for one in seeds[0]]
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
