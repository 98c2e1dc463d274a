"""Pictures of the fine-tuning runs: time zigzags side by side, survival with its floor, what sees the switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from fine_tuning_series import SWITCH, Series
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from topo_callback import Trajectory
from topo_callback.measures.persistence_similarity import persistence_similarity
from topo_callback.report.figures import STYLE
from topo_callback.report.panels import MISSING_COLOUR

COLOURS = ("#0072B2", "#D55E00", "#AA4499")  # continued, switched, switched to the other text
GREY, GRID = "#777777", "#e6e6e6"


def similarity_over_time(folder: Path, layer: int) -> np.ndarray:
    """Share of the loops of sample j that are alive from sample i to sample j, along the time zigzag."""
    barcode, steps = Trajectory.load(folder).time_zigzag(layer)
    return persistence_similarity(barcode, len(steps), dimension=1)


def zigzag_picture(
    matrices: Mapping[str, np.ndarray], curves: Mapping[str, Sequence[Series]], layer: int, file: Path
) -> None:
    """Above: step-step matrices of single runs. Below: two-stage survival since the start and since the switch.

    Args:
        matrices: heading -> similarity [samples, samples].
        curves: heading -> the runs of that kind, one a seed.
        layer: which one.
        file: PNG.
    """
    steps = next(iter(curves.values()))[0].steps
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 7.6), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[1.12, 1.0], hspace=0.03)
        axes = above.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
        for axis, colour, (title, matrix) in zip(axes, COLOURS, matrices.items(), strict=False):
            image = _matrix(axis, matrix, steps)
            axis.set_title(title, color=colour, loc="center")
        axes[0].set_ylabel("i: step")
        above.colorbar(image, ax=axes, label="share of the loops of step j", pad=0.01, aspect=28)
        left, right = below.subplots(1, 2)
        _survival(left, curves, layer, "first", "Loops left of those at step 0")
        _survival(right, curves, layer, "switch", f"Loops left of those at step {SWITCH}, the switch")
        handles = [
            *(
                Line2D([], [], color=colour, linewidth=2, label=name)
                for colour, name in zip(COLOURS, curves, strict=False)
            ),
            Line2D([], [], color=GREY, linestyle=(0, (2, 1.5)), label="Gaussian clouds of equal covariance (floor)"),
        ]
        below.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.6)
        above.suptitle(
            f"Layer {layer}, loops alive from step i to step j along the time zigzag: one run each", x=0.005, ha="left"
        )
        below.suptitle(f"Layer {layer}, two-stage survival: mean and range over seeds", x=0.005, ha="left")
        figure.savefig(file)


def _matrix(axis, matrix: np.ndarray, steps: np.ndarray):
    half = (steps[1] - steps[0]) / 2
    edges = (steps[0] - half, steps[-1] + half)
    image = axis.imshow(
        matrix, origin="lower", extent=(*edges, *edges), vmin=0.0, vmax=1.0, cmap="viridis", interpolation="nearest"
    )
    for line in (axis.axvline, axis.axhline):  # the first sample after the switch begins here
        line(SWITCH + half, color="white", linewidth=1.1, linestyle=(0, (4, 2)))
    axis.annotate(
        "switch", (SWITCH + half, edges[1]), (3, -4), textcoords="offset points", color="white", va="top", fontsize=8
    )
    axis.set_xlabel("j: step")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=2)
    return image


def _survival(axis, curves: Mapping[str, Sequence[Series]], layer: int, since: str, title: str) -> None:
    for colour, runs in zip(COLOURS, curves.values(), strict=False):
        column = int(np.flatnonzero(runs[0].layers == layer)[0])
        chosen = runs[0].steps > (SWITCH if since == "switch" else 0)
        steps = runs[0].steps[chosen]
        real = np.stack([run.of(f"survival_h1.{since}")[chosen, column] for run in runs])
        floor = np.stack([run.of(f"survival_h1_gaussian.{since}")[chosen, column] for run in runs])
        axis.fill_between(steps, real.min(axis=0), real.max(axis=0), color=colour, alpha=0.14, linewidth=0)
        axis.plot(steps, real.mean(axis=0), color=colour, linewidth=2, marker="o", markersize=3)
        axis.plot(steps, floor.mean(axis=0), color=colour, linewidth=1.2, linestyle=(0, (2, 1.5)))
    if since == "first":
        axis.axvline(SWITCH, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        axis.annotate("switch", (SWITCH, 1.0), (3, 0), textcoords="offset points", color=GREY, va="top", fontsize=8)
    axis.set(title=title, xlabel="step", ylim=(-0.02, 1.02))
    axis.set_ylabel("two-stage survival, H1" if since == "first" else "")
    axis.grid(axis="y", color=GRID, linewidth=0.7)


def deviation_picture(
    panels: Mapping[str, np.ndarray], names: Sequence[str], groups: Sequence[int], steps: np.ndarray, file: Path
) -> None:
    """How far switched runs are from quiet ones: one panel a kind of switch, one row a number, in robust deviations.

    `groups` are the rows at which a new group of numbers begins. What has no number is grey.
    """
    largest = 6.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 0.9 + 0.25 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        half = (steps[1] - steps[0]) / 2
        for axis, (title, values) in zip(axes, panels.items(), strict=True):
            extent = (steps[0] - half, steps[-1] + half, len(names) - 0.5, -0.5)
            norm = TwoSlopeNorm(0.0, -largest, largest)
            image = axis.imshow(values, aspect="auto", interpolation="nearest", cmap="RdBu_r", norm=norm, extent=extent)
            axis.set_facecolor(MISSING_COLOUR)
            for row in groups:
                axis.axhline(row - 0.5, color="white", linewidth=3.0)
            axis.axvline(SWITCH + half, color="black", linewidth=1.1, linestyle=(0, (4, 2)))
            axis.set(title=title, xlabel="step")
            axis.set_yticks(range(len(names)), names)
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=24, extend="both")
        bar.set_label("robust standard deviations, mean over seeds")
        figure.suptitle("How far switched runs are from quiet runs (dashed: the switch)", x=0.01, ha="left")
        figure.savefig(file)
