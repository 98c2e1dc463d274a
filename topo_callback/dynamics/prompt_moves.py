"""How far every prompt moved since the start: its own neighbours, and its own answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

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
