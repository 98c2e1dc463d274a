"""Figures of a comparison: curves of the objectives, distances between runs, the map of runs.

Objectives have colours from the palette of Okabe and Ito, safe for colour-blind readers, and a line style and a marker
besides. Like all figures here they are independent of pyplot and of global settings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from topo_callback.figures.figures import STYLE
from topo_callback.figures.labels import label
from topo_callback.figures.panels import COLOUR_MAP, GREY, plain, thinned

OBJECTIVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class CurvePanel:
    """One panel of `curves_figure`.

    Attributes:
        measure: for the heading and the unit.
        values: one row for each run; NaN where there is no number.
        onset: position from which the objectives are distinguishable; None where none is claimed.
    """

    measure: str
    values: Float64[np.ndarray, "runs points"]
    onset: float | None = None


def curves_figure(
    panels: Sequence[CurvePanel],
    positions: Float64[np.ndarray, " points"],
    objectives: Sequence[str],
    unit: str,
    *,
    evenly: bool,
) -> Figure:
    """Every run as a thin line and the mean of every objective as a thick one, a panel for each measure.

    Args:
        panels: at least one.
        positions: ascending.
        objectives: for every run the name of its objective.
        unit: of positions, for the axis.
        evenly: draw points evenly spaced and name them, as for steps 0, 1, 2, 4, ...; otherwise to scale.
    """
    names = list(dict.fromkeys(objectives))
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    places = np.arange(len(positions), dtype=np.float64) if evenly else positions
    margin = 0.02 * float(places[-1] - places[0]) or 0.5
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * columns, 0.8 + 2.5 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, columns)
        for index, panel in enumerate(panels):
            row, column = divmod(index, columns)
            alone = columns == 2 and index == len(panels) - 1 and column == 0
            axis = figure.add_subplot(grid[row, :] if alone else grid[row, column])
            _draw_curves(axis, panel, places, objectives, names)
            axis.set_xlim(places[0] - margin, places[-1] + margin)
            if panel.onset is not None:
                _mark_onset(axis, float(np.interp(panel.onset, positions, places)))
            if evenly:
                ticks = thinned(len(positions), 9 if positions[-1] < 10_000 else 6)
                axis.set_xticks(ticks, [f"{positions[tick]:,.0f}".replace(",", " ") for tick in ticks])
            axis.set_xlabel(f"{unit} (evenly spaced points)" if evenly else unit, loc="left")
        _legend(figure, names)
    return figure


def _draw_curves(
    axis: Any, panel: CurvePanel, places: np.ndarray, objectives: Sequence[str], names: Sequence[str]
) -> None:
    numbered = ~np.isnan(panel.values).any(axis=0)
    places, values = places[numbered], panel.values[:, numbered]
    for number, name in enumerate(names):
        of = values[[objective == name for objective in objectives]]
        colour, style = OBJECTIVE_COLOURS[number % 7], LINE_STYLES[number % 4]
        for curve in of:
            axis.plot(places, curve, color=colour, linewidth=0.8, alpha=0.5)
        axis.plot(places, of.mean(axis=0), color=colour, linewidth=2.4, linestyle=style, zorder=3)
    words = label(panel.measure)
    axis.set_title(words.title)
    axis.set_ylabel(words.unit)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)


def _mark_onset(axis: Any, place: float) -> None:
    axis.axvline(place, color=GREY, linewidth=1.0, linestyle=(0, (1, 2)), zorder=0)
    right = place < np.mean(axis.get_xlim())
    axis.annotate(
        "distinguishable from here",
        (place, 0.02),
        xycoords=axis.get_xaxis_transform(),
        xytext=(4 if right else -4, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom",
        fontsize=7.5,
        color=GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
    )


def _legend(figure: Any, names: Sequence[str]) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=OBJECTIVE_COLOURS[number % 7],
            linestyle=LINE_STYLES[number % 4],
            linewidth=2.4,
            label=plain(name),
        )
        for number, name in enumerate(names)
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=0.8, alpha=0.7, label="thin: single runs"))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5), handlelength=3.0)


def distances_figure(
    distances: Float64[np.ndarray, "runs runs"], objectives: Sequence[str], seeds: Sequence[str]
) -> Figure:
    """The distances between runs as a matrix, runs of one objective side by side.

    Args:
        distances: of all measures together.
        objectives: for every run the name of its objective.
        seeds: for every run what tells it from others of its objective.
    """
    names = list(dict.fromkeys(objectives))
    order = sorted(range(len(objectives)), key=lambda run: names.index(objectives[run]))
    sizes = [list(objectives).count(name) for name in names]
    edges = np.cumsum([0, *sizes])
    shown = np.ma.masked_array(distances[np.ix_(order, order)], mask=np.eye(len(order), dtype=bool))
    side = float(np.clip(2.2 + 0.3 * len(order), 4.4, 9.0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(side + 1.3, side), layout="constrained")
        axis = figure.subplots()
        colours = mpl.colormaps[COLOUR_MAP].with_extremes(bad="#ffffff")
        image = axis.imshow(shown, cmap=colours, vmin=0.0, interpolation="nearest")
        figure.colorbar(image, ax=axis, label="distance (1: root mean square of all pairs)", pad=0.02, aspect=30)
        axis.hlines(edges[1:-1] - 0.5, -0.5, len(order) - 0.5, color="white", linewidth=3.0)
        axis.vlines(edges[1:-1] - 0.5, -0.5, len(order) - 0.5, color="white", linewidth=3.0)
        ticks = list(range(len(order))) if len(order) <= 30 else []
        for which, settings in (("x", {"rotation": 90 if max(map(len, seeds)) > 3 else 0}), ("y", {})):
            getattr(axis, f"set_{which}ticks")(ticks, [plain(seeds[order[tick]]) for tick in ticks], **settings)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        middles = (edges[:-1] + edges[1:] - 1) / 2
        for which in ("x", "y"):
            groups = getattr(axis, f"secondary_{which}axis")(location="top" if which == "x" else -0.09)
            words = [plain(name) for name in names]
            getattr(groups, f"set_{which}ticks")(
                middles, words, fontweight="bold", **({"rotation": 90, "va": "center"} if which == "y" else {})
            )
            groups.tick_params(length=0)
            groups.spines[:].set_visible(False)
        axis.set_xlabel("seed")
        axis.set_title("Distance between runs, all measures", pad=24)
    return figure


def run_map_figure(
    coordinates: Float64[np.ndarray, "runs 2"],
    objectives: Sequence[str],
    seeds: Sequence[str],
    explained: tuple[float, float],
    stress: float,
) -> Figure:
    """Runs as points: near each other where their trajectories are alike.

    Args:
        coordinates: of the classical scaling.
        objectives: for every run the name of its objective.
        seeds: for every run what tells it from others of its objective.
        explained: share of the variance of each axis.
        stress: Kruskal's stress-1 of the map.
    """
    names = list(dict.fromkeys(objectives))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 5.2), layout="constrained")
        axis = figure.subplots()
        for number, name in enumerate(names):
            of = coordinates[[objective == name for objective in objectives]]
            axis.scatter(
                of[:, 0],
                of[:, 1],
                s=64,
                color=OBJECTIVE_COLOURS[number % 7],
                marker=MARKERS[number % 7],
                edgecolors="white",
                linewidths=0.8,
                label=plain(name),
                zorder=3,
            )
        for (x, y), seed in zip(coordinates, seeds, strict=True):
            axis.annotate(plain(seed), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=GREY)
        axis.set_aspect("equal", adjustable="datalim")
        axis.margins(0.12)
        axis.grid(color="#ececec", linewidth=0.7)
        axis.set_xlabel(f"first coordinate ({100 * explained[0]:.0f} % of the variance)")
        axis.set_ylabel(f"second coordinate ({100 * explained[1]:.0f} % of the variance)")
        axis.set_title(f"Map of runs, all measures (stress {stress:.2f}; 0 is faithful)")
        figure.legend(loc="outside lower left", ncols=min(len(names), 5))
    return figure


def encode_figure(figure: Any, kind: str) -> bytes:
    """The bytes of a figure as "png" or "svg"; equal figures give equal bytes."""
    image = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context({**STYLE, "svg.hashsalt": "topo_callback"}):
        figure.savefig(image, format=kind, metadata=metadata)
    return image.getvalue()
