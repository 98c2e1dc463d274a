"""The tables of which measures deserve to be on, of real_model_once_resi.py, for RESULTS_real_model_once.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import real_model_once_resi as resi
from real_model_once_data import paragraph
from real_model_once_figures import draw_measures

from topo_callback import TopologyConfig
from topo_callback.measures import pair_measures

NUMBERS_OF = {
    "wasserstein": (
        "wasserstein_h0", "wasserstein_h0_raw", "wasserstein_h1", "wasserstein_h1_per_bar", "wasserstein_h1_raw",
    ),
    "rtd_lite": ("rtd_lite", "srtd_lite", "max_rtd_lite"),
    "tree_similarity": ("nts_e", "nts_m"),
    "cka": ("cka", "cka_biased"),
    "survival": ("survival_h1",),
    "survival_gaussian": ("survival_h1_gaussian",),
    "bottleneck": ("bottleneck_h0", "bottleneck_h1"),
    "sliced_wasserstein": ("sliced_wasserstein_h0", "sliced_wasserstein_h1"),
}  # fmt: skip
"""Of the measures that have several numbers, or one of another name."""


def test_scores(parts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Test -> number -> score, the higher the better; of the tests that are finished."""
    found: dict[str, dict[str, float]] = {}
    for model in ("smollm2", "gemma"):
        blocks = [values for name, values in parts.get("layers", {}).items() if name.startswith(model)]
        if blocks:
            for place, title in enumerate(("triples", "correlation")):
                found[f"layers, {model}: {title}"] = _means([_column(block, place) for block in blocks])
    augmented = parts.get("augmented", {})
    if len(augmented) == len(resi.READ):
        found["augmented: order"] = _means([_column(values, 0) for values in augmented.values()])
        found["augmented: AUPRC"] = _means([_column(values, 2) for values in augmented.values()])
    for kind in resi.KINDS:
        if parts.get(kind, {}).get("seeds"):
            by_layer = parts[kind]["layers"]
            found[f"{kind}: AUPRC, layer 30"] = _column(by_layer["30"], 0)
            found[f"{kind}: AUPRC, mean"] = _means([_column(values, 0) for values in by_layer.values()])
    return found


def _column(values: Mapping[str, Sequence[float | None]], place: int) -> dict[str, float]:
    return {name: float("nan") if row[place] is None else float(row[place] or 0.0) for name, row in values.items()}


def _means(columns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([column[name] for column in columns])) for name in columns[0]}


