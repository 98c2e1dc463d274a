"""Onsets, found on the samples of one run alone: power, lag and false alarms, real runs and simulated ones.

    python benchmarks/samples.py pack --runs FOLDER
    python benchmarks/samples.py simulate --work FOLDER [--runs 400]
    python benchmarks/samples.py report --work FOLDER

`pack` takes what is judged from the arrays of real runs (one npz each: displacements of six layers between samples, the
learning rates of the schedule, the path of the weights) into data/samples.npz. `simulate` judges quiet processes
(samples_processes.py) and changes in them, and writes counts to FOLDER/samples.json. `report` judges the real runs and
writes RESULTS_samples.md from both; what is below its heading "Read with this" is kept. The detector is the product's
own, with its own settings; nothing is fitted here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import numpy as np
from events import EVENTS, QUIET, share
from events_runs import EVENT
from machine import describe_machine
from samples_processes import QUIET as PROCESSES
from samples_processes import quiet_series

from topo_callback.dynamics import Series
from topo_callback.dynamics.onsets import SIGNALS, find_onsets

HERE = Path(__file__).parent
PACKED, RESULTS = HERE / "data" / "samples.npz", HERE / "RESULTS_samples.md"
KEPT = "\n## Read with this"
LENGTHS = (8, 15, 36, 100, 200)
BOUND = 0.05
RAW = {"rtd": "pair_rtd", "cka": "pair_cka", "mutual_knn": "pair_knn"}
SETS = {
    "all together": (SIGNALS, True),
    "without the next-token distributions": (SIGNALS, False),
    "RTD alone": (("rtd",), False),
    "1 - CKA alone": (("cka",), False),
    "1 - mutual kNN alone": (("mutual_knn",), False),
    "Wasserstein H1 alone": (("wasserstein_h1",), False),
}
HEIGHTS = (2.0, 3.0, 6.0)
CHANGED = ("independent, Gaussian", "autoregressive, .8", "saturating, linear")


def pack(folder: Path) -> None:
    """One array [runs, intervals, columns] a kind: layers of the displacements, answers, plan, path, step."""
    kinds: dict[str, list[np.ndarray]] = defaultdict(list)
    for path in sorted(folder.glob("*.npz"), key=_number):
        with np.load(path) as raw:
            steps = raw["samples"].astype(int)
            sums = [np.diff(np.concatenate([[0.0], np.cumsum(raw[name])])[steps]) for name in ("plan", "step")]
            columns = [raw[name] for name in (*RAW.values(), "pair_w1")]
            rest = [raw["pair_js"].mean(axis=1), *sums, steps[1:]]
            kinds[path.stem.rpartition("_")[0]].append(np.concatenate([*columns, np.stack(rest, axis=1)], axis=1))
    np.savez_compressed(PACKED, **{kind: np.stack(runs).astype(np.float32) for kind, runs in kinds.items()})
    print(PACKED.stat().st_size, {kind: len(runs) for kind, runs in kinds.items()})


def _number(path: Path) -> tuple[str, int]:
    kind, _, number = path.stem.rpartition("_")
    return kind, int(re.sub(r"\D", "", number) or 0)


def load() -> dict[str, list[Series]]:
    """The real runs, by kind."""
    with np.load(PACKED) as packed:
        return {kind: [_series(run.astype(np.float64)) for run in packed[kind]] for kind in packed.files}


def _series(columns: np.ndarray) -> Series:
    names = (*RAW, "wasserstein_h1")
    layers = (columns.shape[1] - 4) // len(names)
    displacement = {name: columns[:, n * layers : (n + 1) * layers] for n, name in enumerate(names)}
    answers, plan, path, steps = columns[:, -4:].T
    return Series(
        steps=(0, *steps.astype(int).tolist()),
        layers=tuple(range(1, layers + 1)),
        displacement=displacement,
        path=path,
        clock="path_length",
        rates=plan,
        answers=answers,
    )


def known_at(series: Series, signals: tuple[str, ...], *, answers: bool) -> list[int]:
    """The steps at which onsets were known."""
    if not answers:
        series = Series(
            series.steps, series.layers, series.displacement, series.path, series.clock, rates=series.rates
        )  # fmt: skip
    return [series.steps[onset.samples - 1] for onset in find_onsets(series, signals)]


def power_lines(runs: Mapping[str, list[Series]]) -> Iterator[str]:
    yield "## Planted events\n"
    yield "| displacements | found | kinds found in most seeds | median lag | alarmed before | quiet alarmed |"
    yield "|---|---|---|---|---|---|"
    quiet = [series for kind in QUIET for series in runs.get(kind, [])]
    by_kind: dict[str, list[str]] = {}
    for title, (signals, answers) in SETS.items():
        lags: dict[str, list[int | None]] = {}
        early = 0
        for kind in EVENTS:
            for series in runs[kind]:
                known = known_at(series, signals, answers=answers)
                early += any(step <= EVENT for step in known)
                lags.setdefault(kind, []).append(next((step - EVENT for step in known if step > EVENT), None))
        found = [lag for each in lags.values() for lag in each if lag is not None]
        most = sum(2 * sum(lag is not None for lag in each) > len(each) for each in lags.values())
        alarmed = sum(bool(known_at(series, signals, answers=answers)) for series in quiet)
        yield (
            f"| {title} | {share(len(found), sum(map(len, lags.values())))} | {most} of {len(lags)} | "
            f"{np.median(found):g} | {early} | {share(alarmed, len(quiet))} |"
        )
        by_kind = by_kind or {kind: ["-" if lag is None else str(lag) for lag in each] for kind, each in lags.items()}
    yield "\nLags of all together, by seed:\n\n| event | lags, steps |\n|---|---|"
    yield from (f"| {EVENTS[kind]} | {', '.join(lags)} |" for kind, lags in by_kind.items())


def quiet_lines(runs: Mapping[str, list[Series]]) -> Iterator[str]:
    yield "\n## Quiet runs\n\n| runs | alarmed |\n|---|---|"
    for title, kinds in (*((title, [kind]) for kind, title in QUIET.items()), ("all", list(QUIET))):
        judged = [series for kind in kinds for series in runs.get(kind, [])]
        alarmed = sum(bool(known_at(series, SIGNALS, answers=True)) for series in judged)
        yield f"| {title} | {share(alarmed, len(judged))} |"


def simulate(work: Path, runs: int) -> None:
    """Count alarms in quiet runs of every process and length, and changes that are found."""
    quiet, changes = {}, {}
    for process in PROCESSES:
        for samples in LENGTHS:
            every = (quiet_series(process, samples, run) for run in range(runs))
            quiet[f"{process}|{samples}"] = sum(bool(find_onsets(series, SIGNALS)) for series in every)
        print(process, [quiet[f"{process}|{samples}"] for samples in LENGTHS], flush=True)
        (work / "samples.json").write_text(json.dumps({"runs": runs, "quiet": quiet, "changes": changes}))
    for process in CHANGED:
        for samples in (36, 100, 200):
            for wide in (1, 4):
                for height in HEIGHTS:
                    changes[f"{process}|{samples}|{wide}|{height}"] = _found(process, samples, wide, height, runs // 4)
    (work / "samples.json").write_text(json.dumps({"runs": runs, "quiet": quiet, "changes": changes}))


def _found(process: str, samples: int, wide: int, height: float, runs: int) -> float:
    """Share of runs in which an onset is known within four samples after the change, at two thirds of the run."""
    first = 2 * samples // 3
    found = 0
    for run in range(runs):
        series = quiet_series(process, samples, run, change=(first, wide, float(np.log(height))))
        found += any(first <= onset.last < first + wide + 4 for onset in find_onsets(series, SIGNALS))
    return found / runs


def process_lines(work: Path) -> Iterator[str]:
    held = json.loads((work / "samples.json").read_text())
    runs, quiet = held["runs"], held["quiet"]
    above = [f"{cell.replace('|', ', ')} samples: {share(n, runs)}" for cell, n in quiet.items() if n > BOUND * runs]
    yield "\n## Simulated processes\n"
    yield f"Above 5 %: {'; '.join(above) or 'none'}; {len(quiet)} cells.\n"
    yield f"Quiet runs with an onset at any sample, of {runs} a cell.\n"
    yield f"| process | {' | '.join(f'{samples} samples' for samples in LENGTHS)} |\n|---|{'---|' * len(LENGTHS)}"
    for process in PROCESSES:
        yield f"| {process} | {' | '.join(str(quiet[f'{process}|{samples}']) for samples in LENGTHS)} |"
    yield "\n## Simulated changes\n\nAt two thirds of the run, % of runs in which it is known four samples later.\n"
    heads = [f"{wide} interval{'s' if wide > 1 else ''} x{height:g}" for wide in (1, 4) for height in HEIGHTS]
    yield f"| process, samples | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}"
    for process in CHANGED:
        for samples in (36, 100, 200):
            cells = [held["changes"][f"{process}|{samples}|{wide}|{height}"] for wide in (1, 4) for height in HEIGHTS]
            yield f"| {process}, {samples} | {' | '.join(f'{100 * cell:.0f}' for cell in cells)} |"


def report(work: Path) -> None:
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.exists() else "\n"
    runs = load()
    lines = [
        "# Onsets found on the samples of one run alone\n",
        f"`python benchmarks/samples.py report` on {date.today()}.\n",
        describe_machine() + "\n",
        *power_lines(runs),
        *quiet_lines(runs),
        *process_lines(work),
    ]
    RESULTS.write_text("\n".join(lines) + "\n" + KEPT + kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("pack", "simulate", "report"))
    parser.add_argument("--work", type=Path, default=Path("samples"))
    parser.add_argument("--runs", default="400")
    given = parser.parse_args()
    given.work.mkdir(exist_ok=True)
    if given.task == "pack":
        pack(Path(given.runs))
    elif given.task == "simulate":
        simulate(given.work, int(given.runs))
    else:
        report(given.work)


if __name__ == "__main__":
    main()
