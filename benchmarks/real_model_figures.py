"""The pictures of RESULTS_real_model.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from real_model_forgetting import CHOICES, EARLY, NUMBERS, forgotten, or_last, regret
from real_model_runs import ASKED, NARROW
from real_model_series import SIGNS, Run
from real_model_transition import time_of

from topo_callback.figures.figures import STYLE

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"  # of Okabe and Ito
WIDTH, DPI = 9.2, 130  # inches: that of the page, so that 9 points are 9 points there
AGAINST_CONTROLS = {
    "step of the weights": "norm of the step",
    "gradient norm": "norm",
    "RTD": "RTD, median of layers",
    "CKA": "1 - CKA, median of layers",
    "effective rank": "change of the rank, median of layers",
}
TELLING = {"RTD": "RTD", "CKA": "1 - CKA", "answers moved (KL)": "KL of the answers, nats"}
RATES = {1e-4: BLUE, 4e-4: GREEN, 1.6e-3: ORANGE}
MARKERS = dict(zip(NARROW, "osDv^P", strict=True))
CHOSEN = {"the page's card": ("o", BLUE), "the last": ("s", ORANGE), "lowest evaluation loss": ("x", "black")}


def draw_transition(runs: Sequence[Run]) -> None:
    """Six panels: refusals by step, and five numbers of the runs on refusals against two kinds of controls."""
    of_kind = {kind: [run for run in runs if run.job["kind"] == kind] for kind in ("refusals", "benign", "shuffled")}
    taught = of_kind["refusals"]
    middle = float(np.median([time_of(run) for run in taught]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
        axes = figure.subplots(3, 2, sharex=True).ravel()
        for place, (label, colour) in enumerate((("requests for harm", BLUE), ("harmless requests", ORANGE))):
            values = np.array([run.refused[:, place] for run in taught])
            _runs(axes[0], taught[0].steps, values, colour, label, dashed=bool(place))
        axes[0].set(title="Refused, trained on refusals", ylabel=f"answers of {ASKED}", ylim=(0, ASKED))
        axes[0].legend(loc="lower right")
        signs = {sign.title: sign for sign in SIGNS}
        for axis, (title, unit) in zip(axes[1:], AGAINST_CONTROLS.items(), strict=True):
            sign = signs[title]
            for kind, colour, hatch in (("benign", GREY, ""), ("shuffled", ORANGE, "////")):
                values = np.array([sign.values(run) for run in of_kind[kind]])
                low, high = values.min(axis=0), values.max(axis=0)
                axis.fill_between(
                    sign.steps(taught[0]), low, high, facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=0,
                    hatch=hatch, label=f"{kind} rows, all five",
                )  # fmt: skip
            _runs(
                axis,
                sign.steps(taught[0]),
                np.array([sign.values(run) for run in taught]),
                BLUE,
                "refusals: each, median",
            )
            axis.set(title=title[0].upper() + title[1:], ylabel=unit)
            axis.set_ylim(bottom=0)
        axes[1].legend(loc="upper right")
        for axis in axes:
            axis.axvline(middle, color="#444444", linewidth=1, linestyle=(0, (4, 3)))
            axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
            axis.set_xlim(0, taught[0].steps[-1])
        axes[0].text(middle - 0.3, 22.5, "midpoint", color="#444444", ha="right")
        for axis in axes[-2:]:
            axis.set_xlabel("optimizer step")
        figure.savefig(HERE / "RESULTS_real_model_transition.png", dpi=DPI)


def _runs(axis: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str, *, dashed: bool = False) -> None:
    """Every run as a line [runs, steps], the median of them thick."""
    style = "--" if dashed else "-"
    axis.plot(steps, values.T, style, color=colour, linewidth=0.8, alpha=0.5)
    axis.plot(steps, np.median(values, axis=0), style, color=colour, linewidth=2.2, label=label)


def draw_forgetting(runs: Sequence[Run]) -> None:
    """Three numbers at a tenth of the run against the forgetting at its end, and what each choice costs in each run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 9.4), layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.5))
        above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        axes = above.subplots(1, len(TELLING), sharey=True)
        signs = {sign.title: sign for sign in NUMBERS}
        for axis, (title, label) in zip(axes, TELLING.items(), strict=True):
            for run in runs:
                kind, rate = run.job["kind"], run.job["rate"]
                x, y = signs[title].at(run, EARLY[0]), forgotten(run)
                axis.plot(x, y, MARKERS[kind], color=RATES[rate], markersize=8, markeredgecolor="white", alpha=0.9)
            axis.set(xscale="log", xlabel=f"{label}, step {EARLY[0]}", title=title[0].upper() + title[1:])
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(color="#e6e6e6", linewidth=0.7)
        axes[0].set_ylabel("forgetting at step 40,\nnats per token")
        handles = [
            Line2D([], [], marker="o", linestyle="", color=colour, label=f"rate {rate:g}")
            for rate, colour in RATES.items()
        ]
        axes[0].legend(handles=handles, loc="upper left")
        handles = [Line2D([], [], marker=MARKERS[kind], linestyle="", color=GREY, label=kind) for kind in NARROW]
        above.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        _regrets(below.subplots(), runs)
        figure.savefig(HERE / "RESULTS_real_model_forgetting.png", dpi=DPI)


def _regrets(axis: Axes, runs: Sequence[Run]) -> None:
    ordered = sorted(runs, key=lambda run: (NARROW.index(run.job["kind"]), run.job["rate"]))
    rows = np.arange(len(ordered))
    for shift, (title, (marker, colour)) in zip((-0.22, 0, 0.22), CHOSEN.items(), strict=True):
        costs = [regret(run, or_last(run, CHOICES[title](run))) for run in ordered]
        filled = "none" if marker == "s" else colour
        axis.plot(costs, rows + shift, marker, color=colour, markerfacecolor=filled, markersize=6, label=title)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_xticks([0, 0.005, 0.01, 0.03, 0.1, 0.3, 1], ["0", "0.005", "0.01", "0.03", "0.1", "0.3", "1"])
    axis.set_xticks([], minor=True)
    axis.set_xlim(-0.0008, 1.5)
    axis.set_yticks(rows, [f"{run.job['kind']}, {run.job['rate']:g}" for run in ordered])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(color="#e6e6e6", linewidth=0.7)
    axis.set_xlabel("nats per token above the best sample (linear up to 0.01, then logarithmic)")
    axis.set_title("What a choice of the checkpoint costs, by run")
    axis.legend(loc="center right")
