"""Seconds and memory of the native zigzag engine as points, neighbours and stages grow: a table and a picture."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from zigzag_inputs import best_time, drifting_neighbours

from topo_callback.figures.figures import STYLE
from topo_callback.figures.zigzag_panels import BLUE, ORANGE
from topo_callback.homology import zigzag_persistence

AROUND = {"points": 2000, "k": 5, "stages": 16}
GROWING = {"points": (1000, 2000, 4000, 8000), "k": (3, 5, 8, 12), "stages": (4, 16, 64, 256)}
DRIFTS = {0.02: BLUE, 0.15: ORANGE}
WORDS = {"points": "points", "k": "neighbours k", "stages": "stages"}
GRID = "#e6e6e6"


def measured_alone(answers, file):
    """Seconds, peak memory of this process beyond its state before the barcode in MiB, bars."""
    neighbours = np.load(file)
    zigzag_persistence(np.array([[[1], [2], [0]]]))  # compiled, or read from the cache
    before = peak_mib(anew=True)
    seconds, found = best_time(lambda: zigzag_persistence(neighbours), repeats=1 if neighbours.size > 10**7 else 3)
    memory = peak_mib() - before
    answers.put((seconds, memory, len(found)))


def peak_mib(anew=False):
    """Largest resident memory of this process so far; with `anew`, Linux forgets what was before."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def growth_row(setting):
    """One row of the table of growth, its seconds and MiB; measured in a process of its own for its own peak memory."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "neighbours.npy"
        np.save(file, drifting_neighbours(**setting))
        process = context.Process(target=measured_alone, args=(answers, file))
        process.start()
        seconds, memory, bars = answers.get()
        process.join()
    head = f"| {setting['points']:,} | {setting['k']} | {setting['stages']} | {setting['drift']}"
    return f"{head} | {bars:,} | {seconds:.3f} | {memory:.0f} |", seconds, memory


def growth_rows(growing=GROWING, around=AROUND):
    """Rows of the table, and (what grows, drift) -> [(value, seconds, MiB), ...]: one thing at a time."""
    rows, series = [], {}
    for drift in DRIFTS:
        for what, values in growing.items():
            for value in values:
                row, seconds, memory = growth_row({**around, "drift": drift, what: value})
                series.setdefault((what, drift), []).append((value, seconds, memory))
                rows.append(row)
    return rows, series


def plot(series, file, around=AROUND):
    """Seconds above, memory below; a column for each thing that grows, a line for each drift, named at its end."""
    names = list(dict.fromkeys(what for what, _ in series))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 6.2), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
        for (what, drift), curve in series.items():
            column = names.index(what)
            values, seconds, memory = zip(*curve, strict=True)
            for axis, heights in zip(axes[:, column], (seconds, memory), strict=True):
                axis.loglog(values, heights, color=DRIFTS[drift], linewidth=1.4, marker="o", markersize=3.5)
                named(axis, values, heights, f"drift {drift:.2f}", DRIFTS[drift])
            axes[1, column].set_xlabel(WORDS[what])
            axes[1, column].set_xticks(values, [f"{value:,}" for value in values])
        for axis in axes.flat:
            axis.grid(True, which="major", color=GRID, linewidth=0.7)
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.minorticks_off()
            axis.margins(x=0.16, y=0.12)
        for axis, unit in zip(axes[:, 0], ("seconds", "peak memory, MiB"), strict=True):
            axis.set_ylabel(unit)
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        name_slowest(axes[0], names, series)
        fixed = f"{around['points']:,} points, k = {around['k']}, {around['stages']} stages"
        figure.suptitle(f"Native zigzag engine, from neighbours to barcode, H1, around {fixed}", x=0.005, ha="left")
        figure.savefig(file, dpi=120)


def named(axis, values, heights, text, colour):
    """The name of a line beside its last point."""
    place = (values[-1], heights[-1])
    axis.annotate(text, place, (5, 0), textcoords="offset points", color=colour, fontsize=8, va="center")


def name_slowest(axes, names, series):
    """Say what the highest point of the upper row is."""
    seconds, what, value = max((point[1], what, point[0]) for (what, _), curve in series.items() for point in curve)
    axes[names.index(what)].annotate(
        f"slowest: {seconds:.3g} s, {what} = {value:,}",
        (value, seconds), (-8, 0), textcoords="offset points", ha="right", va="center", fontsize=8,
    )  # fmt: skip
