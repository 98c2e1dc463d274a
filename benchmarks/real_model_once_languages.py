"""The tables of twelve languages, pair by pair, for RESULTS_real_model_once.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from real_model_once_data import LANGUAGES, paragraph
from real_model_once_scores import jackknife_error

DIVERGENCES = ("rtd",)
TITLES = {
    "translation_retrieval": "retrieval", "translation_knn": "mutual kNN", "translation_cka": "CKA", "rtd": "RTD",
    "nts_m": "NTS-M", "survival_h1": "survival",
}  # fmt: skip
EQUAL = 1e-6  # six digits are kept, and shares of 50 paragraphs are often equal
FAR = 2.228  # 97.5 % of Student's t with 10 degrees of freedom: of eleven languages


def of_pairs(part: Mapping[str, Any], name: str) -> np.ndarray:
    """float64 [languages, languages, layers], in the order of `LANGUAGES`; NaN on the diagonal."""
    places = {language: place for place, language in enumerate(LANGUAGES)}
    values = {tuple(key.split("|")): np.array(found[name], float) for key, found in part["pairs"].items()}
    table = np.full((len(places), len(places), len(next(iter(values.values())))), np.nan)
    for (one, other), found in values.items():
        table[places[one], places[other]] = table[places[other], places[one]] = found
    return table


def with_english(table: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.nanmean(table[0, 1:], axis=0)
    return found


def of_others(table: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.nanmean(table[1:, 1:], axis=(0, 1))
    return found


def english_less_others(table: np.ndarray) -> np.ndarray:
    found: np.ndarray = with_english(table) - of_others(table)
    return found


def and_error(statistic: Callable[[np.ndarray], np.ndarray], table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A statistic, and its standard error by the jackknife over the languages beside English."""
    return statistic(table), jackknife_error(np.array([statistic(rest) for rest in _without_one(table)]))


def pivot_rank(table: np.ndarray, name: str) -> np.ndarray:
    """Of every layer, 1 where the pairs with English are more alike, in the mean, than those of any other language."""
    means = np.nanmean(table, axis=1) * (-1 if name in DIVERGENCES else 1)
    found: np.ndarray = 1 + (means[1:] > means[0] + EQUAL).sum(axis=0)
    return found


def pivot_ranks(table: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """It, its least and its largest with any other language left out."""
    rests = np.array([pivot_rank(rest, name) for rest in _without_one(table)])
    return pivot_rank(table, name), rests.min(axis=0), rests.max(axis=0)


def permuted(part: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Of both groups of pairs, what rows of the other language in random order give: [draws, layers]."""
    return {group: np.array(found[name], float) for group, found in part["permuted"].items()}


def _without_one(table: np.ndarray) -> Iterator[np.ndarray]:
    for left_out in range(1, len(table)):
        rest = np.delete(np.arange(len(table)), left_out)
        yield table[np.ix_(rest, rest)]


def language_lines(part: Mapping[str, Any]) -> Iterator[str]:
    tokens = ", ".join(f"{name} {count:.0f}" for name, count in part["tokens"].items())
    yield "## Languages"
    yield ""
    yield paragraph(
        f"{part['meanings']} paragraphs of the Universal Declaration of Human Rights in {len(LANGUAGES)} languages, "
        f"last token, at most 128 tokens (median {tokens}). With English: mean over its eleven pairs; others: over the "
        "55 pairs without it; ±: standard error of the jackknife over the eleven other languages; \\*: English and "
        "the others differ at 95 % by that error, each layer by itself. Rank: of English among twelve pivots, 1 the "
        "nearest to the rest; in brackets its range with any one other language left out."
    )
    for names in (("translation_retrieval", "translation_knn", "translation_cka"), ("rtd", "nts_m", "survival_h1")):
        yield ""
        yield "| layer | " + " | ".join(f"{TITLES[name]}: with English | others | rank" for name in names) + " |"
        yield "|---|" + "---|---|---|" * len(names)
        columns = [column for name in names for column in _columns(part, name)]
        for layer in range(len(columns[0])):
            yield f"| {layer + 1} | " + " | ".join(column[layer] for column in columns) + " |"
    yield ""
    yield (
        "Rows of the other language in random order, mean of 5 draws (retrieval by chance: 1 / paragraphs), least to "
        "largest of the layers:"
    )
    yield ""
    yield "| pairs | " + " | ".join(TITLES.values()) + " |"
    yield "|---|" + "---|" * len(TITLES)
    for group in ("with English", "others"):
        floors = [permuted(part, name)[group].mean(axis=0) for name in TITLES]
        yield f"| {group} | " + " | ".join(f"{floor.min():.3f} to {floor.max():.3f}" for floor in floors) + " |"
    yield ""
    table = of_pairs(part, "rtd")
    shares = {}
    for group, values in (("with English", with_english(table)), ("others", of_others(table))):
        share = 1 - values / permuted(part, "rtd")[group].mean(axis=0)
        shares[group] = (
            f"{100 * share.min():.0f} % (layer {share.argmin() + 1}) to {100 * share.max():.0f} % "
            f"(layer {share.argmax() + 1})"
        )
    yield paragraph(
        f"RTD is below that of rows in random order by {shares['with English']} with English and by "
        f"{shares['others']} without it."
    )


def _columns(part: Mapping[str, Any], name: str) -> Iterator[list[str]]:
    table, star = of_pairs(part, name), " \\*"
    apart, error = and_error(english_less_others, table)
    for statistic, marks in ((with_english, np.abs(apart) > FAR * error), (of_others, np.zeros(len(apart), bool))):
        values, errors = and_error(statistic, table)
        yield [
            f"{value:.3f} ± {around:.3f}" + (star if mark else "")
            for value, around, mark in zip(values, errors, marks, strict=True)
        ]
    yield [f"{rank} ({low}-{high})" for rank, low, high in zip(*pivot_ranks(table, name), strict=True)]
