"""How many seeds of each objective are needed to find a difference of a given size, and to exclude it.

Runs are drawn as `own_spread` draws them, from the residuals of the runs there are: their spreads, their correlation
between points and between measures. A difference is of the same number of spreads between seeds in all measures and at
all points, which is the case that is found most easily. Each answer is that of 4 in 5 comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import t as student

from topo_callback.comparison.effects import CONFIDENCE, run_means, welch
from topo_callback.comparison.explained import joined
from topo_callback.comparison.labelings import fewest_seeds
from topo_callback.comparison.own_spread import LEVEL, OwnSpread, own_spread
from topo_callback.comparison.permutation import Curves

POWER = 0.8
MOST_SEEDS = 200
_DRAWS = 400


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds of each objective; None where more than `MOST_SEEDS` would be needed, or the runs cannot tell.

    Attributes:
        find: for a difference of the size to be claimed in 4 of 5 comparisons.
        exclude: for it to be excluded in 4 of 5 comparisons where there is no difference.
        claim: the fewest with which any p-value can be small enough.
    """

    find: int | None
    exclude: int | None
    claim: int


def seeds_needed(
    curves: Curves, labels: np.ndarray, blocks: tuple[int, ...], size: float, *, seed: int = 0
) -> SeedsNeeded:
    """The seeds of each objective that are needed.

    Args:
        curves: as for `permutation_test`; the medians over layers are used.
        labels: objective of each run, as numbers.
        blocks: of each run; where all runs are of shared seeds, further seeds are taken to be shared too.
        size: of the difference, in spreads between the seeds of one objective.
        seed: of the draws.
    """
    objectives = len(np.unique(labels))
    claim = fewest_seeds(objectives, shared=0 not in blocks, level=LEVEL)
    medians: Curves = {name: {None: by_layer[None]} for name, by_layer in curves.items()}
    spread = own_spread(medians, labels, blocks)
    if spread is None:
        return SeedsNeeded(None, None, claim)
    planted = _Planted(medians, spread, labels, size)
    find = exclude = None
    for seeds in _candidates():
        finds, excludes = planted.shares(seeds, np.random.default_rng(seed))
        if find is None and seeds >= claim and finds >= POWER:
            find = seeds
        if exclude is None and excludes >= POWER:
            exclude = seeds
        if find is not None and exclude is not None:
            break
    return SeedsNeeded(find, exclude, claim)


def _candidates() -> list[int]:
    found = [2]
    while found[-1] < MOST_SEEDS:
        found.append(min(MOST_SEEDS, max(found[-1] + 1, round(found[-1] * 1.1))))
    return found


class _Planted:
    """Comparisons of so many seeds, drawn without and with the difference."""

    def __init__(self, curves: Curves, spread: OwnSpread, labels: np.ndarray, size: float) -> None:
        first = [int(np.flatnonzero(labels == objective)[0]) for objective in np.unique(labels)]
        groups = [labels == objective for objective in np.unique(labels)]
        keys = list(spread.residuals)
        self.size = size
        self.shared = spread.shared
        self.residuals = np.stack([spread.residuals[key] for key in keys])
        self.scales = np.stack([spread.scales[key][first] for key in keys], axis=1)  # objectives, measures
        products = self.residuals @ self.residuals.transpose(0, 2, 1)
        self.eigenvalues = np.maximum(np.linalg.eigvalsh(products), 0.0)
        means = [run_means(curves[measure][None]) for measure, _ in keys]
        self.units = np.sqrt([np.mean([of[group].var(ddof=1) for group in groups]) for of in means])
        self.counted = np.isfinite(self.residuals).all(axis=1) & np.stack(
            [~np.isnan(curves[measure][None]).any(axis=0) for measure, _ in keys]
        )

    def shares(self, seeds: int, generator: np.random.Generator) -> tuple[float, float]:
        """How many comparisons find the difference, and how many exclude it where there is none."""
        objectives, measures = self.scales.shape
        runs = self.residuals.shape[1]
        common = generator.standard_normal((_DRAWS, objectives, 1, runs))
        alone = generator.standard_normal((_DRAWS, objectives, measures, runs))
        mixed = np.sqrt(self.shared) * common + np.sqrt(1.0 - self.shared) * alone
        means = np.einsum("dgmr,mrp->dgmp", mixed, self.residuals, optimize=True)
        means *= self.scales[None, :, :, None] / np.sqrt(seeds)
        # the variance within a group of runs, by its eigenvalues
        squares = generator.chisquare(seeds - 1, (_DRAWS, objectives, runs)) / (seeds - 1)
        within = np.einsum("dgr,mr->dgm", squares, self.eigenvalues) * self.scales**2
        quiet = self._statistic(means, within, seeds)
        shift = self.size * self.units[:, None] * self.counted
        planted = means.copy()
        planted[:, 0] += shift
        found = self._statistic(planted, within, seeds) > np.quantile(quiet, 1.0 - LEVEL)
        return float(found.mean()), float((self._bound(means, generator, seeds) < self.size).mean())

    @staticmethod
    def _statistic(means: np.ndarray, within: np.ndarray, seeds: int) -> np.ndarray:
        between = seeds * ((means - means.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 3))
        return joined(between / np.maximum(between + (seeds - 1) * within.sum(axis=1), 1e-300))

    def _bound(self, means: np.ndarray, generator: np.random.Generator, seeds: int) -> np.ndarray:
        points = np.maximum(self.counted.sum(axis=1), 1)
        of_runs = (means * self.counted).sum(axis=3) / points
        own = ((self.residuals * self.counted[:, None]).sum(axis=2) / points[:, None]) ** 2
        variances = own.sum(axis=1) * self.scales**2
        drawn = variances * generator.chisquare(seeds - 1, (len(means), *self.scales.shape)) / (seeds - 1)
        largest = np.zeros(len(means))
        for one, other in combinations(range(self.scales.shape[0]), 2):
            error, freedom = welch(drawn[:, [one, other]].transpose(1, 0, 2), np.full((2, 1, 1), seeds))
            bound = np.abs(of_runs[:, one] - of_runs[:, other]) + student.ppf(CONFIDENCE, freedom) * error
            largest = np.maximum(largest, (bound / np.where(self.units > 0, self.units, np.inf)).max(axis=1))
        return largest
