"""The controls on one page: the real zigzag in blue, what it is held against in orange or beside it.

Colours are those of the other figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from topo_callback.comparison.caveats import probability
from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.labels import GRAPH_NAMES, statistic_label
from topo_callback.controls.orders import STATISTICS, OrderStatistic
from topo_callback.controls.variations import Descriptors, GraphControl, NeighbourSweep, SubsetControl
from topo_callback.figures.figures import STYLE
from topo_callback.figures.labels import Label, step_name
from topo_callback.figures.panels import BAR_COLOURS, COLOUR_MAP, thinned

REAL, OTHERS = BAR_COLOURS[:2]
_GRID = "#e6e6e6"
_LOOKS: Mapping[str, dict[str, Any]] = {
    "union": {"color": REAL, "marker": "o"},
    "mutual": {"color": BAR_COLOURS[3], "marker": "s", "linestyle": (0, (5, 1.5))},
    "limited": {"color": BAR_COLOURS[2], "marker": "^", "linestyle": (0, (1.5, 1.2))},
}
WIDTH = 11.6


def draw_distribution(axis: Any, found: OrderStatistic, words: Label) -> None:
    """The shuffled values as a histogram, the real one as a line."""
    if len(found.finite):
        axis.hist(found.finite, bins=_bins(found), color=OTHERS, alpha=0.55, linewidth=0)
        axis.axvline(found.mean, ymax=0.09, color=OTHERS, linewidth=1.8)
    values = found.finite if np.isinf(found.real) else np.append(found.finite, found.real)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    axis.set_xlim(low - margin, high + margin)
    axis.set_ylim(0.0, 1.22 * max(axis.get_ylim()[1], 1.0))  # room for the words
    text = f"p = {probability(found.p)}"
    place = found.real
    if np.isinf(found.real):
        text, place = f"never falls to 1/e, {text}", high + margin
    axis.axvline(place, color=REAL, linewidth=2.2)
    left = place > (low + high) / 2
    axis.annotate(
        text, (place, 0.98), xycoords=axis.get_xaxis_transform(), xytext=(-5 if left else 5, 0),
        textcoords="offset points", ha="right" if left else "left", va="top", color=REAL,
    )  # fmt: skip
    axis.set_title(words.title)
    axis.set_xlabel(words.unit)
    axis.set_ylabel("orders")
    axis.grid(axis="y", color=_GRID, linewidth=0.7)
    axis.yaxis.get_major_locator().set_params(integer=True)


def _bins(found: OrderStatistic) -> Any:
    """Bins of one width from the lowest to the highest; equal values are one bin with a width that can be seen."""
    low, high = found.lowest, found.highest
    if high - low < 1e-9:
        half = 0.02 * (abs(found.real - low) if np.isfinite(found.real) else 0.0) or 0.02
        return [low - half, high + half]
    return int(np.clip(len(found.finite) // 8, 8, 30))


def draw_layers(axis: Any, found: Mapping[int, OrderStatistic], words: Label) -> None:
    """One line for each layer: the range of the shuffled values, 5 % to 95 % of them, their mean, and the real one."""
    heights = np.arange(len(found))
    thick = float(np.clip(60.0 / len(found), 2.0, 9.0))
    for height, statistic in zip(heights, found.values(), strict=True):
        if len(statistic.finite):
            low, high = np.quantile(statistic.finite, (0.05, 0.95))
            axis.plot([statistic.lowest, statistic.highest], [height] * 2, color=OTHERS, linewidth=1.0)
            axis.plot([low, high], [height] * 2, color=OTHERS, linewidth=thick, alpha=0.55, solid_capstyle="butt")
            axis.plot([statistic.mean], [height], color=OTHERS, marker="|", markersize=thick + 3, markeredgewidth=1.8)
        if np.isfinite(statistic.real):
            axis.plot([statistic.real], [height], color=REAL, marker="o", markersize=min(5.5, thick))
        else:
            axis.annotate(
                "never falls to 1/e", (1.0, height), xycoords=axis.get_yaxis_transform(), ha="right", va="center",
                color=REAL, fontsize=8.0,
            )  # fmt: skip
    ticks = thinned(len(found), 16)
    axis.set_yticks(ticks, [str(list(found)[tick]) for tick in ticks])
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.margins(x=0.08)
    if not any(np.isfinite(statistic.real) or len(statistic.finite) for statistic in found.values()):
        axis.set_xticks([])
    axis.set_title(words.title)
    axis.set_xlabel(words.unit)
    axis.grid(axis="x", color=_GRID, linewidth=0.7)


def draw_subsets(axis: Any, layers: Sequence[int], real: Descriptors, control: SubsetControl) -> None:
    """All prompts, and mean and deviation of the subsets."""
    count, size = control.subsets.shape
    places = np.arange(len(layers))
    mean, deviation = (each.curves["mean_similarity"] for each in (control.mean, control.deviation))
    axis.fill_between(
        places, mean - deviation, mean + deviation, color=OTHERS, alpha=0.35, linewidth=0,
        label=f"{count} subsets of {size}, ± deviation",
    )  # fmt: skip
    axis.plot(places, mean, color=OTHERS, linewidth=1.2)
    axis.plot(places, real.curves["mean_similarity"], color=REAL, marker="o", markersize=4, label="all prompts")
    _finish(axis, layers, "On disjoint subsets of the prompts")
    axis.legend(loc="lower left", borderaxespad=0.2)


def draw_sweep(axis: Any, layers: Sequence[int], sweep: NeighbourSweep, recorded: int) -> None:
    """One curve for each k, dark for the smallest; the recorded k with markers."""
    counts = sweep.neighbour_counts
    # the yellow end of the map is too pale for a line on white
    shades = mpl.colormaps[COLOUR_MAP](np.linspace(0.0, 0.88, len(counts)))
    for at, k in enumerate(counts):
        own = k == recorded
        axis.plot(
            np.arange(len(layers)), sweep.each.curves["mean_similarity"][at], color=shades[at],
            linewidth=2.4 if own else 1.1, marker="o" if own else "", markersize=4, zorder=3 if own else 2,
            label=f"k = {k}, as recorded" if own else None,
        )  # fmt: skip
    steps = ScalarMappable(BoundaryNorm(np.arange(len(counts) + 1) - 0.5, len(counts)), ListedColormap(shades))
    ticks = thinned(len(counts), 8)
    bar = axis.figure.colorbar(steps, ax=axis, label="neighbours k", pad=0.02, aspect=26, ticks=ticks)
    bar.ax.set_yticklabels([str(counts[tick]) for tick in ticks])
    bar.ax.tick_params(which="both", length=0)
    _finish(axis, layers, "For other numbers of neighbours")
    if recorded in counts:
        axis.legend(loc="lower left", borderaxespad=0.2)


def draw_graphs(axis: Any, layers: Sequence[int], graphs: Mapping[str, GraphControl]) -> None:
    """One curve for each kind of graph."""
    for name, graph in graphs.items():
        axis.plot(
            np.arange(len(layers)), graph.found.curves["mean_similarity"], linewidth=1.4, markersize=4,
            label=GRAPH_NAMES[name], **_LOOKS[name],
        )  # fmt: skip
    _finish(axis, layers, "On other graphs")
    axis.legend(loc="lower left", borderaxespad=0.2, handlelength=2.6)


def _finish(axis: Any, layers: Sequence[int], title: str) -> None:
    ticks = thinned(len(layers), 9)
    axis.set_xticks(ticks, [str(layers[tick]) for tick in ticks])
    axis.set_xlim(-0.5, len(layers) - 0.5)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel("layer")
    axis.set_title(title)
    axis.grid(axis="y", color=_GRID, linewidth=0.7)


def controls_figure(controls: ZigzagControls) -> Figure | None:
    """A row each for the order of the layers, the order of the samples, and what the distances allow.

    Rows without a number are left out. Like all figures here it is independent of pyplot and of global settings.

    Returns:
        None where no row has a number.
    """
    rows = []
    if controls.depth is not None:
        rows.append((2.5, _layer_order))
    if controls.time:
        rows.append((1.4 + 0.2 * min(max(len(controls.time), 6), 40), _sample_order))
    if controls.sweep is not None and len(controls.layers) > 1:
        rows.append((3.1, _variations))
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        heights = [height for height, _ in rows]
        figure = Figure(figsize=(WIDTH, 0.9 + sum(heights)), layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.02))
        parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights, hspace=0.03)[:, 0]
        for part, (_, draw) in zip(parts, rows, strict=True):
            draw(part, controls)
        layers = f"{len(controls.layers)} layer{'s' * (len(controls.layers) != 1)}"
        figure.suptitle(
            f"Controls of the zigzags: {layers}, {controls.points} prompts, k = {controls.k}", x=0.01, ha="left"
        )
    return figure


def _layer_order(part: Any, controls: ZigzagControls) -> None:
    assert controls.depth is not None
    _head(
        part,
        f"Zigzag over depth, step {step_name(controls.step)}: {controls.depth.examined} other orders of the layers",
        [
            Line2D([], [], color=REAL, linewidth=2.2, label="real order"),
            Patch(facecolor=OTHERS, alpha=0.55, label="other orders"),
            _mean_handle(),
        ],
    )
    for axis, name in zip(part.subplots(1, 3), STATISTICS, strict=True):
        draw_distribution(axis, controls.depth.statistics[name], statistic_label(name, "layer"))


def _sample_order(part: Any, controls: ZigzagControls) -> None:
    longest = max(controls.time.values(), key=lambda control: len(control.stages))
    _head(
        part,
        f"Zigzags over time, steps {step_name(longest.stages[0])} to {step_name(longest.stages[-1])}: "
        f"{longest.examined} other orders of {len(longest.stages)} samples",
        [
            Line2D([], [], color=REAL, linewidth=0, marker="o", label="real order"),
            Patch(facecolor=OTHERS, alpha=0.55, label="5 % to 95 % of other orders"),
            Line2D([], [], color=OTHERS, linewidth=1.0, label="all of them"),
            _mean_handle(),
        ],
    )
    for axis, name in zip(part.subplots(1, 3, sharey=True), STATISTICS, strict=True):
        found = {layer: control.statistics[name] for layer, control in controls.time.items()}
        draw_layers(axis, found, statistic_label(name, "sample"))
        if name == STATISTICS[0]:
            axis.set_ylabel("layer")


def _variations(part: Any, controls: ZigzagControls) -> None:
    assert controls.sweep is not None
    assert controls.graphs is not None
    _head(part, f"Zigzag over depth, step {step_name(controls.step)}: other prompts, neighbours and graphs", [])
    axes = list(part.subplots(1, 2 if controls.subsets is None else 3, sharey=True))
    if controls.subsets is not None and controls.real is not None:
        draw_subsets(axes.pop(0), controls.layers, controls.real, controls.subsets)
    draw_sweep(axes[0], controls.layers, controls.sweep, controls.k)
    draw_graphs(axes[1], controls.layers, controls.graphs)
    part.axes[0].set_ylabel("mean persistence similarity r, H1")


def _head(part: Any, text: str, handles: list[Any]) -> None:
    """One line above a row: what it shows on the left, what its marks mean on the right."""
    part.suptitle(text, x=0.01, ha="left", fontsize=10.0, fontweight="normal")
    if handles:
        part.legend(handles=handles, loc="upper right", ncols=len(handles), borderaxespad=0.1, columnspacing=1.6)


def _mean_handle() -> Any:
    return Line2D([], [], color=OTHERS, linewidth=0, marker="|", markersize=9, markeredgewidth=1.8, label="their mean")
