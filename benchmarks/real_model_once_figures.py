"""The pictures of RESULTS_real_model_once.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import COLOUR_MAP

HERE = Path(__file__).parent
BLUE, ORANGE, PURPLE, GREEN, GREY = "#0072B2", "#D55E00", "#AA4499", "#009E73", "#888888"
RULES = {
    "persistence-v1": (BLUE, "o"), "persistence-icml": (PURPLE, "x"), "angular-distance": (ORANGE, "^"),
    "block-influence": (GREEN, "s"),
}  # fmt: skip
LARGE = {**STYLE, "font.size": 12.0, "axes.titlesize": 13.0, "legend.fontsize": 11.0}


def draw_depth(parts: Mapping[str, Any]) -> None:
    """Six panels: what cuts cost, persistence similarity, entropy, curvature, languages by kNN and by RTD."""
    with mpl.rc_context(LARGE):
        figure = Figure(figsize=(12, 15))
        figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.12)
        (cuts, similarity), (entropy, curvature), (neighbours, divergence) = figure.subplots(3, 2)
        _cuts(cuts, parts["prune"])
        for name in ("persistence-v1", "persistence-icml"):
            colour, marker = RULES[name]
            scores = parts["prune"]["scores"][name][:30]
            similarity.plot(range(1, 31), scores, color=colour, marker=marker, fillstyle="none", label=name)
        _finish(similarity, "Loops that other layers have", "persistence similarity r")
        _tokens(entropy, parts["depth"], "prompt_entropy", ("", "random_tokens"), "Entropy of a prompt's tokens")
        entropy.set_ylabel("share of its maximum")
        both = ("", "shuffled_tokens", "random_tokens")
        _tokens(curvature, parts["depth"], "curvature", both, "Curvature of a prompt's path")
        curvature.set_ylabel("radians")
        _languages(neighbours, parts["languages"], "translation_knn", "Neighbours that two languages share")
        neighbours.set_ylabel("mutual kNN, ± 2 errors")
        _languages(divergence, parts["languages"], "rtd", "RTD between two languages")
        divergence.set_ylabel("RTD, ± 2 errors")
        figure.savefig(HERE / "RESULTS_real_model_once.png", dpi=100)


def _finish(axis: Any, title: str, unit: str = "", columns: int = 2, below: str = "layer") -> None:
    """Title, axes and a legend below them, where it covers nothing."""
    axis.set_title(title)
    axis.set_xlabel(below)
    if unit:
        axis.set_ylabel(unit)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns)


def _cuts(axis: Any, part: Mapping[str, Any]) -> None:
    from real_model_once_report import pruning_costs

    for rule, by_count in pruning_costs(part).items():
        counts = sorted(by_count)
        mean, low, high = (np.array([by_count[count][place] for count in counts]) for place in range(3))
        if rule == "random":
            axis.fill_between(counts, low, high, color=GREY, alpha=0.3, linewidth=0, label="random: all three draws")
        else:
            colour, marker = RULES[rule]
            axis.errorbar(
                counts, mean, yerr=(mean - low, high - mean), color=colour, marker=marker, markersize=8, capsize=3,
                fillstyle="none", markeredgewidth=1.6, label=rule,
            )  # fmt: skip
    axis.set_yscale("log")
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.set_xticks(range(1, 11))
    _finish(axis, "What cutting layers costs", "nats per token, 95 %", below="layers cut")


def _tokens(axis: Any, part: Mapping[str, Any], name: str, variants: Sequence[str], title: str) -> None:
    styles = {"": ("-", ""), "shuffled_tokens": ("--", ": tokens shuffled"), "random_tokens": (":", ": random tokens")}
    for kind, colour in (("prose", BLUE), ("requests", ORANGE)):
        found = part[kind]
        for variant in variants:
            style, label = styles[variant]
            values = {int(layer): value for layer, value in found[f"{variant}_{name}".lstrip("_")].items()}
            if variant:  # these are ratios to the prompts themselves
                values = {layer: value * found[name][str(layer)] for layer, value in values.items()}
            layers = sorted(values)
            axis.plot(layers, [values[layer] for layer in layers], style, color=colour, linewidth=2, label=kind + label)
        if name == "prompt_entropy":
            without = part["first token"][kind]["without"]
            label = f"{kind}: no first token"
            axis.plot(range(1, len(without) + 1), without, "--", color=colour, linewidth=2, label=label)
    _finish(axis, title)


def _languages(axis: Any, part: Mapping[str, Any], name: str, title: str) -> None:
    from real_model_once_languages import and_error, of_others, of_pairs, permuted, with_english

    table, floors = of_pairs(part, name), permuted(part, name)
    layers = np.arange(1, table.shape[2] + 1)
    for group, label, statistic, colour in (
        ("with English", "with English", with_english, BLUE), ("others", "without", of_others, ORANGE),
    ):  # fmt: skip
        values, error = and_error(statistic, table)
        axis.fill_between(layers, values - 2 * error, values + 2 * error, color=colour, alpha=0.18, linewidth=0)
        axis.plot(layers, values, color=colour, linewidth=2, label=label)
        axis.plot(layers, floors[group].mean(axis=0), "--", color=colour, linewidth=2, label=f"{label}: rows permuted")
    _finish(axis, title)


def draw_measures(
    tests: Mapping[str, Mapping[str, Mapping[str, float]]],
    names: Sequence[str],
    default: Collection[str],
    corrected_p: Mapping[str, Mapping[str, float]],
) -> None:
    """Scores of all numbers, coloured by rank; columns of tests in which nothing was told are grey."""
    from real_model_once_measures import LEVEL, rank_of

    columns = [(test, title, scores) for test, found in tests.items() for title, scores in found.items()]
    ranks = np.array([[rank_of(name, scores) for *_, scores in columns] for name in names], float)
    told = [test not in corrected_p or min(corrected_p[test].values()) <= LEVEL for test, *_ in columns]
    shown = np.where(told, ranks, np.nan)
    with mpl.rc_context(LARGE):
        figure = Figure(figsize=(3.6 + 0.78 * len(columns), 3.0 + 0.38 * len(names)), layout="constrained")
        axis = figure.subplots()
        colours = mpl.colormaps[COLOUR_MAP].reversed().with_extremes(bad="#e3e3e3")
        image = axis.imshow(shown, aspect="auto", interpolation="nearest", cmap=colours, vmin=1, vmax=len(names))
        for row, name in enumerate(names):
            for column, (test, _, scores) in enumerate(columns):
                red, green, blue, _ = colours(image.norm(ranks[row, column])) if told[column] else (0.9, 0.9, 0.9, 1)
                dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
                star = "*" if corrected_p.get(test, {}).get(name, 1.0) <= LEVEL else ""
                text = f"{scores[name]:.2f}{star}" if np.isfinite(scores[name]) else "-"
                axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        axis.set_yticks(range(len(names)), [f"{name} {'●' if name in default else '○'}" for name in names])
        axis.set_xticks(range(len(columns)), [title for _, title, _ in columns], rotation=40, ha="right")
        begins = [place for place, (test, *_) in enumerate(columns) if place == 0 or columns[place - 1][0] != test]
        for begin, end in zip(begins, [*begins[1:], len(columns)], strict=True):
            axis.text(
                (begin + end - 1) / 2, -0.75, columns[begin][0].replace(" of ", "\nof "), ha="center", va="bottom"
            )
            axis.axvline(begin - 0.5, color="white", linewidth=5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axis, shrink=0.5, pad=0.02)
        bar.set_label("rank of the score in its column")
        bar.set_ticks([1, 6, 11, 16, len(names)])
        bar.ax.invert_yaxis()
        figure.suptitle(
            "Scores of all pair measures.  ● computed by default, ○ not.  * corrected p at most .05.  "
            "Grey: nothing is told", x=0.01, ha="left", fontsize=13,
        )  # fmt: skip
        figure.savefig(HERE / "RESULTS_real_model_once_measures.png", dpi=100)
