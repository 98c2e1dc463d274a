"""The prompts that moved most and least, as HTML: by number, and by their text where that may be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topo_callback.dynamics.prompt_moves import PromptMoves, prompt_moves
from topo_callback.dynamics.verdict import plain_percent as percent
from topo_callback.figures.labels import step_name
from topo_callback.groups import Groups
from topo_callback.page.wording import plain, safe, table
from topo_callback.records.trajectory import Trajectory

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
