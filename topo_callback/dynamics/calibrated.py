"""Level A, calibrated: a conformal p-value of a run's largest excess against reference runs.

Run and references are members of one set. Every interval is centred at the median of the members and divided by their
spread; the excess of a member is the largest standardised mean over windows of its series. All of it treats the
members alike, so where the run is one more quiet run of the same kind, each of them is equally likely to have the
largest excess, whatever the noise (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005): with R
references the p-value (1 + references that exceed the run) / (R + 1) is valid. A reference counts as exceeding the
run from nine tenths of its excess on: that costs little power and makes the p-value, exactly 5 % at best with 19
references, smaller than its level.

A run that is still going is compared with the whole of its references: its excess so far can only grow, so looking at
every sample costs nothing. Only their centre, in the intervals that the run has yet to reach, lacks the run.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.robust import MAD, row_medians
from topo_callback.dynamics.scan import CLIP, CLIP_SHORT, widths

FEWEST_REFERENCES = 19  # for a p-value of 5 %
_FEWEST_FOR_PAIRS = 7  # intervals; with fewer of them a window may be one interval
_MARGIN = 0.9
_FLOOR = 0.02  # smallest spread of log velocity


def largest_excesses(
    log_velocity: Float64[np.ndarray, "sets members summaries intervals"], own: int
) -> tuple[Float64[np.ndarray, "sets members"], Int64[np.ndarray, "sets 3"]]:
    """The largest excess of every member, and the window of the first one: summary, first and last interval.

    Args:
        log_velocity: of the depth summaries; member 0 is the run and has values in the first `own` intervals only.
        own: at least 1.
    """
    sets, members, summaries, intervals = log_velocity.shape
    deviation = np.empty_like(log_velocity)
    past, future = np.s_[:, :, :, :own], np.s_[:, 1:, :, own:]
    for part in (past, future):
        values = log_velocity[part].swapaxes(1, 3)
        deviation[part] = (values - row_medians(values)).swapaxes(1, 3)
    deviation[:, 0, :, own:] = 0.0
    spread = np.empty((sets, 1, summaries, intervals))
    for part, where in ((past, np.s_[..., :own]), (future, np.s_[..., own:])):
        spread[where] = MAD * row_medians(np.abs(deviation[part]).swapaxes(1, 3)).swapaxes(1, 3)
    # the spread of one interval rests on some twenty values: half its own, half that of all
    spread = np.sqrt((spread**2 + (spread**2).mean(axis=3, keepdims=True)) / 2)
    standard = deviation / np.maximum(spread, _FLOOR)
    limit = CLIP + CLIP_SHORT / intervals
    standard = np.clip(standard, -limit, limit)
    running = np.concatenate([np.zeros((sets, members, summaries, 1)), np.cumsum(standard, axis=3)], axis=3)
    excess = np.full((sets, members), -np.inf)
    window = np.zeros((sets, 3), dtype=np.int64)
    for wide in _widths(intervals):
        means = (running[..., wide:] - running[..., :-wide]) / wide
        # what windows of this width do in the references, whatever their autocorrelation
        usual = np.abs(means[:, 1:]).mean(axis=(1, 2, 3), keepdims=True)
        means /= np.maximum(usual, 1e-12)
        means[:, 0, :, max(0, own - wide + 1) :] = -np.inf
        flat = means.reshape(sets, members, -1)
        place = flat[:, 0].argmax(axis=1)
        better = np.flatnonzero(flat[np.arange(sets), 0, place] > excess[:, 0])
        summary, first = np.divmod(place[better], means.shape[3])
        window[better] = np.stack([summary, first, first + wide - 1], axis=1)
        excess = np.maximum(excess, flat.max(axis=2))
    return excess, window


def conformal_p_values(excess: Float64[np.ndarray, "sets members"]) -> Float64[np.ndarray, " sets"]:
    """(1 + references whose excess is at least 0.9 times that of the run) / (references + 1); member 0 is the run."""
    p_values: np.ndarray = (1 + (excess[:, 1:] >= _MARGIN * excess[:, :1]).sum(axis=1)) / excess.shape[1]
    return p_values


def _widths(intervals: int) -> list[int]:
    found = [wide for wide in widths(intervals) if wide <= max(1, intervals // 2)]
    return [1, *found] if intervals < _FEWEST_FOR_PAIRS else found
