"""Level B, nominal: one decision on one run, from nothing but the run itself.

At each look the two depth summaries are divided by the response that fits them, scanned, and compared with quiet runs
simulated over the same path. Each summary has half of the level, of which two fifths are kept back for what a summary
of several layers has that a single simulated series has not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.clock import comparable
from topo_callback.dynamics.depth import depth_summaries
from topo_callback.dynamics.looks import Boundary, is_look, next_boundary, spent_level
from topo_callback.dynamics.null_distribution import null_scores
from topo_callback.dynamics.response import FEWEST_INTERVALS, log_velocity
from topo_callback.dynamics.scan import Scan, locate, scan

_SHARE = 0.3  # of the level, for each of the two summaries


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
