"""The picture of RESULTS_transition.md: numbers around the transition, over seeds, and which of them is ahead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from transition_report import GEOMETRY, NUMBERS, TOPOLOGY, Watched, first_times, since
from transition_statistics import lead

from topo_callback.figures.figures import STYLE

COLOURS = {"topology": "#0072B2", "geometry": "#D55E00", "training": "#555555"}
GRID = "#e6e6e6"
CURVES = (
    ("wasserstein_h1.previous", "Wasserstein H1, over that of quiet runs"),
    ("mutual_knn.previous", "1 - mutual kNN, over that of quiet runs"),
    ("grad_norm", "Gradient norm, over that of quiet runs"),
)
BEFORE, AFTER = 160, 200  # steps around the middle of the transition


def group_of(name: str) -> str:
    return "topology" if name in TOPOLOGY else "geometry" if name in GEOMETRY else "training"


def picture(runs: Sequence[Watched], quiet: Sequence[Watched], file: Path) -> None:
    """Left: curves of all seeds, aligned at the middle of the transition. Right: when each number first stands out."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 8.2), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[1.0, 1.05], wspace=0.04)
        axes = left.subplots(1 + len(CURVES), 1, sharex=True)
        _gain(axes[0], runs)
        for axis, (name, title) in zip(axes[1:], CURVES, strict=True):
            _ratio(axis, runs, quiet, name, title)
        axes[-1].set_xlabel("steps since the middle of the transition")
        left.suptitle("Median and quartiles of seeds, aligned at the transition", x=0.02, ha="left")
        axis = right.subplots()
        _forest(axis, runs, quiet)
        right.suptitle("First sample beyond what quiet runs do, each seed", x=0.02, ha="left")
        right.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(file)


def _frame(axis, title: str) -> None:
    axis.axvline(0, color="#777777", linewidth=0.9, linestyle=(0, (4, 2)))
    axis.grid(axis="y", color=GRID, linewidth=0.7)
    axis.set_title(title, loc="left")
    axis.set_xlim(-BEFORE, AFTER)


def _gain(axis, runs: Sequence[Watched]) -> None:
    for run in runs:
        axis.plot(run.held_out_steps - run.transition.middle, run.gain, color="#999999", linewidth=0.8, alpha=0.6)
    axis.set_ylabel("nats")
    _frame(axis, f"What repetition gains on held-out sequences, {len(runs)} seeds")


def _ratio(axis, runs: Sequence[Watched], quiet: Sequence[Watched], name: str, title: str) -> None:
    usual = np.median([run.numbers[name] for run in quiet], axis=0)
    grid = np.arange(-BEFORE, AFTER + 1, 4)
    rows = []
    for run in runs:
        ratio = (run.numbers[name] / usual)[1:]
        middle = (run.steps[1:] + run.steps[:-1]) / 2 - run.transition.middle
        rows.append(np.interp(grid, middle, ratio, left=np.nan, right=np.nan))
    stacked = np.stack(rows)
    shown = np.isfinite(stacked).sum(axis=0) >= max(1, len(runs) // 2)
    low, half, high = np.nanquantile(stacked[:, shown], (0.25, 0.5, 0.75), axis=0)
    colour = COLOURS[group_of(name)]
    axis.fill_between(grid[shown], low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(grid[shown], half, color=colour, linewidth=2)
    axis.axhline(1, color="#777777", linewidth=0.8)
    axis.set_ylabel("ratio")
    _frame(axis, title)


def _forest(axis, runs: Sequence[Watched], quiet: Sequence[Watched]) -> None:
    labels, largest = [], AFTER
    for row, (name, (label, kind)) in enumerate(NUMBERS.items()):
        times = since(runs, first_times(runs, quiet, name), lambda transition: transition.middle)
        found = lead(times)
        colour = COLOURS[group_of(name)]
        seen = [time for time in times if np.isfinite(time)]
        axis.plot(seen, row + np.linspace(-0.22, 0.22, len(seen)), ".", color=colour, alpha=0.4, markersize=5)
        if np.isfinite(found.median):
            ends = np.clip([found.low, found.high], -AFTER, largest)
            axis.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot([found.median], [row], "o", color=colour, markersize=7, markeredgecolor="white")
        labels.append(f"{label} ({kind}), {found.seen} of {found.seeds}")
    begins = np.median([run.transition.begin - run.transition.middle for run in runs])
    ends = np.median([run.transition.end - run.transition.middle for run in runs])
    axis.axvspan(begins, ends, color="#f0f0f0", zorder=0)
    axis.axvline(0, color="#777777", linewidth=0.9, linestyle=(0, (4, 2)))
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlim(-AFTER, largest)
    axis.grid(axis="x", color=GRID, linewidth=0.7)
    axis.set_xlabel("steps since the middle of the transition")
    axis.spines[["left", "right", "top"]].set_visible(False)
    for group, colour in COLOURS.items():
        axis.plot([], [], "o", color=colour, label=group)
    axis.plot([], [], "s", color="#e0e0e0", label="10 to 90 % of the gain")
