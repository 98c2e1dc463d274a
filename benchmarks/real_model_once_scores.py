"""Which pair measures deserve to be on: tests in the manner of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531).

- layers: of three layers in order of depth the nearer two are the more alike, from either end. Rate of conforming
  triples, and the rank correlation of unlikeness with distance in depth, mean over the layer that is looked from.
  Equally unlike layers count half. Blocks of 128 prompts; the embedding is left out.
- changed words (augmentation): 96 requests in which 0, 25, 50, 75 or 100 % of the words are swapped with the next,
  misspelt or split; five draws of each. Does unlikeness to the plain requests grow with the share? And as in ReSi, are
  draws of one share more alike than draws of different shares? There models are trained on such texts; here one model
  reads them, so that two draws of a large share have little reason to be alike, and the first question is the one that
  has an answer.
- tuned: 75 short fine-tunings with LoRA that answer whether a request is of one data set or the other, by one word. In
  `label` 0 to 100 % of the answers are drawn at random; in `shortcut` 0 to 100 % of the requests begin with a word that
  says the answer, the others with one of the two at random; `noisy` is `shortcut` with half of the answers drawn at
  random, so that the word says more than the request. Five seeds each: drawn answers and words, order of the rows,
  adapter. Every model is read with held-out requests; in `shortcut` and `noisy` these begin with a random word, the
  same for all. Are models of one condition more alike than models of different ones?

AUPRC: for every condition, pairs within it against pairs of it with others, by similarity; mean over conditions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from real_model_once_pairs import kept_matrices, unlikeness

if TYPE_CHECKING:
    from real_model_once_data import Kept

SHARES = (0, 25, 50, 75, 100)
SEEDS = 5
PERMUTED = 999  # labellings
KINDS = ("label", "shortcut", "noisy")
READ = (10, 20, 30)  # layers of which clouds are compared
FAR = 2.776  # 97.5 % of Student's t with 4 degrees of freedom: of five seeds


def conforming(unlike: np.ndarray) -> float:
    """Share of triples in which the nearer layer is less unlike than the farther one, from both ends; equal: half."""
    kept, all_of_them = 0.0, 0
    for source in range(len(unlike)):
        for way in (range(source + 1, len(unlike)), range(source - 1, -1, -1)):
            values = unlike[source, list(way)]
            for near, far in combinations(values[~np.isnan(values)], 2):
                kept, all_of_them = kept + (near < far) + 0.5 * (near == far), all_of_them + 1
    return kept / all_of_them if all_of_them else float("nan")


def depth_correlation(unlike: np.ndarray) -> float:
    """Mean over layers and both directions of Spearman's correlation of unlikeness with distance; all equal: 0."""
    from scipy.stats import spearmanr

    found = []
    for source in range(len(unlike)):
        for way in (range(source + 1, len(unlike)), range(source - 1, -1, -1)):
            values = unlike[source, list(way)]
            known = ~np.isnan(values)
            if known.sum() > 2:
                told = np.ptp(values[known]) > 0
                found.append(spearmanr(values[known], np.arange(len(values))[known]).statistic if told else 0.0)
    return float(np.mean(found)) if found else float("nan")


