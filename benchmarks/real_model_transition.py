"""A transition of known time in a real language model: who sees refusals come, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from real_model_runs import ASKED, TRANSITIONS
from real_model_series import SIGNS, Run, Sign, midpoint, paragraph
from transition_statistics import Lead, lead, paired

from topo_callback.dynamics.changes import find_changes

FEWEST = 4  # answers that change: with fewer there is no midpoint
COMPARED = (("refusals", "benign"), ("everything", "benign"), ("shuffled", "benign"), ("removal", "taught"),
            ("refusals", "shuffled"))  # fmt: skip
PAIRS = (
    ("RTD", "CKA"), ("RTD", "effective rank"), ("RTD", "mutual kNN"), ("RTD", "step of the weights"),
    ("CKA", "step of the weights"),
)  # fmt: skip


def transition_lines(runs: Sequence[Run]) -> Iterator[str]:
    of_kind = {kind: [run for run in runs if run.job["kind"] == kind] for kind in TRANSITIONS}
    yield "## A transition of known time\n"
    yield "![Refusals by step, and five numbers against two kinds of controls](RESULTS_real_model_transition.png)\n"
    yield paragraph(
        f"How many answers to {ASKED} held-out requests for harm and to {ASKED} harmless ones are refusals. Midpoint:",
        "the step at which half of the largest change is reached, interpolated between samples, which are two steps",
        "apart from step 4 to 16. Most: of all samples but the first. Lists have one entry for each seed; -: fewer",
        f"than {FEWEST} answers change. The fall of the loss: that of the mean of three steps below the mean of the",
        "first three.",
    )
    yield "\n| trained on | harmful refused: most | at the end | midpoints | harmless: most | at the end | midpoints |"
    yield "|---|---|---|---|---|---|---|"
    for kind, group in of_kind.items():
        cells = []
        for place in (0, 1):
            cells.append([str(run.refused[1:, place].max()) for run in group])
            cells.append([str(run.refused[-1, place]) for run in group])
            times = [time_of(run, place) for run in group]
            cells.append([f"{time:.1f}" if np.isfinite(time) else "-" for time in times])
        yield f"| {kind} | {' | '.join(map(', '.join, cells))} |"
    for kind, other in COMPARED:
        moved = [run for run in of_kind[kind] if np.isfinite(time_of(run))]
        if len(moved) >= 3 and len(of_kind[other]) >= 3:
            yield f"\n### {kind.capitalize()} against {other} rows\n"
            yield "Steps behind the midpoint of harmful refusals.\n"
            yield from _lead_lines(moved, of_kind[other])
            yield from _together_line(moved, of_kind[other])
    yield "\n### By chance\n"
    yield from _left_out_lines({kind: of_kind[kind] for kind in ("benign", "shuffled")})
    yield "\n### Which number is ahead of which\n"
    yield from _paired_lines(of_kind)


def time_of(run: Run, place: int = 0) -> float:
    """The midpoint of refusals of harmful (0) or harmless (1) requests; infinite where few answers change."""
    refused = run.refused[:, place].astype(float)
    away = np.abs(refused - refused[0])
    return midpoint(run.steps, away) if away.max() >= FEWEST else np.inf


def _above(sign: Sign, run: Run, control: Sequence[Run]) -> tuple[float, float]:
    """The first step at which a run is above all controls, and the one from which on it stays above."""
    out = sign.values(run) > np.max([sign.values(each) for each in control], axis=0)
    stays = np.flatnonzero(np.logical_and.accumulate(out[::-1])[::-1])
    steps = sign.steps(run)
    return tuple(float(steps[at[0]]) if at.size else np.inf for at in (np.flatnonzero(out), stays))  # type: ignore[return-value]


def _lead_lines(moved: Sequence[Run], control: Sequence[Run]) -> Iterator[str]:
    yield (
        "| number | midpoint of its way | first above every control run | stays above from | at the end, times the "
        "controls' largest |"
    )
    yield "|---|---|---|---|---|"
    for sign in SIGNS:
        behind, first, stays, ratios = [], [], [], []
        for run in moved:
            time, values = time_of(run), sign.values(run)
            above = _above(sign, run, control)
            behind.append(midpoint(sign.steps(run), values) - time)
            first.append(above[0] - time)
            stays.append(above[1] - time)
            ratios.append(values[-1] / max(*(sign.values(each)[-1] for each in control), 1e-12))
        half = str(lead(behind)) if sign.a_way else "-"
        yield f"| {sign.title} | {half} | {lead(first)} | {lead(stays)} | {np.median(ratios):.2f} |"
    told = [_first_change(run) - time_of(run) for run in moved]
    yield f"| `change` event | - | {lead(told)} | - | - |"


def _first_change(run: Run) -> float:
    training = {name: values.astype(np.float64) for name, values in run.training.items()}
    found = find_changes(np.arange(1, len(training["loss"]) + 1), **training)
    return float(found[0].known_at) if found else np.inf


def _together_line(moved: Sequence[Run], control: Sequence[Run]) -> Iterator[str]:
    """How many numbers part all runs from all controls at the end, against labels permuted within seeds."""
    of_seed = {run.job["seed"]: run for run in control}
    moved = [run for run in moved if run.job["seed"] in of_seed]
    control = [of_seed[run.job["seed"]] for run in moved]
    ends = np.array([[[sign.values(run)[-1] for sign in SIGNS] for run in group] for group in (moved, control)])
    counts = []
    for swapped in product((False, True), repeat=len(moved)):
        where = np.array(swapped)[:, None]
        one, other = np.where(where, ends[1], ends[0]), np.where(where, ends[0], ends[1])
        counts.append(int((one.min(axis=0) > other.max(axis=0)).sum()))
    p = np.mean(np.array(counts) >= counts[0])
    yield "\n" + paragraph(
        f"At the end all {len(moved)} runs are above all {len(control)} controls in {counts[0]} of the {len(SIGNS)}",
        f"numbers; with labels permuted within seeds in {max(counts[1:])} at most (p {p:.2f} of {len(counts)}",
        "labelings, corrected so for the search over numbers).",
    )


def _left_out_lines(groups: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    yield paragraph(
        f"A control run, left out, against the other four: in how many of the {len(SIGNS)} numbers it is above all",
        "four, for each of the five.",
    )
    yield "\n| controls | at some time | first at step 4 or before | stays to the end | stays from step 4 or before |"
    yield "|---|---|---|---|---|"
    for kind, group in groups.items():
        counts = []
        for run in group:
            times = np.array([_above(sign, run, [each for each in group if each is not run]) for sign in SIGNS])
            counts.append([(times[:, n] <= most).sum() for n in (0, 1) for most in (run.steps[-1], 4)])
        yield f"| {kind} | {' | '.join(', '.join(map(str, column)) for column in np.array(counts).T)} |"


def _paired_lines(of_kind: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    yield paragraph(
        "When the one stays above the benign runs, less when the other does, seed by seed, in steps (negative: the",
        "one is ahead). Samples are one step apart up to step 4, two up to 16, then four; the step of the weights is",
        "known at each step.",
    )
    kinds = ("refusals", "everything", "shuffled")
    yield f"\n| the one, the other | {' | '.join(kinds)} |"
    yield "|---|" + "---|" * len(kinds)
    signs = {sign.title: sign for sign in SIGNS}
    for pair in PAIRS:
        cells = []
        for kind in kinds:
            one, other = ([_above(signs[name], run, of_kind["benign"])[1] for run in of_kind[kind]] for name in pair)
            cells.append(_ahead(paired(one, other)))
        yield f"| {', '.join(pair)} | {' | '.join(cells)} |"


def _ahead(found: Lead | None) -> str:
    if found is None:
        return "neither ever"
    if not found.seen:
        return "only the one" if found.median < 0 else "only the other"
    return str(found).replace("only it", "only the one").replace("never", "only the other")
