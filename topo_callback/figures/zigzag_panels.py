"""The panels of a zigzag's figures: curves over its stages, and stages against stages.

Curves: Betti numbers, numbers that are weighted by distance or lifetime, survival. Legends stand above the panels, so
that curves have all of them; curves that coincide stay visible, since markers of later ones are smaller. Matrices: the
features that two stages share, and where features are born and die. Shares have the colours of viridis from 0 to 1 on
a square-root scale, so that small ones differ from none; a stage with itself, always 1, is grey. Counts have a scale of
blues from white. Both are safe for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, PowerNorm
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from topo_callback.figures.labels import step_name
from topo_callback.figures.panels import COLOUR_MAP, GREY, MISSING_COLOUR
from topo_callback.figures.zigzag_stages import Stages, curve_axis, features, name_cells
from topo_callback.homology.descriptors import Normalisation

BLUE, ORANGE = "#0072B2", "#D55E00"
EXPONENT_COLOURS = ("plasma", 0.62)  # from here on the map is too pale for a line on white
_MARKERS = ("o", "s", "^", "D", "v")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
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
        linestyle=_DASHES[1],
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
            linestyle=_DASHES[number % 5],
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
            {"color": GREY, "linewidth": 1.2, "linestyle": _DASHES[2], "zorder": 1.9},
        ),
        (
            f"along the zigzag from {stages.names[0]}",
            along,
            {"color": ORANGE, "linewidth": 1.2, "linestyle": _DASHES[1], "marker": "s", "markersize": 0.8 * size},
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


ITSELF_COLOUR = "#a6a6a6"  # darker than what is missing
IMPOSSIBLE_COLOUR = "#f2f2f2"
_NEVER_ROOM = 11.0  # points from the names of stages to the line of "never"
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)  # named on the colour bar
# from a blue that stands out on white: one bar must be seen
_COUNTS = LinearSegmentedColormap.from_list("counts", ["#c3d9ee", "#6fa8d6", "#2f6fb0", "#0b2f66"])


def draw_similarity(
    axis: Any,
    similarity: Float[np.ndarray, "stages stages"],
    stages: Stages,
    dimension: int,
    normalisation: Normalisation,
) -> None:
    """The share of features that two stages have in common: row i upwards, column j to the right."""
    kind = features(dimension)
    itself = np.eye(len(similarity), dtype=bool) & ~np.isnan(similarity)
    colours = mpl.colormaps[COLOUR_MAP].with_extremes(bad=MISSING_COLOUR)
    image = axis.imshow(
        np.ma.masked_array(similarity, np.isnan(similarity) | itself),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        norm=PowerNorm(0.5, 0.0, 1.0),
    )
    axis.imshow(
        np.ma.masked_array(np.ones(similarity.shape), ~itself),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap([ITSELF_COLOUR]),
    )
    whole = f"{stages.word} j (column)" if normalisation == "other" else f"{stages.word} i (row)"
    bar = axis.figure.colorbar(image, ax=axis, label=f"share of the {kind} of {whole}", pad=0.02, aspect=30)
    bar.set_ticks(SHARES, labels=[f"{share:g}" for share in SHARES])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    axis.set_title(f"{kind.capitalize()} alive from {stages.word} i to {stages.word} j")
    name_cells(axis.xaxis, stages)
    name_cells(axis.yaxis, stages)
    axis.set_xlabel(f"j: {stages.cell_axis}")
    axis.set_ylabel(f"i: {stages.quantity}")
    _plain_frame(axis)
    known = [Patch(facecolor=ITSELF_COLOUR, label="itself (1)")] if itself.any() else []
    if np.isnan(similarity).any():
        known.append(Patch(facecolor=MISSING_COLOUR, label=f"no {kind}"))
    axis.legend(
        handles=known, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2,
        borderaxespad=0.2, borderpad=0.0, handlelength=1.0, columnspacing=1.0, fontsize="small",
    )  # fmt: skip


def draw_effective_image(
    axis: Any, image: Int[np.ndarray, "stages stages_and_never"], stages: Stages, dimension: int
) -> None:
    """How many features are born at a stage (upwards) and die at one (to the right).

    What the first stage has, and what is still alive at the last one, are no births and deaths that were seen: they
    have a row and a column of their own. Nothing dies at the first stage, so that it has no column of deaths.
    """
    count = len(image)
    deaths, births = _edges(count)
    counts = np.insert(np.insert(image[:, 1:], count - 1, 0, axis=1), 1, 0, axis=0)
    largest = max(2, int(image.max()))
    impossible = np.insert(np.insert(_before_birth(count), count - 1, False, axis=1), 1, False, axis=0)
    ground = ListedColormap([IMPOSSIBLE_COLOUR])
    axis.pcolormesh(deaths, births, np.ma.masked_array(np.ones(impossible.shape), ~impossible), cmap=ground)
    norm = LogNorm(1, largest)
    mesh = axis.pcolormesh(deaths, births, np.ma.masked_equal(counts, 0), cmap=_COUNTS, norm=norm, linewidth=0)
    bar = axis.figure.colorbar(mesh, ax=axis, pad=0.02, aspect=30)
    _name_counts(bar, largest)
    bar.ax.set_title("bars", loc="left", fontweight="normal", fontsize="medium")
    axis.set_title(f"Births and deaths of {features(dimension)}")
    named = stages.cell_ticks()
    dying = [stage for stage in named if stage > 0]
    # a line lower, where no other name can touch it
    never = f"\nnever (alive at {stages.names[-1]})"
    axis.set_xticks([*dying, deaths[-2:].mean()], [*(stages.names[stage] for stage in dying), never])
    if count > 4:  # in the middle of a narrow column it would push the colour bar away
        axis.get_xticklabels()[-1].set_horizontalalignment("right")
    axis.set_yticks(
        [births[:2].mean() if stage == 0 else stage for stage in named], [stages.names[stage] for stage in named]
    )
    axis.set_xlabel(f"death: {stages.quantity}", loc="left", labelpad=-_NEVER_ROOM)
    axis.set_ylabel(f"birth: {stages.quantity}")
    first = f"row {stages.names[0]}: all {features(dimension)}\nof the first {stages.word}"
    axis.annotate(
        first, (0.0, 1.0), (4, -4), xycoords="axes fraction", textcoords="offset points", va="top", color=GREY,
        fontsize="small",
    )  # fmt: skip
    _plain_frame(axis)


def _edges(count: int) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " rows"]]:
    """Of the cells: deaths 1, 2, ... and, after a gap, never; births 0 and, after a gap, 1, 2, ..."""
    gap, width = 0.02 * count, max(1.0, 0.06 * count)
    deaths = np.concatenate([np.arange(1, count + 1) - 0.5, count - 0.5 + np.cumsum([gap, width])])
    births = np.concatenate([[0.5 - gap - width, 0.5 - gap], np.arange(1, count + 1) - 0.5])
    return deaths, births


def _before_birth(count: int) -> Any:
    """Where a feature would die at its birth or before: rows of births, columns of deaths 1, 2, ..., never."""
    return np.arange(1, count + 1) <= np.arange(count)[:, None]


def _name_counts(bar: Any, largest: int) -> None:
    """Plain numbers: all of a few, or 1, 10, 100, ..., with 2 and 5 between them while they are few; the largest."""
    steps = (1,) if largest >= 1000 else (1, 2, 5)
    ticks = [step * 10**power for power in range(len(str(largest))) for step in steps if step * 10**power <= largest]
    ticks = list(range(1, largest + 1)) if largest < 7 else ticks
    ticks += [largest] if largest > 1.2 * ticks[-1] else []
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks])
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _plain_frame(axis: Any) -> None:
    axis.tick_params(length=2)
    axis.spines[:].set_visible(False)
