"""What a trainer logs, beside a change of training: which of its numbers left their course at that time.

A number has left its course where more than half of the values logged since the change, of at most four, are on one
side of all those before it, and twice as far from their median as any of them. These numbers explain; no event is
decided by them, since they come only every `logging_steps` (benchmarks/RESULTS_logged.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

from topo_callback.records.training_steps import TrainingSteps

PAST, FEWEST = 24, 8  # values before the change that those since are compared with, at most and at least
SINCE = 4
TIMES = 2.0  # the largest distance from their median that the values before have
MOST = 3  # numbers that are named
_TOKENS = "num_tokens"  # counted from the start of the run


def logged_moves(logged: TrainingSteps, first: int, last: int) -> list[str]:
    """The numbers that left their course at a change, in words, the one that went furthest first; at most three.

    Args:
        logged: of `records.logged_numbers`.
        first: step of the change.
        last: newest step that counts.
    """
    found = sorted(_moves(logged, first, last), key=lambda move: -move[0])
    return [words for _, words in found[:MOST]]


def _moves(logged: TrainingSteps, first: int, last: int) -> Iterator[tuple[float, str]]:
    """How many times as far as any value before, and the words."""
    for name in logged.columns[1:]:
        steps, values = _values(logged, name)
        before = values[steps < first][-PAST:]
        since = values[(steps >= first) & (steps <= last)][:SINCE]
        if len(before) < FEWEST or not len(since):
            continue
        middle = float(np.median(before))
        usual = float(np.abs(before - middle).max())
        away = np.sort(since - middle)
        spared = (len(since) - 1) // 2
        least = max(float(away[spared]), -float(away[-1 - spared]))  # of the others, on the side where they are
        if usual > 0 and least > TIMES * usual:
            verb = "rose" if np.median(since) > middle else "fell"
            shown = "tokens per step" if name == _TOKENS else name
            yield (
                least / usual,
                f"{shown} {verb} to {np.median(since):.3g} ({before.min():.3g} to {before.max():.3g} before)",
            )


def _values(logged: TrainingSteps, name: str) -> tuple[np.ndarray, Float64[np.ndarray, " values"]]:
    """The finite values and their steps; of a count its growth per step."""
    values = logged.column(name)
    kept = np.isfinite(values)
    steps, values = logged.step[kept], values[kept]
    if name == _TOKENS:
        return steps[1:], np.diff(values) / np.diff(steps)
    return steps, values
