"""Is a run different from its twin, and from quiet runs? Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Effect:
    """A paired difference over seeds: its mean with the 95 % t interval, Hedges' g of the differences, the exact
    two-sided p-value over all signs (at best 2 / 2^seeds)."""

    mean: float
    low: float
    high: float
    g: float
    p_value: float
    seeds: int


def paired_effect(differences: np.ndarray) -> Effect:
    """The effect of differences [seeds], at least two of them and not all equal."""
    n = len(differences)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * spread / np.sqrt(n)
    signs = np.array(list(product((1, -1), repeat=n)))
    p_value = float(np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12))
    correction = 1 - 3 / (4 * (n - 1) - 1)
    return Effect(mean, mean - half, mean + half, correction * mean / spread if spread else np.nan, p_value, n)


def standardise(values: np.ndarray) -> np.ndarray:
    """Values [members, samples] less the median of the members, over their robust spread, by sample.

    The spread is 1.4826 MAD, or the standard deviation where more than half of the members are equal.
    """
    deviation = values - np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(deviation), axis=0)
    spread = np.where(spread > 0, spread, values.std(axis=0))
    return deviation / np.where(spread > 0, spread, 1.0)


@dataclass(frozen=True)
class Detection:
    """Whether a run stands out from quiet ones.

    Attributes:
        p_value: share of all members whose largest deviation is at least that of the run, itself among them; valid
            where the run is one more quiet run.
        sample: the first sample at which it deviates by more than 95 % of the quiet runs ever do; None if never.
        deviation: of the run at every sample, in robust standard deviations.
    """

    p_value: float
    sample: int | None
    deviation: np.ndarray


def detect(run: np.ndarray, quiet: np.ndarray, level: float = 0.05) -> Detection:
    """Compare a run [samples] with quiet runs [runs, samples], by the largest deviation over samples, both sides."""
    deviation = standardise(np.concatenate([run[None], quiet]))
    largest = np.abs(deviation).max(axis=1)
    p_value = float(np.mean(largest >= largest[0]))
    allowed = int(level * (len(quiet) + 1) + 1e-9)  # members that may reach the threshold, the run among them
    if allowed < 1:
        return Detection(p_value, None, deviation[0])
    threshold = np.sort(largest[1:])[-allowed]
    above = np.flatnonzero(np.abs(deviation[0]) > threshold)
    return Detection(p_value, int(above[0]) if above.size else None, deviation[0])


def predicted_share(features: np.ndarray, target: np.ndarray, ridge: float = 1.0) -> float:
    """Share of the variance of a target [runs] that ridge regression on features [runs, features] predicts for a run
    left out, 1 - PRESS / TSS with the mean of the others as reference; below 0 where it predicts worse than that."""
    errors, reference = np.empty(len(target)), np.empty(len(target))
    for left_out in range(len(target)):
        kept = np.arange(len(target)) != left_out
        middle, scale = features[kept].mean(axis=0), features[kept].std(axis=0)
        scaled = (features - middle) / np.where(scale > 0, scale, 1.0)
        base = target[kept].mean()
        gram = scaled[kept].T @ scaled[kept] + ridge * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, scaled[kept].T @ (target[kept] - base))
        errors[left_out] = target[left_out] - base - scaled[left_out] @ weights
        reference[left_out] = target[left_out] - base
    return float(1 - (errors @ errors) / (reference @ reference))