def auprc(unlike: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Of every labelling [labellings, members], the area under the curve of precision against recall.

    For every condition, its pairs by similarity, those within it against those with others; mean over conditions.
    Equal scores enter together. NaN where a condition has no pair of either kind with a number.
    """
    rows, columns = np.triu_indices(len(unlike), 1)
    both = np.stack([unlike[rows, columns], unlike[columns, rows]])
    known = ~np.isnan(both)
    counted = known.any(axis=0)
    values = np.where(known, both, 0).sum(axis=0)[counted] / known.sum(axis=0)[counted]
    order = np.argsort(values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1) if len(values) else np.array([], int)
    one, other = (conditions[:, places[counted][order]] for places in (rows, columns))
    found = np.zeros(len(conditions))
    names = np.unique(conditions)
    for name in names:
        mine = np.cumsum((one == name) | (other == name), axis=1)[:, ends]
        within = np.cumsum((one == name) & (other == name), axis=1)[:, ends]
        if not len(ends) or (within[:, -1] == 0).any() or (within[:, -1] == mine[:, -1]).any():
            return np.full(len(conditions), np.nan)
        steps = np.diff(within, axis=1, prepend=0)
        found += (steps * within / np.maximum(mine, 1)).sum(axis=1) / within[:, -1]
    return found / len(names)


def _ordered(unlike: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """Of unlikeness to the plain texts: rank correlation with the share, rate of pairs in its order; equal: half."""
    from scipy.stats import spearmanr

    known = ~np.isnan(unlike)
    values, given = unlike[known], shares[known]
    pairs = [
        (values[one] < values[other]) + 0.5 * (values[one] == values[other])
        for one in range(len(values))
        for other in range(len(values))
        if given[one] < given[other]
    ]
    if len(values) < 4 or np.ptp(values) == 0:
        return float("nan"), float("nan")
    return float(spearmanr(values, given).statistic), float(np.mean(pairs))


def _augmented(unlike: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, list[list[float]]]:
    """Number -> rank correlation, rate and AUPRC, means over layers, each with its jackknife error over draws."""
    shares = np.array([share for share in SHARES for _ in range(SEEDS if share else 1)])
    draw_of = np.array([seed for share in SHARES for seed in (range(SEEDS) if share else (-1,))])
    found = {}
    for number in next(iter(unlike.values())):
        of_rest = []
        for left_out in (None, *range(SEEDS)):
            rest = np.flatnonzero(draw_of != left_out)
            squares = [of_layer[number][np.ix_(rest, rest)] for of_layer in unlike.values()]
            of_rest.append(np.mean([
                [*_ordered(square[0], shares[rest]), float(auprc(square[1:, 1:], shares[None, rest[1:]])[0])]
                for square in squares
            ], axis=0))  # fmt: skip
        found[number] = np.stack([of_rest[0], jackknife_error(np.array(of_rest[1:]))], axis=1).tolist()
    return found


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """The standard error, of what is found with one unit of the first axis left out."""
    error: np.ndarray = np.sqrt((len(left_out) - 1) * left_out.var(axis=0))
    return error


def _fine_tunings(unlike: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """AUPRC of each layer, their mean, its p among conditions permuted within seeds, and its difference from CKA's.

    Runs of one seed begin with one adapter. The corrected p is the share of labellings, the real one included, in
    which the largest AUPRC of all numbers reaches this one's. The interval of a difference is the jackknife over seeds;
    its p, of both signs, is among the same labellings: what two numbers differ by where neither tells anything.
    """
    generator = np.random.default_rng(0)
    labellings = [np.repeat(SHARES, SEEDS)]
    for _ in range(PERMUTED):
        of_seed = [generator.permutation(SHARES) for _ in range(SEEDS)]
        labellings.append(np.stack(of_seed, axis=1).ravel())  # condition by condition, as the runs are
    conditions, seed_of = np.array(labellings), np.tile(np.arange(SEEDS), len(SHARES))
    names = list(next(iter(unlike.values())))
    scores = {
        layer: np.array([auprc(of_layer[name], conditions) for name in names]) for layer, of_layer in unlike.items()
    }
    rests = [np.flatnonzero(seed_of != seed) for seed in range(SEEDS)]
    without = np.array([
        np.mean([
            [float(auprc(of_layer[name][np.ix_(rest, rest)], conditions[:1, rest])[0]) for name in names]
            for of_layer in unlike.values()
        ], axis=0)
        for rest in rests
    ])  # fmt: skip
    means = np.mean(list(scores.values()), axis=0)
    real, largest = means[:, :1] - 1e-12, np.fmax.reduce(means)
    cka = names.index("cka")
    apart, apart_without = means - means[cka], without - without[:, [cka]]
    spread = jackknife_error(apart_without)
    columns = {
        "score": means[:, 0], "error": jackknife_error(without),
        "p": np.where(np.isnan(real), np.nan, means >= real).mean(axis=1),
        "corrected_p": np.where(np.isnan(real), np.nan, largest >= real).mean(axis=1),
        "above_cka": apart[:, 0], "above_cka_low": apart[:, 0] - FAR * spread,
        "above_cka_high": apart[:, 0] + FAR * spread,
        "above_cka_p": (np.abs(apart) >= np.abs(apart[:, :1]) - 1e-12).mean(axis=1),
        **{str(layer): found[:, 0] for layer, found in scores.items()},
    }  # fmt: skip
    return {title: dict(zip(names, values.tolist(), strict=True)) for title, values in columns.items()}


def score(kept: Kept, given: argparse.Namespace) -> None:
    """All scores, from the matrices that are kept alone."""
    unlike = {
        name: {number: unlikeness(number, values) for number, values in found.items()}
        for name, found in kept_matrices().items()
    }
    part = kept.part("scores")
    part.clear()
    for name, found in unlike.items():
        if name.startswith("layers"):
            part.setdefault("layers", {})[name.removeprefix("layers ")] = {
                number: [conforming(values), depth_correlation(values)] for number, values in found.items()
            }
    if all(f"augmented {layer}" in unlike for layer in READ):
        part["augmented"] = _augmented({layer: unlike[f"augmented {layer}"] for layer in READ})
    for kind in KINDS:
        if all(f"{kind} {layer}" in unlike for layer in READ):
            part[kind] = _fine_tunings({layer: unlike[f"{kind} {layer}"] for layer in READ})
    kept.save()


def chance(groups: int, members: int) -> float:
    """The AUPRC of random similarities, mean of 200 draws."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(groups), members)
    return float(np.mean([auprc(generator.random((len(labels),) * 2), labels[None]) for _ in range(200)]))
