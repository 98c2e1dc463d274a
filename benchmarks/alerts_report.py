"""Tables and figures from the files that alerts.py writes.

    python benchmarks/alerts_report.py FOLDER

Tables replace what is between the marks in RESULTS_alerts.md; every cell goes to RESULTS_alerts_cells.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from alerts import AUTOCORRELATIONS, BURSTS, SAMPLES, SCHEDULES, TAILS
from machine import describe_machine
from scipy.stats import binomtest

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin of the tables -->", "<!-- end of the tables -->"
COLOURS = {"oracle": "#8a8a8a", "calibrated": "#d55e00"}
NAMES = {"oracle": "oracle that knows the noise", "calibrated": "19 references"}
Record = dict[str, Any]


def load(folder: Path) -> list[Record]:
    found = []
    for samples in SAMPLES:
        for schedule in SCHEDULES:
            path = folder / f"alerts_{samples}_{schedule}.jsonl"
            if path.exists():
                found += [record for line in path.read_text().splitlines() for record in json.loads(line)]
    return found


def share(record: Record, level: str) -> float:
    return float(record[f"alarms_{level}"]) / float(record[f"runs_{level}"])


def interval(alarms: int, runs: int) -> str:
    """Exact 95 % interval of a share, in per cent."""
    found = binomtest(alarms, runs).proportion_ci(0.95)
    return f"{100 * alarms / runs:.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def false_alarms(records: list[Record]) -> Iterable[str]:
    yield "| samples | runs a cell | all cells | worst cell | cells above 5 % | with an interval above 5 % |"
    yield "|---|---|---|---|---|---|"
    for level, name in (("a", "A"),):
        for samples in SAMPLES:
            quiet = [r for r in records if r["samples"] == samples and r["burst"] == 1.0]
            if not quiet:
                continue
            alarms, runs = (sum(r[f"{what}_{level}"] for r in quiet) for what in ("alarms", "runs"))
            worst = max(quiet, key=lambda r: share(r, level))
            above = sum(share(r, level) > 0.05 for r in quiet)
            low = [binomtest(r[f"alarms_{level}"], r[f"runs_{level}"]).proportion_ci(0.95).low for r in quiet]
            yield (
                f"| {name}, {samples} | {quiet[0][f'runs_{level}']} | {100 * alarms / runs:.1f} | "
                f"{interval(worst[f'alarms_{level}'], worst[f'runs_{level}'])} | {above} of {len(quiet)} | "
                f"{sum(value > 0.05 for value in low)} |"
            )


def power(records: list[Record]) -> Iterable[str]:
    heads = " | ".join(f"x{height:g}" for height in BURSTS)
    yield f"| samples, autocorrelation | A {heads} | oracle {heads} |"
    yield "|---|" + "---|" * (2 * len(BURSTS))
    for samples in SAMPLES:
        for rho in AUTOCORRELATIONS:
            cells = [r for r in records if r["samples"] == samples and r["rho"] == rho]
            if not cells:
                continue
            columns = []
            measures: tuple[Callable[[Record], float], ...] = (
                lambda r: share(r, "a"),
                lambda r: float(r["oracle"]),
            )
            for measure in measures:
                for height in BURSTS:
                    values = [100 * measure(r) for r in cells if r["burst"] == height]
                    columns.append(f"{np.mean(values):.0f} ({min(values):.0f}-{max(values):.0f})")
            yield f"| {samples}, {rho:g} | " + " | ".join(columns) + " |"


def places(records: list[Record]) -> Iterable[str]:
    yield "| samples | burst | meets | onset | peak |"
    yield "|---|---|---|---|---|"
    for samples in SAMPLES:
        for height in (2.0, 3.0, 6.0):
            cells = [r for r in records if r["samples"] == samples and r["burst"] == height]
            if cells:
                columns = [mean_place(cells, "a", what) for what in ("met", "onset", "peak")]
                yield f"| {samples} | x{height:g} | " + " | ".join(columns) + " |"


def mean_place(cells: list[Record], level: str, what: str) -> str:
    values = [(r[f"place_{level}"][what], r[f"alarms_{level}"]) for r in cells if what in r[f"place_{level}"]]
    values = [(value, weight) for value, weight in values if weight]
    if not values:
        return "-"
    return f"{100 * weighted(values):.0f} %" if what == "met" else f"{weighted(values):.1f}"


def weighted(values: list[tuple[float, int]]) -> float:
    return float(np.average([value for value, _ in values], weights=[weight for _, weight in values]))


def every_cell(records: list[Record]) -> Iterable[str]:
    heads = " | ".join(f"x{height:g}" for height in BURSTS)
    yield f"| samples | rate | sampling | rho | noise | quiet | {heads} | oracle x2 |"
    yield "|---|" + "---|" * (6 + len(BURSTS))
    for quiet in (r for r in records if r["burst"] == 1.0):
        key = [quiet[name] for name in ("samples", "schedule", "sampling", "rho", "tails")]
        same = [r for r in records if [r[name] for name in ("samples", "schedule", "sampling", "rho", "tails")] == key]
        bursts = {r["burst"]: r for r in same}
        columns = [str(value) for value in key]
        columns += [interval(quiet[f"alarms_{level}"], quiet[f"runs_{level}"]) for level in "a"]
        columns += [f"{100 * share(bursts[height], level):.0f}" for level in "a" for height in BURSTS]
        yield "| " + " | ".join([*columns, f"{100 * bursts[2.0]['oracle']:.0f}"]) + " |"


def done(records: list[Record]) -> str:
    cells = {samples: sum(r["samples"] == samples and r["burst"] == 1.0 for r in records) for samples in SAMPLES}
    seconds = sum(r.get("seconds", 0.0) for r in records)
    counted = ", ".join(f"{count} of 36 with {samples} samples" for samples, count in cells.items())
    return f"Cells simulated: {counted};\n{seconds / 60:.0f} minutes of one processor.\n\n{describe_machine()}"


TABLES = (
    ("False alarms, % of quiet runs (exact 95 % interval)", false_alarms),
    ("Power, %: mean over schedules, samplings and tails (range of cells)", power),
    ("Where bursts are placed: mean absolute errors in samples", places),
)


def style(axes: plt.Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, labelsize=8)


def draw_power(records: list[Record], path: Path) -> None:
    lengths = [samples for samples in SAMPLES if any(r["samples"] == samples for r in records)]
    figure, grid = plt.subplots(
        len(AUTOCORRELATIONS), len(lengths), figsize=(10, 5.6), sharex=True, sharey=True, layout="constrained"
    )
    measures: dict[str, Callable[[Record], float]] = {
        "oracle": lambda r: float(r["oracle"]),
        "calibrated": lambda r: share(r, "a"),
    }
    for row, rho in enumerate(AUTOCORRELATIONS):
        for column, samples in enumerate(lengths):
            axes = grid[row, column]
            style(axes)
            here = [r for r in records if (r["samples"], r["rho"]) == (samples, rho)]
            for name, measure in measures.items() if here else ():
                heights = np.array([1.0, *BURSTS])
                lines = []
                for height in heights:
                    cells = [r for r in here if r["burst"] == height]
                    quiet = name == "oracle" and height == 1.0
                    lines.append([0.05] * len(cells) if quiet else [measure(r) for r in cells])
                low, mean, high = (np.array([f(line) for line in lines]) for f in (np.min, np.mean, np.max))
                axes.fill_between(heights, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
                axes.plot(
                    heights, mean, color=COLOURS[name], marker="o", markersize=3, linewidth=1.5, label=NAMES[name]
                )
            axes.axhline(0.05, color="black", linewidth=0.6, linestyle=(0, (2, 3)))
            axes.set_xscale("log")
            axes.set_xticks([1, 2, 3, 6], ["1", "2", "3", "6"])
            axes.minorticks_off()
            axes.set_ylim(0, 1.03)
            axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            if row == 0:
                axes.set_title(f"{samples} samples", fontsize=10)
            if column == 0:
                axes.set_ylabel(f"autocorrelation {rho:g}", fontsize=9)
    figure.supxlabel("height of the burst: displacement over what the weights' path predicts", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    figure.supylabel("runs with an alarm", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_false_alarms(records: list[Record], path: Path) -> None:
    quiet = [r for r in records if r["burst"] == 1.0]
    lengths = [samples for samples in SAMPLES if any(r["samples"] == samples for r in quiet)]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    level, name = "a", "calibrated"
    style(axes)
    for place, samples in enumerate(lengths):
        for kind, (rho, tails) in enumerate((rho, tails) for rho in AUTOCORRELATIONS for tails in TAILS):
            cells = [r for r in quiet if (r["samples"], r["rho"], r["tails"]) == (samples, rho, tails)]
            x = place + (kind - 2.5) * 0.12
            values = [100 * share(r, level) for r in cells]
            filled = COLOURS[name] if tails == "t3" else "white"
            axes.scatter([x] * len(values), values, s=14, facecolor=filled, edgecolor=COLOURS[name], linewidth=0.8)
    axes.axhline(5, color="black", linewidth=0.8)
    axes.set_xticks(range(len(lengths)), [str(samples) for samples in lengths])
    axes.set_xlabel("samples; within each: autocorrelation 0, 0.5, 0.8", fontsize=9)
    axes.set_title(NAMES[name], fontsize=10, color=COLOURS[name], loc="left")
    axes.set_ylim(-0.2, 6)
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.set_ylabel("quiet runs with an alarm, %", fontsize=9)
    axes.text(len(lengths) - 0.5, 5.1, "the level, 5 %", ha="right", fontsize=8)
    for filled, label in (("white", "Gaussian"), ("#555555", "Student t, 3 degrees")):
        axes.scatter([], [], s=14, facecolor=filled, edgecolor="#555555", linewidth=0.8, label=label)
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2, bbox_to_anchor=(0, 0.99))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    records = load(parser.parse_args().folder)
    tables = [f"## {title}\n\n" + "\n".join(table(records)) for title, table in TABLES]
    page = HERE / "RESULTS_alerts.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + "\n\n" + "\n\n".join([done(records), *tables]) + "\n\n" + END + after)
    (HERE / "RESULTS_alerts_cells.md").write_text(
        "# Events: every simulated cell\n\nShares of runs with an alarm, %; quiet runs with their exact 95 % interval. "
        "[Conditions and summary](RESULTS_alerts.md).\n\n" + "\n".join(every_cell(records)) + "\n"
    )
    draw_power(records, HERE / "RESULTS_alerts_power.png")
    draw_false_alarms(records, HERE / "RESULTS_alerts_quiet.png")


if __name__ == "__main__":
    main()
