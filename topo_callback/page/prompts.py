"""The prompts that moved most and least, as HTML: by number, and by their text where that may be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.verdict import plain_percent as percent
from topo_callback.figures.labels import step_name
from topo_callback.groups import Groups
from topo_callback.page.wording import plain, safe, table
from topo_callback.records.trajectory import Trajectory

ANSWER = "next_token_tv.first"


@dataclass(frozen=True)
class PromptMoves:
    """One sample against the first.

    Attributes:
        step: the sample.
        first: the sample that it is compared with.
        kept: [prompts] share of each prompt's nearest neighbours that are still those of the start, mean over the
            layers that are ok in both samples.
        by_chance: what that share would be if neighbours were drawn.
        answers: [prompts] total variation of each prompt's next-token distribution; NaN where it was not read.
    """

    step: int
    first: int
    kept: Float64[np.ndarray, " prompts"]
    by_chance: float
    answers: Float64[np.ndarray, " prompts"]

    def order(self) -> Int64[np.ndarray, " prompts"]:
        """The prompts, those that kept fewest neighbours first; of equal ones, those whose answer moved most."""
        answers = np.nan_to_num(self.answers, nan=0.0)
        return np.lexsort((np.arange(len(self.kept)), -answers, self.kept))


def prompt_moves(trajectory: Trajectory) -> PromptMoves | None:
    """The newest sample against the first, over the layers that are ok in both; None where there is none such."""
    steps = trajectory.steps
    if len(steps) < 2:
        return None
    first, last = trajectory.snapshot(steps[0]), trajectory.snapshot(steps[-1])
    both = [
        layer for layer in last.layers if layer in first.layers and first.status[layer] == last.status[layer] == "ok"
    ]
    if not both or first.neighbours.shape[1:] != last.neighbours.shape[1:]:
        return None
    points, near = first.neighbours.shape[1:]
    kept = np.zeros(points)
    for layer in both:
        then, now = (each.neighbours[each.layers.index(layer)] for each in (first, last))
        kept += (then[:, :, None] == now[:, None, :]).any(axis=2).mean(axis=1) / len(both)
    answers = np.full(points, np.nan)
    values = last.by_prompt.get(ANSWER)
    places = last.provenance.get("next_token_points")
    if values is not None and isinstance(places, list) and len(places) == len(values):
        answers[places] = values
    return PromptMoves(steps[-1], steps[0], kept, near / (points - 1), answers)


LISTED = 10
_LETTERS = 160


def moved_prompts(trajectory: Trajectory, prompts: Sequence[str] | None = None) -> str:
    """Two tables; empty for a run that has no two samples to compare."""
    moves = prompt_moves(trajectory)
    if moves is None:
        return ""
    order = moves.order()
    steps = f"Each prompt at step {safe(step_name(moves.step))} against step {safe(step_name(moves.first))}"
    said = (
        f"<p>{steps}: the share of its own nearest neighbours that it kept, mean over layers (by chance "
        f"{percent(moves.by_chance)}), and how much of its next-token distribution moved. One prompt by itself has no "
        "error; look at what the ten have in common.</p>"
    )
    most, least = order[:LISTED], order[::-1][:LISTED]
    if len(order) < 2 * LISTED:
        most, least = order, least[:0]
    tables = _table("Moved most", moves, most, trajectory.run, prompts)
    if len(least):
        tables += _table("Moved least", moves, least, trajectory.run, prompts)
    return f'{said}<div class="pair">{tables}</div>'


def _table(
    title: str, moves: PromptMoves, chosen: np.ndarray, run: Mapping[str, Any], prompts: Sequence[str] | None
) -> str:
    answered = bool(np.isfinite(moves.answers).any())
    groups = Groups.of_run(run)
    heading = (
        "prompt",
        *(("group",) if groups else ()),
        *(("text",) if prompts is not None else ()),
        "kept",
        *(("answer moved",) if answered else ()),
    )
    rows = []
    for prompt in chosen.tolist():
        moved = moves.answers[prompt]
        rows.append(
            (
                str(prompt + 1),
                *((groups.label(prompt) or "-",) if groups else ()),
                *(() if prompts is None else (plain(prompts[prompt], _LETTERS),)),
                percent(float(moves.kept[prompt])),
                *(() if not answered else (percent(float(moved)) if np.isfinite(moved) else "not read",)),
            )
        )
    return f"<div>{table(heading, rows, title)}</div>"
