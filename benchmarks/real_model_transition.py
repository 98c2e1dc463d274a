"""A transition of known time in a real language model: who sees refusals come, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from real_model_runs import ASKED, TRANSITIONS
from real_model_series import SIGNS, Run, midpoint
from transition_statistics import lead

from topo_callback.dynamics.changes import find_changes


def transition_lines(runs: Sequence[Run]) -> Iterator[str]:
    of_kind = {kind: [run for run in runs if run.job["kind"] == kind] for kind in TRANSITIONS}
    yield "## A transition of known time\n"
    yield (
        f"How many answers to {ASKED} held-out requests for harm and to {ASKED} harmless ones are refusals; midpoint:\n"
        "the step at which half of the final change is reached, by seed.\n"
    )
    yield "| trained on | runs | harmful refused at the end | harmless refused at the end | midpoints, harmful |"
    yield "|---|---|---|---|---|"
    for kind, group in of_kind.items():
        ends = [", ".join(str(run.refused[-1, place]) for run in group) for place in (0, 1)]
        yield f"| {kind} | {len(group)} | {ends[0]} | {ends[1]} | {', '.join(f'{_time(run):.0f}' for run in group)} |"
    for kind in ("refusals", "everything", "removal"):
        moved = [run for run in of_kind[kind] if np.isfinite(_time(run))]
        if len(moved) >= 3:
            yield f"\nWho sees it when, {kind}, {len(moved)} runs: steps behind the midpoint of refusal.\n"
            yield from _lead_lines(moved, of_kind["benign"])


def _time(run: Run) -> float:
    """The midpoint of what harmful requests are answered with; infinite where fewer than 6 answers change."""
    refused = run.refused[:, 0].astype(float)
    away = np.abs(refused - refused[0])
    return midpoint(run.steps, away) if away.max() >= 6 else np.inf


def _lead_lines(moved: Sequence[Run], control: Sequence[Run]) -> Iterator[str]:
    yield "| number | midpoint of its way | above every control run from | at the end, times the controls' largest |"
    yield "|---|---|---|---|"
    for sign in SIGNS:
        behind, above, ratios = [], [], []
        for run in moved:
            values = sign.values(run)
            steps = np.arange(1, len(values) + 1) if sign.every_step else run.steps
            behind.append(midpoint(steps, values) - _time(run))
            quiet = np.array([sign.values(each) for each in control])
            if len(quiet) >= 3:
                out = values > quiet.max(axis=0)
                stays = np.flatnonzero(np.logical_and.accumulate(out[::-1])[::-1])
                above.append(float(steps[stays[0]]) - _time(run) if stays.size else np.inf)
                ratios.append(values[-1] / max(quiet[:, -1].max(), 1e-12))
        late = str(lead(above)) if above else "-"
        yield f"| {sign.title} | {lead(behind)} | {late} | {f'{np.median(ratios):.2f}' if ratios else '-'} |"
    told = [_first_change(run) - _time(run) for run in moved]
    yield f"| `change` event | - | {lead(told)} | - |"


def _first_change(run: Run) -> float:
    training = {name: values.astype(np.float64) for name, values in run.training.items()}
    found = find_changes(np.arange(1, len(training["loss"]) + 1), **training)
    return float(found[0].known_at) if found else np.inf