def measure_lines(parts: Mapping[str, Any]) -> Iterator[str]:
    tests = test_scores(parts)
    if not tests:
        return
    telling = {title: scores for title, scores in tests.items() if title.split(":")[0] not in _without_finding(parts)}
    names = sorted(next(iter(tests.values())), key=lambda name: mean_rank(name, telling))
    draw_measures(tests, names)
    runs = parts.get("runs", {})
    yield "## Which measures deserve to be on"
    yield ""
    yield from (resi.__doc__ or "").strip().splitlines()[2:]
    yield ""
    yield "![Scores of all pair measures](RESULTS_real_model_once_measures.png)"
    yield ""
    done = {kind: sum(name.startswith(kind) for name in runs) for kind in resi.KINDS}
    for kind, count in done.items():
        rows = [(name, facts) for name, facts in runs.items() if name.startswith(kind)]
        if rows:
            said = []
            for share in resi.SHARES:
                right = [facts["accuracy"] for name, facts in rows if name.split("-")[1] == str(share)]
                said.append(f"{share} %: {np.mean(right):.2f}" if right else f"{share} %: none")
            yield paragraph(
                f"`{kind}`: {count} of 25 runs are done, {parts.get(kind, {}).get('seeds', 0)} whole seeds are "
                f"compared. Held-out accuracy by share, {', '.join(said)}."
            )
    chance = [f"augmented .{1000 * resi.chance(4, 5):03.0f}"]
    chance += [
        f"{kind} .{1000 * resi.chance(5, parts[kind]['seeds']):03.0f}"
        for kind in resi.KINDS
        if parts.get(kind, {}).get("seeds")
    ]
    yield paragraph(
        f"AUPRC of random similarities: {', '.join(chance)}. Order: Spearman's correlation with the share of changed "
        "words, mean of layers 10, 20 and 30. In brackets the rank among all numbers; mean rank: over tests that told "
        "anything."
    )
    yield ""
    yield "| number | default | " + " | ".join(tests) + " | mean rank |"
    yield "|---|---|" + "---|" * (len(tests) + 1)
    default = {number for measure in default_measures() for number in numbers_of(measure)}
    for name in names:
        cells = [f"{tests[test][name]:.3f} ({rank_of(name, tests[test])})" for test in tests]
        mark = "yes" if name in default else "no"
        yield f"| `{name}` | {mark} | " + " | ".join(cells) + f" | {mean_rank(name, telling):.1f} |"
    yield ""
    yield from _chance_lines(parts)
    below = [name for name in names if all(not scores[name] >= scores["cka"] for scores in telling.values())]
    measures = [measure for measure in default_measures() if set(numbers_of(measure)) <= set(below)]
    yield paragraph(
        f"Below CKA in every one of the {len(telling)} columns of tests that told anything: numbers "
        f"{', '.join(f'`{name}`' for name in below) or 'none'}; whole measures of the default set: "
        f"{', '.join(f'`{name}`' for name in measures) or 'none'}."
    )


def _told(parts: Mapping[str, Any], kind: str) -> list[str]:
    """The numbers that find runs of one condition more alike than chance does."""
    return [name for name, value in parts[kind]["corrected_p"].items() if value <= 0.05]


def _without_finding(parts: Mapping[str, Any]) -> list[str]:
    return [kind for kind in resi.KINDS if parts.get(kind, {}).get("corrected_p") and not _told(parts, kind)]


def _chance_lines(parts: Mapping[str, Any]) -> Iterator[str]:
    """Which numbers tell conditions of the fine-tunings apart, and how far a seed less moves them."""
    for kind in resi.KINDS:
        p = parts.get(kind, {}).get("p")
        if not p:
            continue
        told, spread = _told(parts, kind), [row[2] - row[1] for row in parts[kind]["layers"]["30"].values()]
        least = min(parts[kind]["corrected_p"], key=parts[kind]["corrected_p"].get)
        found = (
            f"{len(told)} of {len(p)} numbers find runs of one condition more alike than chance does: "
            + ", ".join(f"`{name}`" for name in told)
            if told
            else f"no number finds runs of one condition more alike than chance does; the nearest to it is `{least}` "
            f"(p {parts[kind]['corrected_p'][least]:.3f})"
        )
        yield paragraph(
            f"`{kind}`: {found}. Mean of the layers, conditions permuted within seeds {resi.PERMUTED} times, p at most "
            f".05 by the largest of all numbers. Each number by itself: "
            f"{sum(value <= 0.05 for value in p.values())} at p of .05 or less. With one seed left out, AUPRC of "
            f"layer 30 moves within {np.median(spread):.3f} (median of the numbers)."
        )
        yield ""


def default_measures() -> list[str]:
    return [name for name in TopologyConfig().measures if name in pair_measures]


def numbers_of(measure: str) -> tuple[str, ...]:
    return NUMBERS_OF.get(measure, (measure,))


def rank_of(name: str, scores: Mapping[str, float]) -> int:
    """1 for the highest; what is missing is last."""
    own = scores[name] if np.isfinite(scores[name]) else -np.inf
    return 1 + sum((value if np.isfinite(value) else -np.inf) > own for value in scores.values())


def mean_rank(name: str, tests: Mapping[str, Mapping[str, float]]) -> float:
    return float(np.mean([rank_of(name, scores) for scores in tests.values()]))
