"""What pictures of a zigzag are made of: one axis each for shared features, births and deaths, curves, survival.

Shares have the colours of viridis from 0 to 1, counts a scale of blues from white; both are safe for colour-blind
readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from topo_callback.measures.persistence_similarity import Normalisation
from topo_callback.report.panels import COLOUR_MAP, GREY, MISSING_COLOUR, step_name, thinned

FEATURES = ("components", "loops", "voids")  # H0, H1, H2
BLUE, ORANGE = "#0072B2", "#D55E00"
_MARKERS = ("o", "s", "^", "D", "v")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
_GRID = "#e6e6e6"


@dataclass(frozen=True)
class Stages:
    """What the stages of a zigzag are.

    Attributes:
        names: of every stage, for the ticks.
        word: what one of them is: "layer" or "sample".
        axis: label of an axis of stages.
    """

    names: tuple[str, ...]
    word: str
    axis: str

    def ticks(self, most: int) -> tuple[list[int], list[str]]:
        """At most so many positions, fewer where names are long, and the names there."""
        longest = max(map(len, self.names))
        chosen = thinned(len(self.names), max(4, min(most, 60 // (longest + 2))))
        return chosen, [self.names[stage] for stage in chosen]


def features(dimension: int) -> str:
    """What the classes of a homology dimension are called."""
    return FEATURES[dimension] if dimension < len(FEATURES) else f"features of dimension {dimension}"


def draw_similarity(
    axis: Any,
    similarity: Float[np.ndarray, "stages stages"],
    stages: Stages,
    dimension: int,
    normalisation: Normalisation,
) -> None:
    """The share of features that two stages have in common: row i upwards, column j to the right, colours 0 to 1."""
    colours = mpl.colormaps[COLOUR_MAP].with_extremes(bad=MISSING_COLOUR)
    shown = np.ma.masked_invalid(similarity)
    image = axis.imshow(shown, origin="lower", aspect="auto", interpolation="nearest", cmap=colours, vmin=0.0, vmax=1.0)
    whole = f"{stages.word} j (column)" if normalisation == "other" else f"{stages.word} i (row)"
    words = f"share of the {features(dimension)} of {whole}"
    axis.figure.colorbar(image, ax=axis, label=words, pad=0.02, aspect=30)
    axis.set_title(f"{features(dimension).capitalize()} alive from {stages.word} i to {stages.word} j")
    _name_stages(axis.xaxis, stages)
    _name_stages(axis.yaxis, stages)
    axis.set_xlabel(f"j: {stages.axis}")
    axis.set_ylabel(f"i: {stages.axis.split(' (')[0]}")
    _plain_frame(axis)
    if np.isnan(similarity).any():
        axis.legend(
            handles=[Patch(facecolor=MISSING_COLOUR, label=f"no {features(dimension)}")],
            loc="lower right",
            frameon=True,
            handlelength=1.0,
        )


def draw_effective_image(
    axis: Any, image: Int[np.ndarray, "stages stages_and_never"], stages: Stages, dimension: int
) -> None:
    """How many features are born at a stage (upwards) and die at one (to the right); those that never die apart."""
    count = len(image)
    gap, width = 0.02 * count, max(1.0, 0.06 * count)
    edges = np.concatenate([np.arange(count + 1) - 0.5, count - 0.5 + np.cumsum([gap, width])])
    with_gap = np.concatenate([image[:, :count], np.zeros((count, 1), image.dtype), image[:, count:]], axis=1)
    mesh = axis.pcolormesh(
        edges,
        np.arange(count + 1) - 0.5,
        np.ma.masked_equal(with_gap, 0),
        cmap=_COUNTS,
        norm=LogNorm(1, max(2, int(image.max()))),
        linewidth=0,
    )
    bar = axis.figure.colorbar(mesh, ax=axis, label="bars", pad=0.02, aspect=30)
    _name_counts(bar, max(2, int(image.max())))
    # nothing dies before it is born
    axis.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color="#bbbbbb", linewidth=0.8, zorder=0)
    axis.set_title(f"Births and deaths of {features(dimension)}")
    positions, names = stages.ticks(10)
    # among many, the last stage's name would touch "never"
    end = count if count <= 8 else 0.9 * count - 0.5
    kept = [(position, name) for position, name in zip(positions, names, strict=True) if position < end]
    axis.set_xticks([*(position for position, _ in kept), edges[-2:].mean()], [*(name for _, name in kept), "never"])
    _name_stages(axis.yaxis, stages)
    axis.set_xlabel(f"death: {stages.axis}")
    axis.set_ylabel(f"birth: {stages.axis.split(' (')[0]}")
    _plain_frame(axis)


def draw_betti_curve(axis: Any, curve: Int[np.ndarray, " complexes"], stages: Stages, dimension: int) -> None:
    """The Betti numbers of the stages, and between them those of the intersections."""
    places = np.arange(len(curve)) / 2
    size = _marker_size(len(stages.names))
    axis.plot(
        places[::2], curve[::2], color=BLUE, linewidth=1.5, marker="o", markersize=size, label=f"of a {stages.word}"
    )
    axis.plot(
        places[1::2],
        curve[1::2],
        color=ORANGE,
        linewidth=1.2,
        linestyle=_LINES[1],
        marker="o",
        markersize=size,
        markerfacecolor="white",
        label="of its intersection with the next",
    )
    axis.set_title(f"Number of {features(dimension)}")
    axis.set_ylabel(f"Betti number, H{dimension}")
    axis.set_ylim(0.0, 1.28 * max(float(curve.max()), 1.0))  # room for the legend
    axis.legend(loc="upper left", borderaxespad=0.2, handlelength=2.6)
    _stage_axis(axis, stages)


def draw_weighted(
    axis: Any,
    curves: Mapping[float | int, Float[np.ndarray, " stages"]],
    stages: Stages,
    title: str,
    unit: str,
    weight: str,
) -> None:
    """One curve for each exponent of a weight, dark for the most negative exponent, bright for the largest."""
    shades = mpl.colormaps[COLOUR_MAP](np.linspace(0.0, 0.84, len(curves)))
    size = _marker_size(len(stages.names))
    for number, (exponent, curve) in enumerate(curves.items()):
        axis.plot(
            np.arange(len(curve)),
            curve,
            color=shades[number],
            linewidth=1.3,
            linestyle=_LINES[number % 5],
            marker=_MARKERS[number % 5],
            markersize=size,
            label=f"{exponent:g}".replace("-", "\N{MINUS SIGN}"),
        )
    axis.set_title(title)
    axis.set_ylabel(unit)
    largest = max(float(np.nanmax(curve)) for curve in curves.values())
    axis.set_ylim(0.0, 1.32 * largest if largest > 0 else 1.0)  # room for the legend
    axis.legend(
        title=weight, loc="upper left", ncols=len(curves), borderaxespad=0.2,
        handlelength=1.5, handletextpad=0.3, columnspacing=0.7, fontsize=8.0, title_fontsize=8.0, alignment="left",
    )  # fmt: skip
    _stage_axis(axis, stages)


def draw_survival(
    axis: Any,
    along: Float[np.ndarray, " stages"],
    direct: Float[np.ndarray, " stages"],
    gaussian: Float[np.ndarray, " stages"],
    stages: Stages,
    dimension: int,
) -> None:
    """The share of the first sample's features that are left: directly, by chance, and along the zigzag.

    Each has a number for every stage, NaN where there is none; a curve without a number is left out.
    """
    size = _marker_size(len(stages.names))
    looks: tuple[tuple[Any, dict[str, Any]], ...] = (
        (direct, {"color": BLUE, "linewidth": 2.2, "marker": "o", "label": "two-stage: the start and this sample"}),
        (
            gaussian,
            {"color": GREY, "linewidth": 1.2, "linestyle": _LINES[2], "label": "two-stage, Gaussian clouds (floor)"},
        ),
        (
            along,
            {
                "color": ORANGE,
                "linewidth": 1.4,
                "linestyle": _LINES[1],
                "marker": "s",
                "label": "along the zigzag: every sample since",
            },
        ),
    )
    for curve, look in looks:
        if not np.isnan(curve).all():
            axis.plot(np.arange(len(curve)), curve, markersize=size, **look)
    axis.set_ylim(0.0, 1.36)  # room for the legend
    axis.set_yticks(np.linspace(0.0, 1.0, 6))
    axis.set_title(f"{features(dimension).capitalize()} left of those at the start")
    axis.set_ylabel(f"share of the first sample's {features(dimension)}")
    axis.legend(loc="upper right", borderaxespad=0.2, handlelength=2.6)
    _stage_axis(axis, stages)


def _stage_axis(axis: Any, stages: Stages) -> None:
    _name_stages(axis.xaxis, stages, most=9)
    axis.set_xlim(-0.5, len(stages.names) - 0.5)
    axis.set_xlabel(stages.axis)
    axis.grid(axis="y", color=_GRID, linewidth=0.7)


def _name_stages(which: Any, stages: Stages, most: int = 12) -> None:
    positions, names = stages.ticks(most) if which.axis_name == "x" else _upright(stages, most)
    which.set_ticks(positions, names)


def _upright(stages: Stages, most: int) -> tuple[list[int], list[str]]:
    """Ticks above each other have room for names of any length."""
    chosen = thinned(len(stages.names), most)
    return chosen, [stages.names[stage] for stage in chosen]


def _name_counts(bar: Any, largest: int) -> None:
    """Plain numbers: all of a few, or 1, 10, 100, ..., with 2 and 5 between them while that is not many."""
    steps = (1,) if largest >= 1000 else (1, 2, 5)
    ticks = [step * 10**power for power in range(len(str(largest))) for step in steps if step * 10**power <= largest]
    ticks = list(range(1, largest + 1)) if largest < 7 else ticks
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks])
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _plain_frame(axis: Any) -> None:
    axis.tick_params(length=2)
    axis.spines[:].set_visible(False)


def _marker_size(count: int) -> float:
    return 4.0 if count <= 12 else 2.6 if count <= 40 else 0.0


# from a blue that stands out on white: one bar must be seen
_COUNTS = LinearSegmentedColormap.from_list("counts", ["#c3d9ee", "#6fa8d6", "#2f6fb0", "#0b2f66"])
