"""Tables from the files that alerts.py writes.

    python benchmarks/alerts_report.py FOLDER

Tables replace what is between the marks in RESULTS_alerts.md; every cell goes to RESULTS_alerts_cells.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from alerts import AUTOCORRELATIONS, BURSTS, SAMPLES, SCHEDULES
from machine import describe_machine
from scipy.stats import binomtest

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin of the tables -->", "<!-- end of the tables -->"
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


if __name__ == "__main__":
    main()
