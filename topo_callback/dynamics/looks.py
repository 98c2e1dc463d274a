"""Looks at a growing run: when it is tested, and how high the score must be each time.

A run is tested at 8, 11, 15, 20, 27, 36, 48, 64, ... samples and at its end. The level is spent in proportion to the
square root of the training done, so that a boundary depends on the past alone and an early look has enough to spend;
the probability that a quiet run has crossed any boundary until a look is at most what was spent until then (alpha
spending: Lan and DeMets, Biometrika 1983).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

FEWEST_SAMPLES = 8


def is_look(samples: int, progress: float | None) -> bool:
    """Whether a run is tested when it has so many samples.

    Args:
        progress: share of the training steps that are done; None where their number is not known.
    """
    if samples < FEWEST_SAMPLES:
        return False
    size = FEWEST_SAMPLES
    while size < samples:
        size = -(-size * 4 // 3)
    return size == samples or (progress is not None and progress >= 1.0)


def spent_level(level: float, look: int, progress: float | None) -> float:
    """The level spent until a look: level sqrt(progress), or level (1 - 1 / (look + 1)) where the end is unknown.

    Args:
        look: 1 for the first one.
        progress: share of the training steps that are done; None where their number is not known.
    """
    if progress is None:
        return level * (1 - 1 / (look + 1))
    return level * float(np.sqrt(min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True)
class Boundary:
    """What a score is compared with at one look.

    Attributes:
        value: scores above it are an alarm; infinite where nothing is left to spend.
        spent: level spent until this look, this look included.
        scores: of the simulated runs at this look.
        crossed: which simulated runs have crossed a boundary at an earlier look.
        lost_before: share of the simulated runs that have crossed a boundary at an earlier look. Carried from look to
            look, so it is that of more runs than there are now, where later looks simulate fewer.
        lost: share of the simulated runs that have crossed one at an earlier look or this one.
    """

    value: float
    spent: float
    scores: Float64[np.ndarray, "autocorrelations simulations"]
    crossed: Bool[np.ndarray, "autocorrelations simulations"]
    lost_before: Float64[np.ndarray, " autocorrelations"]
    lost: Float64[np.ndarray, " autocorrelations"]

    def p_values(self, scores: Float64[np.ndarray, " runs"]) -> Float64[np.ndarray, " runs"]:
        """Probability that a quiet run crosses at an earlier look, or now scores at least this much.

        (1 + share lost before * simulations + simulated runs that are left and score as much) / (simulations + 1), for
        the least favourable autocorrelation. The boundary is the same count read the other way: a score is above it
        exactly where this is at most `spent`.
        """
        simulations = self.scores.shape[1]
        counts = []
        for simulated, gone, share in zip(self.scores, self.crossed, self.lost_before, strict=True):
            alive = np.sort(simulated[~gone])
            counts.append(share * simulations + len(alive) - np.searchsorted(alive, scores, side="left"))
        p_values: np.ndarray = (1 + np.max(counts, axis=0)) / (simulations + 1)
        # shares are rounded: by less than 1e-12, but a p-value above its level would contradict the alarm
        limited: np.ndarray = np.minimum(p_values, np.where(scores > self.value, self.spent, 1.0))
        return limited


def next_boundary(
    scores: Float64[np.ndarray, "autocorrelations simulations"], spent: float, earlier: Boundary | None
) -> Boundary:
    """The boundary of a look: the lowest for which no more of the simulated runs have crossed than was spent.

    Args:
        scores: of the simulated runs at this look; may be fewer runs than before, the first of them.
        spent: level spent until this look, this look included.
        earlier: the boundary of the look before.
    """
    rows, simulations = scores.shape
    crossed, before = np.zeros(scores.shape, dtype=bool), np.zeros(rows)
    if earlier is not None:
        crossed = (earlier.crossed | (earlier.scores > earlier.value))[:, :simulations]
        before = earlier.lost
    value = -np.inf
    for row, gone, share in zip(scores, crossed, before, strict=True):
        left = int(np.floor(spent * (simulations + 1) - share * simulations))
        alive = np.sort(row[~gone])[::-1]
        value = max(value, float(alive[left - 1]) if left >= 1 else np.inf)
    lost = before + (~crossed & (scores > value)).mean(axis=1)
    return Boundary(value, spent, scores, crossed, before, lost)
