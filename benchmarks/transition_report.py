"""RESULTS_transition.md: which number sees the transition when, beside quiet runs of the same model and schedule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe_machine
from transition_statistics import (
    Transition,
    deviation_peak,
    first_deviation,
    known_at,
    lead,
    paired,
    since_baseline,
    transition_of,
)

from topo_callback import Trajectory
from topo_callback.dynamics import Series
from topo_callback.dynamics.calibrated import FEWEST_REFERENCES

KEPT = "\n## Read with this"
# name -> (label, since the previous sample: "change", or the number itself: "level")
TOPOLOGY = {
    "wasserstein_h1.previous": ("Wasserstein H1", "change"),
    "wasserstein_h0.previous": ("Wasserstein H0", "change"),
    "survival_h1.previous": ("1 - survival", "change"),
    "h1_total_persistence_scaled": ("total persistence H1", "level"),
}
GEOMETRY = {
    "mutual_knn.previous": ("1 - mutual kNN", "change"),
    "cka.previous": ("1 - CKA", "change"),
    "distance_change.previous": ("change of distances", "change"),
    "effective_rank_change": ("change of effective rank", "change"),
    "effective_rank": ("effective rank", "level"),
    "median_distance": ("median distance", "level"),
}
TRAINING = {
    "next_token_js.previous": ("next-token JS divergence", "change"),
    "path": ("weights' path", "change"),
    "loss_change": ("change of the loss", "change"),
    "grad_norm": ("gradient norm", "change"),
    "loss": ("loss", "level"),
    "held_out": ("held-out loss, repeated half", "level"),
}
NUMBERS = {**TOPOLOGY, **GEOMETRY, **TRAINING}
_AGREEMENTS = ("mutual_knn", "cka", "survival")
HEADLINE = "wasserstein_h1.previous"
BASELINE = (64, 128)  # steps: in the plateau, before the transition of any seed
JUDGED = (  # what, its title, by references
    ("changes", "changes of training, at every step", False),
    ("onsets", "onsets at samples", False),
    ("changes", "changes of training, at every step", True),
    ("wasserstein_h1", "onsets of Wasserstein H1", True),
    ("rtd", "onsets of RTD", True),
    ("cka", "onsets of 1 - CKA", True),
    ("mutual_knn", "onsets of 1 - mutual kNN", True),
    ("distance_change", "onsets of the change of distances", True),
)


@dataclass(frozen=True)
class Watched:
    """One run: its numbers over the samples, medians over layers; NaN where there is none."""

    kind: str
    seed: int
    steps: np.ndarray
    numbers: Mapping[str, np.ndarray]
    series: Series
    held_out_steps: np.ndarray
    gain: np.ndarray
    transition: Transition | None
    seconds: float


def read(folder: Path) -> Watched:
    """A run that is done."""
    record = json.loads((folder / "training.json").read_text())
    trajectory = Trajectory.load(folder)
    steps = np.array(trajectory.steps)
    snapshots = [trajectory.snapshot(int(step)) for step in steps]
    numbers: dict[str, np.ndarray] = {}
    for name in NUMBERS:
        if any(name in snapshot.numbers for snapshot in snapshots):
            rows = [np.array(list(snapshot.numbers.get(name, {}).values()), dtype=np.float64) for snapshot in snapshots]
            values = np.array([np.median(row) if row.size else np.nan for row in rows])
            numbers[name] = 1 - values if name.startswith(_AGREEMENTS) else values
    for name in ("loss", "grad_norm"):
        numbers[name] = _means(np.array(record[name]), steps)
    series = Series.of(trajectory)
    rank = np.log(series.sizes["effective_rank"])
    numbers["effective_rank_change"] = _after_the_first(np.nanmedian(np.abs(np.diff(rank, axis=0)), axis=1))
    numbers["loss_change"] = _after_the_first(np.abs(np.diff(numbers["loss"])))
    numbers["path"] = _after_the_first(series.path)
    held_out_steps = np.array(record["held_out_step"])
    second = np.array(record["held_out_second"])
    numbers["held_out"] = np.interp(steps, held_out_steps, second)
    gain = np.array(record["held_out_first"]) - second
    transition = transition_of(held_out_steps, gain)
    return Watched(
        record["kind"], record["seed"], steps, numbers, series, held_out_steps, gain, transition, record["seconds"]
    )


def _after_the_first(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[np.nan], values])


def _means(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Means of a number of every optimizer step over the steps since the sample before."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return _after_the_first(np.diff(sums[steps]) / np.diff(steps))


def load(output: Path) -> tuple[list[Watched], list[Watched]]:
    """The runs with a transition, and the quiet ones."""
    runs = [read(file.parent) for file in sorted((output / "runs").glob("*/training.json"))]
    return [run for run in runs if run.kind == "repeated"], [run for run in runs if run.kind == "quiet"]


def first_times(runs: Sequence[Watched], quiet: Sequence[Watched], name: str) -> list[float]:
    """Step at which each run first stands out from the quiet runs in a number."""
    others = np.stack([since_baseline(run.numbers[name], run.steps, BASELINE) for run in quiet])
    return [first_deviation(since_baseline(run.numbers[name], run.steps, BASELINE), others, run.steps) for run in runs]


def since(runs: Sequence[Watched], times: Sequence[float], moment: Callable[[Transition], float]) -> list[float]:
    """Times less a moment of the transition of each run."""
    return [time - moment(run.transition) for run, time in zip(runs, times, strict=True)]


def stands_out_table(runs: Sequence[Watched], quiet: Sequence[Watched]) -> list[str]:
    lines = [
        "| number | | stands out in | first, less the begin of the transition | less its middle | "
        "first, less that of Wasserstein H1 |",
        "|---|---|---|---|---|---|",
    ]
    topological = first_times(runs, quiet, HEADLINE)
    for name, (label, kind) in NUMBERS.items():
        times = first_times(runs, quiet, name)
        begin = lead(since(runs, times, lambda transition: transition.begin))
        middle = lead(since(runs, times, lambda transition: transition.middle))
        ahead = paired(times, topological) if name != HEADLINE else None
        cells = [label, kind, f"{begin.seen} of {begin.seeds}", str(begin), str(middle), str(ahead or "-")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def peak_table(runs: Sequence[Watched], quiet: Sequence[Watched]) -> list[str]:
    lines = ["| number | peak, less the middle of the transition | less the peak of Wasserstein H1 |", "|---|---|---|"]

    def peaks(name: str) -> list[float]:
        others = np.stack([run.numbers[name] for run in quiet])
        return [deviation_peak(run.numbers[name], others, run.steps, run.transition) for run in runs]

    topological = peaks(HEADLINE)
    for name, (label, kind) in NUMBERS.items():
        if kind == "change":
            own = peaks(name)
            middle = lead(since(runs, own, lambda transition: transition.middle))
            ahead = str(paired(own, topological)) if name != HEADLINE else "-"
            lines.append(f"| {label} | {middle} | {ahead} |")
    return lines


def event_table(runs: Sequence[Watched], quiet: Sequence[Watched]) -> list[str]:
    lines = [
        f"| judged | by | quiet runs told | runs told before step {BASELINE[1]} | after it | known, less the begin of "
        "the transition | less its middle | less when the training loss stands out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    loss = first_times(runs, quiet, "loss")
    enough = len(quiet) > FEWEST_REFERENCES
    for judged, title, with_references in JUDGED:
        if with_references and not enough:
            continue
        of_runs = [known_at(run.series, [each.series for each in quiet] if with_references else [], judged)
                   for run in runs]  # fmt: skip
        of_quiet = []
        for run in quiet:
            others = [each.series for each in quiet if each is not run][:FEWEST_REFERENCES]
            of_quiet.append(known_at(run.series, others if with_references else [], judged))
        first = [min((step for step in steps if step > BASELINE[1]), default=np.inf) for steps in of_runs]
        early = sum(any(step <= BASELINE[1] for step in steps) for steps in of_runs)
        by = f"{len(quiet)} references" if with_references else "the run alone"
        cells = [title, by, f"{sum(map(bool, of_quiet))} of {len(quiet)}", f"{early} of {len(runs)}"]
        cells += [f"{int(np.isfinite(first).sum())} of {len(runs)}"]
        for moment in (lambda transition: transition.begin, lambda transition: transition.middle):
            cells.append(str(lead(since(runs, first, moment))))
        cells.append(str(paired(first, loss) or "-"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def transition_lines(runs: Sequence[Watched], quiet: Sequence[Watched]) -> list[str]:
    held = [run.transition for run in runs if run.transition is not None]
    middle = np.array([transition.middle for transition in held])
    length = np.array([transition.end - transition.begin for transition in held])
    begin = np.array([transition.begin for transition in held])
    return [
        f"- {len(runs)} runs with repeated sequences, of which {len(held)} have the transition; {len(quiet)} quiet "
        f"runs, of which {sum(run.transition is not None for run in quiet)} have it",
        f"- begin (a tenth of the gain): median step {np.median(begin):.0f}, {begin.min():.0f} to {begin.max():.0f}; "
        f"middle (half): {np.median(middle):.0f}, {middle.min():.0f} to {middle.max():.0f}; from begin to nine tenths: "
        f"{np.median(length):.0f} steps, {length.min():.0f} to {length.max():.0f}",
        f"- a sample every {runs[0].steps[1]} steps to step {runs[0].steps[-1]}; "
        f"{np.mean([run.seconds for run in [*runs, *quiet]]):.0f} s of the training process a run",
    ]


def write(output: Path, results: Path) -> None:
    """Tables and picture from the runs that are there."""
    from transition_figures import picture

    every, quiet = load(output)
    runs = [run for run in every if run.transition is not None]
    if len(quiet) <= FEWEST_REFERENCES:
        print(f"{len(quiet)} quiet runs: no calibrated level; it needs {FEWEST_REFERENCES} beside the one left out")
    picture(runs, quiet, results.with_suffix(".png"))
    lines = [
        "# A transition of known time: does topology lead?",
        "",
        describe_machine(),
        *transition_lines(every, quiet),
        "",
        f"![numbers around the transition]({results.with_suffix('.png').name})",
        "",
        "## When a number first stands out from quiet runs",
        "",
        *stands_out_table(runs, quiet),
        "",
        "## When a change is largest",
        "",
        *peak_table(runs, quiet),
        "",
        "## What the detector says",
        "",
        *event_table(runs, quiet),
    ]
    held = results.read_text().partition(KEPT) if results.exists() else ("", "", "")
    results.write_text("\n".join(lines) + "\n" + held[1] + held[2])
