"""The controls of the depth zigzag of MiniLM, beside the real clouds: RESULTS_minilm.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import MISSING_COLOUR
from topo_callback.homology import inter_layer_persistence, similarity_by_distance

PICTURE = Path(__file__).parent / "RESULTS_minilm.png"
BLUE, ORANGE, PURPLE, GREEN, GREY = "#0072B2", "#D55E00", "#AA4499", "#009E73", "#666666"


def draw_controls(real, shuffled, zigzags, survival, sweep, subsets, graphs):
    """Six panels; the descriptors are Betti number, inter-layer persistence, births, r, correlation length.

    Args:
        real: descriptors [descriptors, layers] of all prompts.
        shuffled: of random orders of the layers, descriptors and similarity by distance.
        zigzags: the barcode of the real clouds, and those of Gaussian clouds.
        survival: two-stage, to the next layer: of real clouds, of mismatched prompts, of Gaussian clouds.
        sweep: r [k, layers], and the k.
        subsets: (count, size) -> [subsets, descriptors, layers].
        graphs: kind -> number of edges of the layers, and descriptors.
    """
    layers = np.arange(real.shape[1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.4, 8.2), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03))
        (first, second, third), (fourth, fifth, sixth) = figure.subplots(2, 3)
        _shared(first, real, shuffled[0], zigzags[1], layers)
        _by_distance(second, shuffled[1], *zigzags, layers)
        _survival(third, survival, layers)
        _subsets(fourth, real, subsets, layers)
        _graphs(fifth, graphs, layers)
        for axis in (first, second, third, fourth, fifth):
            axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        _sweep(figure, sixth, *sweep, layers)
        figure.legend(handles=_handles(), loc="outside upper left", ncols=4, columnspacing=1.6)
        figure.savefig(PICTURE)


def _handles():
    return [
        Line2D([], [], color=BLUE, marker="o", label="real clouds"),
        Patch(facecolor=GREY, alpha=0.55, label="Gaussian clouds of equal covariance, all draws"),
        Patch(facecolor=ORANGE, alpha=0.28, label="layers in random order, 5 % to 95 %"),
        Line2D([], [], color=PURPLE, linestyle="--", marker="s", label="prompts mismatched"),
    ]


def _shared(axis, real, shuffled, gaussian, layers):
    _band(axis, layers, shuffled[:, 1], ORANGE, (0.05, 0.95))
    _band(axis, layers, np.stack([inter_layer_persistence(each, len(layers)) for each in gaussian]), GREY, (0, 1))
    axis.plot(layers, real[1], color=BLUE, marker="o", markersize=4)
    axis.set(title="Loops shared with other layers", xlabel="layer", ylabel="inter-layer persistence, alpha 0")
    _from_zero(axis, real[1].max())


def _by_distance(axis, shuffled, barcode, gaussian, layers):
    """Without a layer and itself, whose share is 1."""
    apart = layers[1:]
    _band(axis, apart, shuffled[:, 1:], ORANGE, (0.05, 0.95))
    found = np.stack([similarity_by_distance(each, len(layers)) for each in gaussian])
    _band(axis, apart, found[:, 1:], GREY, (0, 1))
    curve = similarity_by_distance(barcode, len(layers))
    axis.plot(apart, curve[1:], color=BLUE, marker="o", markersize=4)
    level = float(np.exp(-1))
    axis.axhline(level, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)))
    axis.annotate("1/e", (apart[-1], level), (0, 2), textcoords="offset points", ha="right", color="#555555")
    axis.set(title="Similarity by distance", xlabel="layers apart", ylabel="share of loops alive in both")
    _from_zero(axis, curve[1])


def _survival(axis, survival, layers):
    next_layer, mismatched, floors = survival
    _band(axis, layers[:-1], floors[:, 0], GREY, (0, 1))
    axis.plot(layers[:-1], next_layer, color=BLUE, marker="o", markersize=4)
    axis.plot(layers[:-1], mismatched, color=PURPLE, linestyle="--", marker="s", markersize=4)
    axis.set_xticks(layers[:-1], [f"{i} to {i + 1}" for i in layers[:-1]])
    axis.set(title="Two-stage survival to the next layer", xlabel="layers", ylabel="share of loops left")
    _from_zero(axis, next_layer.max())


def _subsets(axis, real, subsets, layers):
    axis.plot(layers, real[3], color=BLUE, marker="o", markersize=4, label="all prompts")
    for offset, colour, marker, ((count, size), values) in zip(
        (-0.12, 0.12), (GREEN, ORANGE), ("s", "^"), subsets.items(), strict=True
    ):
        scores = values[:, 3]
        words = f"{count} subsets of {size}: mean and deviation"
        axis.errorbar(
            layers + offset, scores.mean(axis=0), scores.std(axis=0, ddof=1), color=colour, marker=marker,
            markersize=4, linewidth=1.0, linestyle="--", capsize=2.5, label=words,
        )  # fmt: skip
    axis.set(title="Disjoint subsets of the prompts, k = 5", xlabel="layer", ylabel="r, mean similarity")
    _from_zero(axis, real[3].max())
    axis.legend(loc="lower left", fontsize="small")


def _graphs(axis, graphs, layers):
    looks = ((BLUE, "o", "-"), (GREEN, "s", "--"), (ORANGE, "^", "-."))
    for (colour, marker, line), (name, (_, values)) in zip(looks, graphs.items(), strict=True):
        loops = f"{values[0].min():.0f} to {values[0].max():.0f} loops"
        words = f"{name.replace(': the', ',')}: {loops}"
        axis.plot(layers, values[3], color=colour, marker=marker, markersize=4, linestyle=line, label=words)
    axis.set(title="Kinds of graphs, k = 5", xlabel="layer", ylabel="r, mean similarity")
    _from_zero(axis, max(values[3].max() for _, values in graphs.values()))
    axis.legend(loc="lower left", fontsize="small")


def _sweep(figure, axis, scores, counts, layers):
    """A row for each k, coloured from the smallest share there is; a row without loops is grey."""
    shapes = scores / scores.max(axis=1, keepdims=True)
    lowest = np.floor(10 * np.nanmin(shapes)) / 10
    colours = mpl.colormaps["viridis"].with_extremes(bad=MISSING_COLOUR)
    extent = (-0.5, len(layers) - 0.5, counts[0] - 0.5, counts[-1] + 0.5)
    image = axis.imshow(
        np.ma.masked_invalid(shapes), origin="lower", aspect="auto", vmin=lowest, vmax=1.0, cmap=colours, extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    for count, row in zip(counts, scores, strict=True):
        if np.isnan(row).any():
            middle = (layers[-1] / 2, count)
            axis.annotate("no loops: a forest", middle, ha="center", va="center", color="#555555", fontsize="small")
    axis.set_yticks(counts)
    axis.set_xticks(layers)
    axis.tick_params(length=2)
    axis.spines[:].set_visible(False)
    axis.set(title="r over the number of neighbours", xlabel="layer", ylabel="k")
    figure.colorbar(image, ax=axis, label="r / its largest for this k", pad=0.02, aspect=26)


def _from_zero(axis, largest):
    """To the next tick above all numbers."""
    step = 0.1 if largest > 0.25 else 0.05
    top = step * np.ceil(1.02 * float(largest) / step)
    axis.set_ylim(-0.02 * top, 1.01 * top)
    axis.set_yticks(np.arange(0.0, top + step / 2, step))


def _band(axis, places, values, colour, quantiles):
    low, high = np.nanquantile(values, quantiles, axis=0)
    axis.fill_between(places, low, high, color=colour, alpha=0.55 if colour == GREY else 0.28, linewidth=0)
    axis.plot(places, np.nanmean(values, axis=0), color=colour, linewidth=1.0)
