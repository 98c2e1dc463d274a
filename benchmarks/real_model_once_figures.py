"""The pictures of RESULTS_real_model_once.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import COLOUR_MAP

HERE = Path(__file__).parent
BLUE, ORANGE, PURPLE, GREEN, GREY = "#0072B2", "#D55E00", "#AA4499", "#009E73", "#888888"
COLOURS = {
    "persistence-v1": BLUE, "persistence-icml": "#56B4E9", "angular-distance": ORANGE, "block-influence": GREEN,
}  # fmt: skip


def draw_depth(parts: Mapping[str, Any]) -> None:
    """Six panels: what cuts cost, persistence similarity, entropy, curvature, languages by kNN and by RTD."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.2), layout="constrained")
        (cuts, similarity, entropy), (curvature, neighbours, divergence) = figure.subplots(2, 3)
        _cuts(cuts, parts["prune"])
        scores = parts["prune"]["scores"]
        for name in ("persistence-v1", "persistence-icml"):
            similarity.plot(range(1, 31), scores[name][:30], color=COLOURS[name], label=name)
        similarity.set_title("Persistence similarity r")
        similarity.legend()
        _tokens(entropy, parts["depth"], "prompt_entropy", "Prompt entropy (share of its maximum)")
        _tokens(curvature, parts["depth"], "curvature", "Curvature (radians)")
        _languages(neighbours, parts["languages"], "translation_knn", "Neighbours that two languages share")
        _languages(divergence, parts["languages"], "rtd", "RTD between two languages")
        for axis in (similarity, entropy, curvature, neighbours, divergence):
            axis.set_xlabel("layer")
        for axis in figure.axes:
            axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        figure.savefig(HERE / "RESULTS_real_model_once.png", dpi=90)


def _cuts(axis: Any, part: Mapping[str, Any]) -> None:
    from real_model_once_report import pruning_costs

    costs = pruning_costs(part)
    for rule, by_count in costs.items():
        counts = sorted(by_count)
        mean, low, high = (np.array([by_count[count][place] for count in counts]) for place in range(3))
        if rule == "random":
            axis.fill_between(counts, low, high, color=GREY, alpha=0.3, linewidth=0, label="random, all draws")
        else:
            axis.plot(counts, mean, color=COLOURS[rule], marker="o", markersize=3, label=rule)
    axis.set_title("What cutting layers costs (nats per token)")
    axis.set_yscale("log")
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.set_xticks(range(1, 11))
    axis.set_xlabel("layers cut")
    axis.legend(loc="lower right", fontsize=6.5)


def _tokens(axis: Any, part: Mapping[str, Any], name: str, title: str) -> None:
    for kind, colour in (("prose", BLUE), ("requests", ORANGE)):
        found = part[kind]
        for number, style, label in (
            (name, "-", kind), (f"shuffled_tokens_{name}", "--", f"{kind}, tokens shuffled"),
            (f"random_tokens_{name}", ":", f"{kind}, random tokens"),
        ):  # fmt: skip
            if name == "prompt_entropy" and "shuffled" in label:
                continue  # hardly another line
            values = {int(layer): value for layer, value in found.get(number, {}).items()}
            if number != name:  # these are ratios to the prompts themselves
                values = {layer: value * found[name][str(layer)] for layer, value in values.items()}
            layers = sorted(values)
            axis.plot(layers, [values[layer] for layer in layers], style, color=colour, linewidth=1.3, label=label)
        without = part.get("first token", {}).get(kind, {}).get("without")
        if name == "prompt_entropy" and without:
            axis.plot(range(1, len(without) + 1), without, "-.", color=colour, label=f"{kind}, without the first token")
    axis.set_title(title)
    if name == "prompt_entropy":
        axis.legend(fontsize=6, loc="lower right", bbox_to_anchor=(0.96, 0.06))
    else:
        axis.legend(fontsize=7)


def _languages(axis: Any, part: Mapping[str, Any], name: str, title: str) -> None:
    from real_model_once_report import language_curves, language_floor

    for (label, values), colour in zip(language_curves(part, name).items(), (BLUE, ORANGE), strict=True):
        axis.plot(range(1, len(values) + 1), values, color=colour, label=f"pairs {label}" if "with" in label else label)
    floor = language_floor(part, name)
    axis.plot(list(floor), list(floor.values()), color=GREY, linestyle="--", label="with English, rows permuted")
    axis.set_title(title)
    axis.legend()


def draw_measures(tests: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    """A heat map of ranks, the given numbers in the rows, tests in the columns."""
    from real_model_once_measures import rank_of

    ranks = np.array([[rank_of(name, tests[test]) for test in tests] for name in names])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 0.62 * len(tests), 1.6 + 0.21 * len(names)), layout="constrained")
        axis = figure.subplots()
        axis.imshow(-ranks, aspect="auto", interpolation="nearest", cmap=COLOUR_MAP)
        for row, name in enumerate(names):
            for column, test in enumerate(tests):
                score = tests[test][name]
                dark = ranks[row, column] > len(names) / 2
                text = f"{score:.2f}" if np.isfinite(score) else "-"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_yticks(range(len(names)), names)
        axis.set_xticks(range(len(tests)), [test.replace(": ", ":\n") for test in tests], rotation=40, ha="right")
        axis.set_title("Scores, coloured by rank")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.savefig(HERE / "RESULTS_real_model_once_measures.png", dpi=90)
