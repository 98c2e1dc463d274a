"""Curves over the stages of a zigzag: Betti numbers, numbers that are weighted by distance or lifetime, survival.

Legends stand above the panels, so that curves have all of them. Curves that coincide stay visible: markers of later
ones are smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.ticker import MaxNLocator

from topo_callback.figures.panels import GREY
from topo_callback.figures.zigzag_stages import Stages, curve_axis, features

BLUE, ORANGE = "#0072B2", "#D55E00"
EXPONENT_COLOURS = ("plasma", 0.62)  # from here on the map is too pale for a line on white
_MARKERS = ("o", "s", "^", "D", "v")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
_FLOOR = "#e2e2e2"
_TITLE_ROOM = 31.0  # points above a panel, for a legend of two lines under its title


def draw_betti_curve(axis: Any, curve: Int[np.ndarray, " complexes"], stages: Stages, dimension: int) -> None:
    """The Betti numbers of the stages, and between them those of the intersections."""
    size = _marker_size(len(stages.places))
    axis.plot(
        stages.places, curve[::2], color=BLUE, linewidth=1.5, marker="o", markersize=size, label=f"of a {stages.word}"
    )
    axis.plot(
        stages.between(),
        curve[1::2],
        color=ORANGE,
        linewidth=1.2,
        linestyle=_LINES[1],
        marker="o",
        markersize=size,
        markerfacecolor="white",
        label="of its intersection with the next",
    )
    axis.set_title(f"Number of {features(dimension)}", pad=_TITLE_ROOM)
    axis.set_ylabel(f"Betti number, H{dimension}")
    _from_zero(axis, float(curve.max()))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axis, handlelength=2.4)
    curve_axis(axis, stages)


def draw_shared(
    axis: Any, curves: Mapping[float | int, Float[np.ndarray, " stages"]], stages: Stages, dimension: int
) -> None:
    """Inter-layer (or inter-sample) persistence, one curve for each exponent of the weight."""
    axis.set_title(f"{features(dimension).capitalize()} shared with other {stages.word}s", pad=_TITLE_ROOM)
    axis.set_ylabel(f"inter-{stages.word} persistence, H{dimension}")
    _draw_weighted(axis, curves, stages, f"weight: distance in {stages.word}s, to the power of")
    curve_axis(axis, stages)


def draw_births(
    axis: Any, curves: Mapping[float | int, Float[np.ndarray, " stages"]], stages: Stages, dimension: int
) -> None:
    """Births' relative frequency, one curve for each exponent of the weight."""
    axis.set_title(f"Births of {features(dimension)}", pad=_TITLE_ROOM)
    axis.set_ylabel(f"births' relative frequency, H{dimension}")
    _draw_weighted(axis, curves, stages, f"weight: lifetime in {stages.word}s, to the power of")
    curve_axis(axis, stages)
    axis.set_xlabel(f"{stages.curve_axis}; at {stages.names[0]} all {features(dimension)} count as born")


def _draw_weighted(
    axis: Any, curves: Mapping[float | int, Float[np.ndarray, " stages"]], stages: Stages, weight: str
) -> None:
    """One curve for each exponent of a weight, dark for the most negative exponent, bright for the largest."""
    name, brightest = EXPONENT_COLOURS
    shades = mpl.colormaps[name](np.linspace(0.0, brightest, len(curves)))
    size = _marker_size(len(stages.places))
    for number, (exponent, curve) in enumerate(curves.items()):
        axis.plot(
            stages.places,
            curve,
            color=shades[number],
            linewidth=1.3,
            linestyle=_LINES[number % 5],
            marker=_MARKERS[number % 5],
            markersize=size * (1.5 - 0.2 * number),
            label=f"{exponent:g}".replace("-", "\N{MINUS SIGN}"),
        )
    _from_zero(axis, max(float(np.nanmax(curve)) for curve in curves.values()))
    _legend_above(
        axis, title=weight, ncols=len(curves), handlelength=1.8, handletextpad=0.3, columnspacing=0.8, alignment="left"
    )


def draw_survival(
    axis: Any,
    along: Float[np.ndarray, " stages"],
    direct: Float[np.ndarray, " stages"],
    gaussian: Float[np.ndarray, " stages"],
    stages: Stages,
    dimension: int,
) -> None:
    """The share of the first sample's features that are left: directly, by chance, and along the zigzag.

    Each has a number for every stage, NaN where there is none; a curve without a number is left out. The floor is a
    grey area, on which the other two are seen wherever they lie.
    """
    size = _marker_size(len(stages.places))
    looks: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        (
            "two-stage: start and this sample",
            direct,
            {"color": BLUE, "linewidth": 2.2, "marker": "o", "markersize": 1.7 * size, "markerfacecolor": "white"},
        ),
        (
            "two-stage, Gaussian floor",
            gaussian,
            {"color": GREY, "linewidth": 1.2, "linestyle": _LINES[2], "zorder": 1.9},
        ),
        (
            f"along the zigzag from {stages.names[0]}",
            along,
            {"color": ORANGE, "linewidth": 1.2, "linestyle": _LINES[1], "marker": "s", "markersize": 0.8 * size},
        ),
    )
    for words, curve, look in looks:
        if not np.isnan(curve).all():
            axis.plot(stages.places, curve, label=words, **look)
    axis.fill_between(stages.places, 0.0, gaussian, color=_FLOOR, linewidth=0, zorder=1.5)
    _from_zero(axis, 1.0)
    axis.set_yticks(np.linspace(0.0, 1.0, 6))
    axis.set_title(f"{features(dimension).capitalize()} left of those at the start", pad=_TITLE_ROOM)
    axis.set_ylabel("share of loops left" if dimension == 1 else f"share of {features(dimension)} left")
    _legend_above(axis, ncols=2, handlelength=2.4, columnspacing=1.2)
    curve_axis(axis, stages)


def _from_zero(axis: Any, largest: float) -> None:
    """From a little below 0, so that a curve along it is seen whole."""
    top = largest if largest > 0 else 1.0
    axis.set_ylim(-0.03 * top, 1.05 * top)


def _legend_above(axis: Any, **how: Any) -> None:
    axis.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1, borderpad=0.1, labelspacing=0.2,
        fontsize="small", title_fontsize="small", **how,
    )  # fmt: skip


def _marker_size(count: int) -> float:
    return 4.0 if count <= 12 else 2.8 if count <= 40 else 0.0
