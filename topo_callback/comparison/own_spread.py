"""Levels: how small a p-value must be where objectives have unequal spreads.

A permutation test is exact where runs are exchangeable. Where the objectives have one mean but spread unequally it is
not: three noisy against nine calm runs are told apart in 57 to 76 % of the cases with R2, in one of seven with
the studentised statistic. So the test is tried on runs that differ in their spread only: drawn as Gaussian combinations
of the runs' residuals, each objective with its own spread. The level of a family of claims is the p-value that few
enough of these draws reach (prepivoting: Beran, 1987). Where the spreads are equal that is about the nominal level,
whatever the measures' correlations, because the draws are then exchangeable too.

Residuals of few runs make independent measures look correlated, and fewer independent ones need less correction. The
part of every draw that its measures share is therefore that of the unbiased cross-products (adjusted RV coefficient:
Mayer, Lorent and Horgan, 2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Float64, Int64

from topo_callback.comparison.explained import joined, share_of_curves, share_of_points
from topo_callback.comparison.labelings import Labelings
from topo_callback.comparison.permutation import ROUNDING, Curves, block_residuals

LEVEL = 0.05
# the share of the draws that may claim: less than LEVEL where spreads differ, since draws are not skewed and runs are
_DRAWN_LEVEL_UNEQUAL = 0.04
# still less where the widest objective is the one with the fewest runs, and has fewer than five
_DRAWN_LEVEL_FEW = 0.02
_FEW = 5
_UNEQUAL = 2.0
DRAWS = 400
# a p-value near 5 % needs no more
_LABELINGS = 250
_CHUNK_BYTES = 1 << 24

Key = tuple[str, int | None]


@dataclass(frozen=True)
class Levels:
    """The largest p-value of each family that is claimed; 0 where none is.

    Attributes:
        together: of all measures together.
        measures: of a measure, corrected for all.
        layers: of a measure in a layer, corrected for all.
        steps: of a measure at a point, corrected for all.
        together_steps: of all measures together at a point, corrected for all points.
    """

    together: float = LEVEL
    measures: float = LEVEL
    layers: float = LEVEL
    steps: float = LEVEL
    together_steps: float = LEVEL


NOTHING = Levels(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class OwnSpread:
    """What runs are drawn from: residuals of unit spread, and the spread of every run's objective.

    Attributes:
        residuals: (measure, layer) -> [runs, points]; a draw is a Gaussian combination of the rows.
        scales: (measure, layer) -> the spread of each run's objective, 1 where all are equal.
        shared: the part of a draw's variance that all measures have in common, 0 to 1.
    """

    residuals: dict[Key, Float64[np.ndarray, "runs points"]]
    scales: dict[Key, Float64[np.ndarray, " runs"]]
    shared: float

    def spread_ratio(self) -> float:
        """How many times as far the runs of the widest objective spread as those of the narrowest, in all measures."""
        medians = [np.log(scale) for (_, layer), scale in self.scales.items() if layer is None and (scale > 0).all()]
        mean = np.mean(medians, axis=0) if medians else np.zeros(1)
        return float(np.exp(mean.max() - mean.min()))


def own_spread(curves: Curves, labels: Int64[np.ndarray, " runs"], blocks: tuple[int, ...]) -> OwnSpread | None:
    """Every objective's spread, about its own mean and those of the blocks; None where some objective shows none."""
    groups = [labels == objective for objective in np.unique(labels)]
    freedom = len(labels) - len(groups) - (len(set(blocks)) - 1)
    if freedom < 1 or min(int(group.sum()) for group in groups) < 2:
        return None
    residuals: dict[Key, np.ndarray] = {}
    scales: dict[Key, np.ndarray] = {}
    for measure, by_layer in curves.items():
        for layer, values in by_layer.items():
            left = block_residuals(values, blocks)
            if not left.any():
                continue
            scale = np.zeros(len(labels))
            for group in groups:
                left[group] -= left[group].mean(axis=0)
                scale[group] = np.sqrt((left[group] ** 2).sum() / (group.sum() - 1))
            if not scale.any():
                continue
            left /= np.where(scale > 0, scale, 1.0)[:, None]
            residuals[measure, layer] = left / np.sqrt(freedom)
            scales[measure, layer] = scale
    medians = [values for (_, layer), values in residuals.items() if layer is None]
    return OwnSpread(residuals, scales, _shared(medians, freedom)) if medians else None


