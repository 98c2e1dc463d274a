"""Level B, nominal: one decision on one run, from nothing but the run itself.

At each look the two depth summaries are divided by the response that fits them, scanned, and compared with quiet runs
simulated over the same path. Each summary has half of the level, of which two fifths are kept back for what a summary
of several layers has that a single simulated series has not.

A run is tested at 8, 11, 15, 20, 27, 36, 48, 64, ... samples and at its end. The level is spent in proportion to the
square root of the training done, so that a boundary depends on the past alone and an early look has enough to spend;
the probability that a quiet run has crossed any boundary until a look is at most what was spent until then (alpha
spending: Lan and DeMets, Biometrika 1983).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from topo_callback.dynamics.response import FEWEST_INTERVALS, log_velocity
from topo_callback.dynamics.scan import Scan, locate, null_scores, scan
from topo_callback.dynamics.series import comparable
from topo_callback.dynamics.summaries import depth_summaries

FEWEST_SAMPLES = 8
_SHARE = 0.3  # of the level, for each of the two summaries


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


@dataclass(frozen=True)
class NominalDecision:
    """What was decided on each run, at the first look that crossed its boundary.

    Attributes:
        samples: samples of the run at that look; 0 where there was no alarm.
        p_value: probability that a quiet run would have alarmed by then or scored as much; the smallest one over looks
            where there was no alarm, and 1 where there was no look.
        summary: 0, the mean over layers, or 1, the layers that moved most.
        first: first interval of the window.
        last: last interval of the window.
        looks: samples at each look.
        score: the score of the window, in standard errors.
    """

    samples: Int64[np.ndarray, " runs"]
    p_value: Float64[np.ndarray, " runs"]
    summary: Int64[np.ndarray, " runs"]
    first: Int64[np.ndarray, " runs"]
    last: Int64[np.ndarray, " runs"]
    score: Float64[np.ndarray, " runs"]
    looks: tuple[int, ...]


def decide_nominal(
    log_displacement: Float64[np.ndarray, "runs intervals layers"],
    path: Float64[np.ndarray, " intervals"],
    progress: Float64[np.ndarray, " samples"] | None = None,
    *,
    level: float = 0.05,
) -> NominalDecision:
    """Decide on every run, by the looks that its samples allow.

    Deterministic, and a function of the past: the decision of a look does not change when samples are added.

    Args:
        log_displacement: NaN where missing, and then in all runs.
        path: how far the weights moved in each interval, the same for all runs.
        progress: share of the training done at every sample, one more than intervals; None where it is not known.
        level: of the whole sequence of looks.
    """
    runs, intervals, _ = log_displacement.shape
    samples_at, summary_at, first, last = np.zeros((4, runs), dtype=np.int64)
    decision = NominalDecision(
        samples=samples_at,
        p_value=np.ones(runs),
        summary=summary_at,
        first=first,
        last=last,
        score=np.full(runs, -np.inf),
        looks=tuple(
            n for n in range(intervals + 2) if is_look(n, None if progress is None else float(progress[n - 1]))
        ),
    )
    boundary: Boundary | None = None
    present = np.isfinite(log_displacement).any(axis=(0, 2))
    for number, samples in enumerate(decision.looks, start=1):
        kept = np.flatnonzero(present[: samples - 1] & comparable(path[: samples - 1]))
        if len(kept) < FEWEST_INTERVALS:
            continue
        log_path = np.log(path[kept])
        spent = spent_level(_SHARE * level, number, None if progress is None else float(progress[samples - 1]))
        boundary = next_boundary(null_scores(log_path), spent, boundary)
        undecided = np.flatnonzero(decision.samples == 0)
        if not undecided.size:
            break
        values = log_displacement[undecided][:, kept]
        # a degenerate layer has no displacement at all
        values = values[:, :, np.isfinite(values).any(axis=(0, 1))]
        for summary, series in enumerate(depth_summaries(values)):
            velocity = log_velocity(series, log_path)
            found = scan(velocity)
            _record(decision, undecided, samples, summary, kept, found, locate(velocity, found), boundary)
    return decision


def _record(
    decision: NominalDecision,
    undecided: np.ndarray,
    samples: int,
    summary: int,
    kept: np.ndarray,
    found: Scan,
    place: Scan,
    boundary: Boundary,
) -> None:
    """Note the runs that cross at this look, by this summary more than by the other one."""
    p_value = np.minimum(1.0, boundary.p_values(found.score) / _SHARE)
    alarm = (found.score > boundary.value) & (
        (decision.samples[undecided] == 0) | (found.score > decision.score[undecided])
    )
    quiet = ~alarm & (decision.samples[undecided] == 0)
    decision.p_value[undecided[quiet]] = np.minimum(decision.p_value[undecided[quiet]], p_value[quiet])
    chosen = undecided[alarm]
    decision.samples[chosen] = samples
    decision.p_value[chosen] = p_value[alarm]
    decision.score[chosen] = found.score[alarm]
    decision.summary[chosen] = summary
    decision.first[chosen] = kept[place.start[alarm]]
    decision.last[chosen] = kept[place.start[alarm] + place.width[alarm] - 1]
