"""Real runs of three objectives and two schedules: events, early concentration, lead or lag, added R².

    python benchmarks/fine_tuning.py train --work FOLDER --only quiet objectives
    python benchmarks/objectives_real.py FOLDER/runs

Reads the trajectories and writes RESULTS_objectives.md; what is below its heading "Read with this" is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import describe_machine
from objectives_real_series import OBJECTIVES, SEEDS, Watched, groups, load, panel_of
from objectives_real_statistics import (
    Panel,
    added_share,
    best_lag,
    errors_by_seed,
    median_interval,
    share_of,
)

from topo_callback.dynamics import (
    References,
    compare_concentration,
    concentrations,
    depth_velocity,
    find_events,
    layer_velocities,
)

RESULTS = Path(__file__).parent / "RESULTS_objectives.md"
KEPT = "\n## Read with this"
TARGETS = {
    "wasserstein_h1.previous": "Wasserstein H1 since the previous sample",
    "wasserstein_h1.first": "Wasserstein H1 since step 0",
    "survival_h1.previous": "1 - survival since the previous sample",
    "survival_h1.first": "1 - survival since step 0",
}
_FIRST_THIRD = 28  # step: samples up to here are early


def onsets_of(run: Watched, references: References | None, file: Path) -> list[tuple[int, str]]:
    """First step and level of every onset; kept in a file."""
    if not file.is_file():
        found = find_events(run.series, references).events
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps([(event.first_step, event.level) for event in found if event.kind == "onset"]))
    return [tuple(onset) for onset in json.loads(file.read_text())]


def event_table(runs: Sequence[Watched], quiet: Sequence[Watched], folder: Path) -> list[str]:
    lines = [
        "| objective, schedule | runs | alone | calibrated, against helpful runs of other seeds | onsets (steps) |",
        "|---|---|---|---|---|",
    ]
    references = References.of([run.series for run in quiet if run.seed >= SEEDS])
    for (objective, schedule), members in groups(runs).items():
        alone, calibrated, where = 0, 0, []
        for run in members:
            file = folder / f"{objective}-{schedule}-{run.seed}.json"
            onsets = onsets_of(run, references if schedule == "constant" else None, file)
            alone += any(level == "sequential" for _, level in onsets)
            calibrated += any(level == "calibrated" for _, level in onsets)
            where += [f"{step} {level[0].upper()}" for step, level in onsets]
        against = f"{calibrated} of {len(members)}" if schedule == "constant" else "no references"
        lines.append(
            f"| {objective}, {schedule} | {len(members)} | {alone} of {len(members)} | {against} | "
            f"{', '.join(where) or '-'} |"
        )
    return lines


def concentration_table(runs: Sequence[Watched], quiet: Sequence[Watched]) -> list[str]:
    lines = [
        "| objective, schedule | C of displacement by index and by step (orders: p < .05) | by clock | C of velocity, "
        "by index | p against helpful runs of the same schedule, by index |",
        "|---|---|---|---|---|",
    ]

    def early(run: Watched) -> dict[str, tuple[float, float]]:
        found = concentrations(run.displacement, run.steps, run.series.path)
        velocity = depth_velocity(layer_velocities(run.series))
        over = concentrations(velocity, run.steps, run.series.path)["index"]
        return {**{key: (c.value, c.p_value) for key, c in found.items()}, "velocity": (over.value, over.p_value)}

    every = {id(run): early(run) for run in [*runs, *quiet]}
    for (objective, schedule), members in groups(runs).items():
        cells = []
        for name in ("index", "clock", "velocity"):
            held = [every[id(run)][name] for run in members]
            value = np.array([c for c, _ in held])
            small = sum(p < 0.05 for _, p in held)
            cells.append(f"{value.mean():.3f} ({value.min():.3f} to {value.max():.3f}); {small} of {len(held)}")
        same = quiet if schedule == "constant" else [run for run in runs if run.schedule == schedule]
        p_values = []
        for run in members:
            others = [
                every[id(other)]["index"][0]
                for other in same
                if other.objective == "helpful" and other.seed != run.seed
            ]
            p_values.append(compare_concentration(every[id(run)]["index"][0], others))
        floor = f" (at best {1 / (1 + len(others)):.3f})"
        shown = ", ".join(f"{p:.2f}" for p in sorted(p_values)) + floor
        lines.append(f"| {objective}, {schedule} | {' | '.join(cells)} | {shown} |")
    return lines


def lag_table(runs: Sequence[Watched]) -> list[str]:
    lines = [
        "| objective | other number | peak of Wasserstein H1 less its peak, steps | correlation at lag 0 | "
        "lag of the highest correlation, steps | that correlation | with the other number of the next seed |",
        "|---|---|---|---|---|---|---|",
    ]
    every = runs[0].steps[1]
    middle = (np.array(runs[0].steps[1:]) + np.array(runs[0].steps[:-1])) / 2
    for objective in OBJECTIVES:
        members = [run for run in runs if run.objective == objective]
        if not members:
            continue
        for label, name in (("loss, its fall", "loss"), ("gradient norm", "grad_norm")):
            peaks, at_zero, lags, heights, chance = [], [], [], [], []
            falls = [-np.gradient(run.numbers[name]) if name == "loss" else run.numbers[name] for run in members]
            for run, fall, foreign in zip(members, falls, [*falls[1:], falls[0]], strict=True):
                peaks.append(middle[int(run.displacement.argmax())] - middle[int(fall.argmax())])
                at_zero.append(float(np.corrcoef(np.diff(run.displacement), np.diff(fall))[0, 1]))
                lag, height = best_lag(run.displacement, fall, 5)
                lags.append(every * lag)
                heights.append(height)
                chance.append(best_lag(run.displacement, foreign, 5)[1])
            cells = [
                _interval(np.array(peaks), 0),
                _interval(np.array(at_zero), 2),
                _interval(np.array(lags, dtype=float), 0),
                f"{np.median(heights):.2f}",
                f"{np.median(chance):.2f}",
            ]
            lines.append(f"| {objective} ({len(members)} runs) | {label} | {' | '.join(cells)} |")
    return lines


def _interval(values: np.ndarray, digits: int) -> str:
    middle, low, high = median_interval(values)
    text = f"{middle:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return text.replace("-", "\N{MINUS SIGN}")


def left_table(panel: Panel) -> list[str]:
    """How much of topology the plain numbers explain, and what the path and the gradient norm add to them."""
    lines = [
        "| topological number | kNN, scale, rank, loss: R² | with path and gradient norm | the same, between seeds of "
        "one cell | with path and gradient norm |",
        "|---|---|---|---|---|",
    ]
    for target, label in TARGETS.items():
        since = target.rpartition(".")[2]
        four = [f"mutual_knn.{since}", f"scale.{since}", f"rank.{since}", "loss"]
        six = [*four, f"path.{since}", "grad_norm"]
        held = panel.complete([target, *six])
        cells = [
            str(share_of(errors_by_seed(held, names, target, within=within)))
            for within in (False, True)
            for names in (four, six)
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def added_table(panel: Panel) -> list[str]:
    """What topology adds when the next interval is predicted."""
    sizes = [f"{name}.{since}" for name in ("mutual_knn", "scale", "rank", "path") for since in ("previous", "first")]
    plain = [*sizes, "loss", "grad_norm"]
    topology = ["wasserstein_h1.previous", "survival_h1.previous", "wasserstein_h1.first", "survival_h1.first"]
    lines = [
        "| outcome in the next interval | | plain numbers now: R² | topology now, alone | added by topology | added by "
        "plain numbers to topology |",
        "|---|---|---|---|---|---|",
    ]
    outcomes = {"loss.next": "loss", "grad_norm.next": "gradient norm", "mutual_knn.next": "1 - mutual kNN"}
    for target, label in outcomes.items():
        held = panel.complete([target, *plain, *topology])
        for within in (False, True):
            base, alone, both = (
                errors_by_seed(held, names, target, within=within) for names in (plain, topology, [*plain, *topology])
            )
            cells = [share_of(base), share_of(alone), added_share(base, both), added_share(alone, both)]
            kind = "between seeds of one cell" if within else "all rows"
            lines.append(f"| {label} | {kind} | {' | '.join(map(str, cells))} |")
    return lines


def _early(run: Watched, name: str) -> float:
    """Mean over the early samples of what changes between samples; the last early value of the rest."""
    values = run.numbers[name][np.array(run.steps[1:]) <= _FIRST_THIRD]
    return float(values[-1] if name.endswith(".first") else values.mean())


def late_table(quiet: Sequence[Watched]) -> list[str]:
    """What the first third of a run says of its loss in the last quarter."""
    lines = [
        "| runs | plain numbers: R² | topology alone | added by topology |",
        "|---|---|---|---|",
    ]
    plain = ["mutual_knn.previous", "mutual_knn.first", "scale.first", "rank.first", "loss", "grad_norm"]
    topology = ["wasserstein_h1.previous", "wasserstein_h1.first", "survival_h1.previous", "survival_h1.first"]
    values = {name: np.array([_early(run, name) for run in quiet]) for name in (*plain, *topology)}
    values["late"] = np.array([run.late_loss for run in quiet])
    panel = Panel(np.array([run.seed for run in quiet]), np.zeros(len(quiet), dtype=int), values)
    base, alone, both = (
        errors_by_seed(panel, names, "late", within=False) for names in (plain, topology, [*plain, *topology])
    )
    lines.append(
        f"| {len(quiet)} helpful, constant | {share_of(base)} | {share_of(alone)} | {added_share(base, both)} |"
    )
    return lines


def write(folder: Path, results: Path) -> None:
    runs, quiet = load(folder)
    counts = "; ".join(f"{o}, {s}: {len(members)}" for (o, s), members in groups(runs).items())
    everything, alone = panel_of(runs), panel_of(quiet)
    lines = [
        "# Three objectives, two schedules: events, early concentration, lead or lag, added R²",
        "",
        describe_machine(),
        f"- runs: {counts}; helpful, constant, of further seeds: {sum(run.seed >= SEEDS for run in quiet)}",
        "",
        "## Events",
        "",
        *event_table(runs, quiet, folder.parent / "onsets"),
        "",
        "## Early concentration",
        "",
        *concentration_table(runs, quiet),
        "",
        "## Lead or lag",
        "",
        *lag_table(runs),
        "",
        "## What plain numbers explain of topology",
        "",
        f"{len(runs)} runs of all objectives and schedules:",
        "",
        *left_table(everything),
        "",
        f"{len(quiet)} runs of one objective and schedule:",
        "",
        *left_table(alone),
        "",
        "## What topology adds",
        "",
        f"{len(runs)} runs of all objectives and schedules:",
        "",
        *added_table(everything),
        "",
        f"{len(quiet)} runs of one objective and schedule:",
        "",
        *added_table(alone),
        "",
        "Loss of the last quarter, from samples up to step 28:",
        "",
        *late_table(quiet),
    ]
    held = results.read_text().partition(KEPT) if results.exists() else ("", "", "")
    results.write_text("\n".join(lines) + "\n" + held[1] + held[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    write(parser.parse_args().runs, RESULTS)


if __name__ == "__main__":
    main()