def _shared(residuals: list[Float64[np.ndarray, "runs points"]], freedom: int) -> float:
    """The root of the unbiased share of the squared cross-products between measures."""
    if len(residuals) < 2 or freedom < 2:
        return 1.0
    products = np.stack([each @ each.T for each in residuals])
    crossed = np.einsum("aij,bij->ab", products, products)
    traces = np.trace(products, axis1=1, axis2=2)
    correction = freedom**2 / ((freedom - 1) * (freedom + 2))
    unbiased = correction * (crossed - np.outer(traces, traces) / freedom)
    between = ~np.eye(len(traces), dtype=bool)
    return float(np.sqrt(np.clip(unbiased[between].sum() / crossed[between].sum(), 0.0, 1.0)))


def levels(curves: Curves, labelings: Labelings, *, comparisons: int = 1, seed: int = 0, draws: int = DRAWS) -> Levels:
    """The level of each family at which no more than `LEVEL` of runs with these spreads are claimed.

    Args:
        curves: as for `permutation_test`.
        labelings: of the same test.
        comparisons: how many such tests share `LEVEL` (Bonferroni); the levels are for p-values multiplied by it.
        seed: of the draws.
        draws: how many.

    Returns:
        Deterministic; `NOTHING` where an objective has one run and so no spread of its own.
    """
    spread = own_spread(curves, labelings.labels[0], labelings.blocks)
    if spread is None:
        return NOTHING
    unequal = min(1.0, np.log(spread.spread_ratio()) / np.log(_UNEQUAL))
    few = _widest_is_few(spread, labelings.labels[0])
    allowed = LEVEL - unequal * (LEVEL - (_DRAWN_LEVEL_FEW if few else _DRAWN_LEVEL_UNEQUAL))
    labels = labelings.labels[:_LABELINGS]
    if len(labels) < len(labelings.labels):
        others = np.random.default_rng(seed).choice(len(labelings.labels) - 1, _LABELINGS - 1, replace=False) + 1
        labels = labelings.labels[[0, *sorted(others)]]
    # with fewer draws no level would be small enough for so many comparisons
    draws = max(draws, int(np.ceil(2 * comparisons / allowed)))
    smallest = _smallest_p(spread, labels, labelings.blocks, draws, seed)
    return Levels(*(_level(column, allowed, comparisons, 1 / len(labels)) for column in smallest.T))


def _widest_is_few(spread: OwnSpread, labels: Int64[np.ndarray, " runs"]) -> bool:
    """Whether the objective that spreads the most has fewer runs than others, and few."""
    sizes = np.bincount(labels)[labels]
    scale = np.mean(
        [np.log(np.maximum(of, 1e-300)) for (_, layer), of in spread.scales.items() if layer is None], axis=0
    )
    fewest = int(sizes[int(np.argmax(scale))])
    return fewest < _FEW and fewest < int(sizes.max())


def _level(smallest: Float64[np.ndarray, " draws"], allowed: float, comparisons: int, least: float) -> float:
    """The largest p-value up to `LEVEL` that at most this share of the draws reaches; 0 where more reach the least.

    Args:
        least: p-value that a draw can have, below which nothing is known of the draws.
    """
    ordered = np.sort(smallest)
    most = int(allowed / comparisons * (len(ordered) + 1)) - 1  # the runs themselves count as one draw
    if most < 0 or ordered[most] <= least * (1 + 1e-9):
        return 0.0
    return float(min(LEVEL, comparisons * np.nextafter(ordered[most], 0.0)))


