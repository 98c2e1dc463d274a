"""Pictures of the fine-tuning runs: time zigzags side by side, survival with its floor, what sees the switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from fine_tuning_series import SWITCH, Series
from matplotlib.colors import PowerNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import MISSING_COLOUR
from topo_callback.figures.zigzag_panels import ITSELF_COLOUR, SHARES

COLOURS = ("#0072B2", "#D55E00", "#AA4499")  # continued, switched, switched to the other text
GREY, GRID = "#777777", "#e6e6e6"
DASHED, DOTTED = (0, (4, 2)), (0, (1.5, 1.2))


def zigzag_picture(
    matrices: Mapping[str, np.ndarray], curves: Mapping[str, Sequence[Series]], layer: int, file: Path
) -> None:
    """A column for each kind of run: the matrix of one run, and two-stage survival since the start and the switch.

    Args:
        matrices: heading -> similarity [samples, samples] along the time zigzag; the first one is of quiet runs.
        curves: heading -> the runs of that kind, one a seed.
        layer: which one.
        file: PNG.
    """
    steps = next(iter(curves.values()))[0].steps
    quiet = next(iter(curves.values()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 10.6), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07))
        rows = figure.subplots(3, len(matrices), height_ratios=[1.45, 1.0, 1.0], squeeze=False)
        for column, (colour, (title, matrix), runs) in enumerate(
            zip(COLOURS, matrices.items(), curves.values(), strict=True)
        ):
            image = _matrix(rows[0, column], matrix, steps, switched=column > 0)
            rows[0, column].set_title(title, color=colour)
            for row, since in ((1, "first"), (2, "switch")):
                axis = rows[row, column]
                _survival(axis, runs, layer, since, colour)
                if column > 0:
                    _continued(axis, quiet, layer, since)
                start = 0 if since == "first" else SWITCH
                axis.set_title(f"Loops left of step {start}'s, {len(runs)} seeds", fontweight="normal")
        rows[0, 0].set_ylabel("i: step")
        rows[1, 0].set_ylabel("two-stage survival, H1")
        rows[2, 0].set_ylabel("two-stage survival, H1")
        bar = figure.colorbar(image, ax=list(rows[0]), label="share of the loops of step j", pad=0.01, aspect=28)
        bar.set_ticks(SHARES, labels=[f"{share:g}" for share in SHARES])
        bar.ax.yaxis.set_minor_locator(NullLocator())
        figure.legend(handles=_handles(), loc="outside lower center", ncols=4, columnspacing=1.6)
        figure.suptitle(
            f"Layer {layer}: loops alive from step i to step j along the time zigzag (one run each), and what is left",
            x=0.005,
            ha="left",
        )
        figure.savefig(file)


def _handles() -> list:
    return [
        Line2D([], [], color="black", linewidth=2, marker="o", markersize=3, label="mean over seeds"),
        Patch(facecolor="black", alpha=0.16, label="range over seeds"),
        Line2D(
            [], [], color="black", linewidth=1.2, linestyle=DOTTED, label="Gaussian clouds of equal covariance, mean"
        ),
        Line2D([], [], color=GREY, linewidth=1.2, linestyle=DASHED, label="continued runs of the same seeds, mean"),
    ]


def _matrix(axis, matrix: np.ndarray, steps: np.ndarray, *, switched: bool):
    """One cell for each sample; a sample with itself, always 1, is grey."""
    image = axis.imshow(
        np.ma.masked_array(matrix, np.eye(len(matrix), dtype=bool)),
        origin="lower",
        norm=PowerNorm(0.5, 0.0, 1.0),
        cmap=mpl.colormaps["viridis"].with_extremes(bad=ITSELF_COLOUR),
        interpolation="nearest",
    )
    if switched:
        last = int(np.searchsorted(steps, SWITCH))
        for line in (axis.axvline, axis.axhline):  # between the last sample before the switch and the first after it
            line(last + 0.5, color="white", linewidth=1.1, linestyle=DASHED)
        axis.annotate(
            f"switch after {SWITCH}", (last + 0.5, len(steps) - 0.5), (-3, -4), textcoords="offset points",
            color="white", va="top", ha="right", fontsize=8,
        )  # fmt: skip
    named = np.flatnonzero(np.isin(steps, range(0, int(steps[-1]) + 1, 20)))
    axis.set_xticks(named, [str(step) for step in steps[named]])
    axis.set_yticks(named, [str(step) for step in steps[named]])
    axis.set_xlabel("j: step")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=2)
    return image


def _of_seeds(runs: Sequence[Series], measure: str, since: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps from the one compared with on, and a number of every run there; at the first one 1 by definition."""
    column = int(np.flatnonzero(runs[0].layers == layer)[0])
    chosen = runs[0].steps >= (SWITCH if since == "switch" else 0)
    values = np.stack([run.of(f"{measure}.{since}")[chosen, column] for run in runs])
    values[:, 0] = 1.0
    return runs[0].steps[chosen], values


def _survival(axis, runs: Sequence[Series], layer: int, since: str, colour: str) -> None:
    steps, real = _of_seeds(runs, "survival_h1", since, layer)
    _, floor = _of_seeds(runs, "survival_h1_gaussian", since, layer)
    axis.fill_between(steps, real.min(axis=0), real.max(axis=0), color=colour, alpha=0.16, linewidth=0)
    axis.plot(steps, real.mean(axis=0), color=colour, linewidth=2, marker="o", markersize=3)
    axis.plot(steps, floor.mean(axis=0), color="black", linewidth=1.2, linestyle=DOTTED)
    axis.set_xticks(range(0, 81, 20) if since == "first" else range(SWITCH, 81, 8))
    axis.set(xlabel="step", ylim=(-0.02, 1.04))
    axis.grid(axis="y", color=GRID, linewidth=0.7)


def _continued(axis, quiet: Sequence[Series], layer: int, since: str) -> None:
    steps, values = _of_seeds(quiet, "survival_h1", since, layer)
    after = steps >= SWITCH
    axis.plot(steps[after], values.mean(axis=0)[after], color=GREY, linewidth=1.2, linestyle=DASHED)
    if since == "first":
        axis.axvline(SWITCH, color=GREY, linewidth=0.8, linestyle=DASHED)
        axis.annotate(f"switch after {SWITCH}", (SWITCH, 1.0), (3, 0), textcoords="offset points", color=GREY, va="top")


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
