"""What figures are made of: one axis drawn for a barcode, or for a measure as a heat map or as lines.

Colours are perceptually uniform or from the palette of Okabe and Ito, both safe for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.patches import Patch

from topo_callback.figures.labels import FROM_ZERO, label, step_name
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted

COLOUR_MAP = "viridis"
BAR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # H0, H1, H2, H3
MISSING_COLOUR = "#e4e4e4"
GREY = "#555555"
BARS_SHOWN = 200
# a sample compared with itself
_START = {
    "wasserstein_h0.first": 0.0,
    "wasserstein_h1.first": 0.0,
    "mutual_knn.first": 1.0,
    "survival_h1.first": 1.0,
    "survival_h1_gaussian.first": 1.0,
    "time_survival_h1": 1.0,
    "rtd.first": 0.0,
}


def measure_table(trajectory: Trajectory, measure: str) -> Float[np.ndarray, "layers samples"]:
    """The numbers of one measure, layers in rising order, NaN where a layer has none.

    At the first sample, numbers that compare with that sample are set to what they are by definition, for layers that
    have one later.
    """
    layers = trajectory.layers
    table = trajectory.array(measure).T
    table[~np.isfinite(table)] = np.nan
    at_start = _START.get(measure)
    if at_start is not None and len(trajectory.steps) > 1 and not np.isnan(table).all():
        first = trajectory.snapshot(trajectory.steps[0])
        table[np.isfinite(table).any(axis=1) & [layer in first.barcodes for layer in layers], 0] = at_start
    return table


def error_table(trajectory: Trajectory, measure: str) -> Float[np.ndarray, "layers samples"]:
    """The errors of `measure_table`; NaN where a number has none."""
    return trajectory.errors(measure).T


def draw_bars(axis: Any, bars: Float[np.ndarray, "bars 2"], dimension: int, right: float) -> None:
    """Bars from the bottom up: H0 by death, others by birth; those that never die reach past the edge."""
    lifetimes = np.minimum(bars[:, 1], right) - bars[:, 0]
    longest = np.sort(np.argsort(-lifetimes, kind="stable")[:BARS_SHOWN])
    shown = bars[longest]
    shown = shown[np.lexsort((shown[:, 1], shown[:, 0]))]
    ends = np.where(np.isfinite(shown[:, 1]), shown[:, 1], 2 * right)
    heights = np.arange(len(shown), dtype=np.float64)
    segments = np.stack([np.stack([shown[:, 0], heights], axis=1), np.stack([ends, heights], axis=1)], axis=1)
    width = float(np.clip(90.0 / max(len(shown), 1), 0.5, 4.0))
    axis.add_collection(LineCollection(list(segments), colors=BAR_COLOURS[dimension], linewidths=width))
    axis.set_ylim(-1.0, max(len(shown), 1))
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    endless = int(np.isinf(bars[:, 1]).sum())
    title = f"H{dimension}: {counted(len(bars), 'bar')}"
    title += f", {endless} never {'dies' if endless == 1 else 'die'}" if endless else ""
    title += f"; the longest {len(shown)} are drawn" if len(shown) < len(bars) else ""
    axis.set_title(title, fontweight="normal")


def draw_heat_map(figure: Any, axis: Any, trajectory: Trajectory, measure: str) -> None:
    table = measure_table(trajectory, measure)
    words = label(measure)
    colours = mpl.colormaps[COLOUR_MAP].with_extremes(bad=MISSING_COLOUR)
    # distances start at 0: the darkest colour means that nothing moved; so does survival: that nothing is left
    lowest = 0.0 if measure.startswith(FROM_ZERO) else None
    image = axis.imshow(
        np.ma.masked_invalid(table), origin="lower", aspect="auto", interpolation="nearest", cmap=colours, vmin=lowest
    )
    figure.colorbar(image, ax=axis, label=words.unit, pad=0.02, aspect=26)
    axis.set_title(words.title)
    axis.set_ylabel("layer")
    ticks = thinned(len(trajectory.layers), 12)
    axis.set_yticks(ticks, [str(trajectory.layers[row]) for row in ticks])
    axis.tick_params(length=2)
    axis.spines[:].set_visible(False)
    name_steps(axis, trajectory)
    if np.isnan(table).any():
        axis.legend(
            handles=[Patch(facecolor=MISSING_COLOUR, label="no number")],
            loc="upper right",
            bbox_to_anchor=(1.0, 0.0),
            borderaxespad=1.9,
            handlelength=1.0,
        )


def draw_lines(figure: Any, axis: Any, trajectory: Trajectory, measure: str) -> None:
    table = measure_table(trajectory, measure)
    words = label(measure)
    layers = trajectory.layers
    scale = Normalize(layers[0], max(layers[-1], layers[0] + 1))
    colours = mpl.colormaps[COLOUR_MAP]
    samples = np.arange(len(trajectory.steps))
    marker_size = 2.2 if len(layers) <= 12 else 0.9
    errors = error_table(trajectory, measure)
    for layer, row, error in zip(layers, table, errors, strict=True):
        # the yellow end of the map is too pale for a line on white
        colour = colours(0.88 * scale(layer))
        axis.plot(samples, row, color=colour, linewidth=1.3, marker="o", markersize=marker_size)
        if np.isfinite(error).any():
            # where a number is what it is by definition, as at the start, its band has no width
            band = 2 * np.where(np.isfinite(row) & ~np.isfinite(error) & (samples == 0), 0.0, error)
            axis.fill_between(samples, row - band, row + band, color=colour, alpha=0.14, linewidth=0)
    if np.isfinite(errors).any():
        note = "bands: 95 % over prompts"
        axis.annotate(note, (1.0, 1.0), xycoords="axes fraction", ha="right", va="bottom", color=GREY, fontsize=7.5)
    chance = _chance(trajectory) if measure.startswith("mutual_knn") else None
    if chance is not None:
        axis.axhline(chance, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.annotate("chance", (1.0, chance), xycoords=axis.get_yaxis_transform(), ha="right", va="bottom", color=GREY)
    axis.set_ylim(bottom=0.0)
    axis.set_xlim(-0.5, len(samples) - 0.5)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_title(words.title)
    axis.set_ylabel(words.unit)
    name_steps(axis, trajectory)
    _depth_bar(figure, axis, layers)


def _depth_bar(figure: Any, axis: Any, layers: Sequence[int]) -> None:
    """The colours of the lines, as a colour bar with one step for each layer."""
    scale = Normalize(layers[0], max(layers[-1], layers[0] + 1))
    colours = ListedColormap([mpl.colormaps[COLOUR_MAP](0.88 * scale(layer)) for layer in layers])
    steps = ScalarMappable(BoundaryNorm(np.arange(len(layers) + 1) - 0.5, len(layers)), colours)
    ticks = thinned(len(layers), 12)
    bar = figure.colorbar(steps, ax=axis, label="layer", pad=0.02, aspect=26, ticks=ticks)
    bar.ax.set_yticklabels([str(layers[row]) for row in ticks])
    bar.ax.tick_params(which="both", length=0)


def _chance(trajectory: Trajectory) -> float | None:
    """Mutual kNN of unrelated clouds, k / (points - 1)."""
    _, points, k = trajectory.snapshot(trajectory.steps[0]).neighbours.shape
    return k / (points - 1) if points > 1 else None


def name_steps(axis: Any, trajectory: Trajectory) -> None:
    """Samples are evenly spaced, so that 0, 1, 2, 4, ... and the regular ones after them are equally readable."""
    ticks = thinned(len(trajectory.steps), 9 if trajectory.steps[-1] < 10_000 else 6)
    axis.set_xticks(ticks, [step_name(trajectory.steps[column]) for column in ticks])


def steps_label(trajectory: Trajectory) -> str:
    return "optimizer step (one column per sample)" if len(trajectory.steps) > 1 else "optimizer step"


def model_name(trajectory: Trajectory) -> str:
    """The recorded name of the model, else its class."""
    described = trajectory.run.get("model", {})
    return plain(Path(described.get("name", "")).name or described.get("class", ""))


def plain(name: str) -> str:
    """A name from outside as text that the font has and that is no mathematics."""
    known = "".join(character if character.isprintable() and character < "\u0250" else "?" for character in name)
    return (known if len(known) <= 60 else f"{known[:57]}...").replace("$", r"\$")


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spread from 0, with the last one in place of its neighbour."""
    stride = max(1, -(-(count - 1) // (most - 1))) if count > 1 else 1
    ticks = list(range(0, count, stride))
    if ticks[-1] != count - 1:
        ticks = [*([tick for tick in ticks if count - 1 - tick >= 0.7 * stride]), count - 1]
    return ticks