def _smallest_p(
    spread: OwnSpread, labels: np.ndarray, blocks: tuple[int, ...], draws: int, seed: int
) -> Float64[np.ndarray, "draws families"]:
    generator = np.random.default_rng(seed)
    points = sum(values.shape[1] for (_, layer), values in spread.residuals.items() if layer is None)
    numbers = max(points, len(spread.residuals))
    size = max(1, _CHUNK_BYTES // (8 * numbers * len(labels)))
    found = []
    for start in range(0, draws, size):
        drawn = dict(_drawn(spread, blocks, min(size, draws - start), generator))
        found.append(_families(drawn, labels))
    return np.concatenate(found)


def _drawn(
    spread: OwnSpread, blocks: tuple[int, ...], draws: int, generator: np.random.Generator
) -> Iterator[tuple[Key, Float32[np.ndarray, "draws runs points"]]]:
    """Runs that differ in their spread only, without the means of the blocks."""
    runs = len(blocks)
    # float32: whether a draw is claimed does not hang on the eighth digit
    common = generator.standard_normal((draws, runs, runs), dtype=np.float32)
    own: dict[str, np.ndarray] = {}
    of = np.array(blocks)
    for (measure, layer), residuals in spread.residuals.items():
        if measure not in own:
            alone = generator.standard_normal((draws, runs, runs), dtype=np.float32)
            own[measure] = np.float32(spread.shared**0.5) * common + np.float32((1.0 - spread.shared) ** 0.5) * alone
        scale = (spread.scales[measure, layer] / spread.scales[measure, layer].max()).astype(np.float32)
        values = scale[:, None] * (own[measure] @ residuals.astype(np.float32))
        for block in set(blocks):
            values[:, of == block] -= values[:, of == block].mean(axis=1, keepdims=True)
        yield (measure, layer), values


def _families(drawn: dict[Key, np.ndarray], labels: np.ndarray) -> Float64[np.ndarray, "draws families"]:
    """The smallest corrected p-value of each family in every draw, in the order of `Levels`."""
    medians = [key for key in drawn if key[1] is None]
    layers = [key for key in drawn if key[1] is not None]
    by_measure = _curves([drawn[key] for key in medians], labels)
    found = {"together": joined(by_measure), "measures": by_measure.max(axis=-1)}
    found["layers"] = _curves([drawn[key] for key in layers], labels).max(axis=-1) if layers else found["measures"]
    points = np.stack([drawn[key] for key in medians], axis=1)
    total = (points**2).sum(axis=2, keepdims=True)
    scaled = points / np.sqrt(np.where(total > 0, total, 1.0))
    shares = share_of_points(scaled.reshape(-1, *scaled.shape[2:]), labels)
    shares = shares.reshape(len(labels), *scaled.shape[:2], -1)
    found["steps"] = shares.max(axis=(2, 3))
    found["together_steps"] = joined(np.moveaxis(shares, 2, 3)).max(axis=2)
    return np.stack([_p(found[field.name]) for field in fields(Levels)], axis=1)


def _curves(drawn: list[np.ndarray], labels: np.ndarray) -> Float32[np.ndarray, "labelings draws curves"]:
    products = np.stack([values @ values.transpose(0, 2, 1) for values in drawn], axis=1)
    products /= np.trace(products, axis1=2, axis2=3)[:, :, None, None]
    shares = share_of_curves(products.reshape(-1, *products.shape[2:]), labels)
    return shares.reshape(len(labels), len(products), len(drawn))


def _p(statistics: Float32[np.ndarray, "labelings draws"]) -> Float64[np.ndarray, " draws"]:
    found: np.ndarray = (statistics >= statistics[0] - ROUNDING).mean(axis=0)
    return found
