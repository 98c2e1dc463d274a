"""The controls on one page: the real zigzag in blue, what it is held against in orange or beside it."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.orders import STATISTICS
from topo_callback.controls.panels import (
    OTHERS,
    REAL,
    draw_distribution,
    draw_graphs,
    draw_layers,
    draw_subsets,
    draw_sweep,
)
from topo_callback.controls.wording import statistic_label
from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import step_name

WIDTH = 11.6


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
