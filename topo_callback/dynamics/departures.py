"""Departures: how far displacement between samples is above its own past, whatever its response to the schedule is.

A window of the newest 1, 2 or 4 intervals is compared with the median of the four before it; what counts is what all of
its values, but a quarter, are above there. In what proportion displacement follows the planned learning rate is not
known: it may grow as a power between 0 (a floor, saturation) and 1.5 of it. Logarithms are judged under four powers,
and the least favourable of them counts: what any of them explains is no departure, so neither warm-up nor decay nor a
restart is one. How much is needed comes from the same differences in the run's own past. In the first intervals the
scale is their scatter, the largest value included, and a rise that went on before is taken off; from the 40th on the
tail of their distribution is known well enough to say how likely a larger one is (`chance_of`).

A window that was too early to be judged is judged once, when enough is known of what came after it: it must be above
the four intervals behind it as well, so that a transient at the start is none.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.lib.stride_tricks import sliding_window_view

from topo_callback.dynamics.summaries import row_quantiles

_COUNT, _FEWEST = 0.6, 4  # the tail has .6 sqrt(n) values, at least 4
_OBSERVED, _LOGARITHMS = 8.0, 2.0  # what is known before: as if 8 values had shown a power of 4
_NEAR = 1.5  # times where the tail begins: nothing within is told apart


def chance_of(value: float, ordered: Sequence[float], *, smallest: float) -> float:
    """Posterior predictive chance of a value as large as this one; 1 where the past says nothing against it.

    Beyond its largest values the past is taken to have the tail of a Pareto distribution, whose power is not known:
    its conjugate prior is a gamma distribution with mean 4, and the chance is what is left when the power is
    integrated out (Hill, Annals of Statistics 3, 1975, has the likelihood). So a heavy tail that shows is believed, and
    a light one the more the longer it has been seen.

    Args:
        value: at least 0.
        ordered: past values, ascending, at least 0.
        smallest: a value below which the tail does not begin.
    """
    count = len(ordered)
    largest = max(_FEWEST, math.ceil(_COUNT * math.sqrt(count)))
    if count <= largest:
        return 1.0
    begins = max(ordered[count - largest - 1], smallest)
    if not value > _NEAR * begins:
        return 1.0
    seen = _LOGARITHMS + sum(math.log(each / begins) for each in ordered[count - largest :] if each > begins)
    beyond: float = (seen / (seen + math.log(value / begins))) ** (largest + _OBSERVED)
    return largest / count * beyond


BASE = 4  # intervals before a window that it is compared with
HISTORY = 48  # windows that the scale is taken from
FEWEST = 6  # of them without which there is no scale
POWERS = (0.0, 0.5, 1.0, 1.5)
_CURVED = 0.35  # differences of log plan above which a difference tells the response, not the scale
_SPREAD = 1.5 / 1.349  # of the distance between quartiles, as a standard deviation; and half of it more
_UPPER = 1.28  # makes a 90th percentile a standard deviation of Gaussian values
_OWN = 1.4 / 1.645
_SMALLEST_SCALE = 0.02
_GROWS_OVER, _GROWTH = 32, 0.35
TAIL_FROM = 40  # intervals from which the tail decides
_LEVEL = 0.05  # at interval t the chance that is allowed is this / (t + 1)
EARLY_LOOK = 24  # intervals after which the first are judged
_EARLY_LEVEL = 0.002  # of all early windows


@dataclass(frozen=True)
class Window:
    """How windows of one length are judged.

    Attributes:
        share: of the scatter of single intervals: what a window of independent values has.
        needed: scales above the past at which a window has a share of 1, at the start of a run.
        level: of the chance that is allowed once the tail decides; single intervals have the heavier tails.
    """

    share: float
    needed: float
    level: float


WINDOWS: Mapping[int, Window] = {1: Window(1.0, 6.0, 0.08), 2: Window(0.8, 3.6, 1.0), 4: Window(0.7, 3.4, 1.0)}


@dataclass(frozen=True)
class Departures:
    """The largest departure of the windows that end at each interval.

    Attributes:
        share: of what is needed for an alarm; 0 where nothing can be said.
        length: of that window.
    """

    share: Float64[np.ndarray, "*runs intervals"]
    length: Int64[np.ndarray, "*runs intervals"]


def departures(
    log_displacement: Float64[np.ndarray, "*runs intervals"],
    log_plan: Float64[np.ndarray, " intervals"],
    *,
    broken: Bool[np.ndarray, " intervals"] | None = None,
) -> Departures:
    """The departure at every interval.

    Deterministic, and a function of the past: it does not change when intervals are added. The work grows with the
    number of intervals, but for insertions into sorted lists.

    Args:
        log_displacement: of one run or several, without missing values.
        log_plan: logarithm of the sum of learning rates that the schedule plans, or of the steps.
        broken: intervals of earlier alarms: no window that is judged, and none that the scale is taken from, may lie
            on them or be compared with them.
    """
    count = len(log_plan)
    broken = np.zeros(count, dtype=bool) if broken is None else broken
    curved = np.abs(np.nan_to_num(_above(log_plan, 1))) > _CURVED
    needed = (1 + np.arange(count) / _GROWS_OVER) ** _GROWTH
    # one row for each power, before the runs
    powers = np.array(POWERS).reshape(-1, *(1,) * log_displacement.ndim)
    values = log_displacement - powers * log_plan
    single = np.where(curved | _touched(broken, 1), np.nan, _above(values, 1))
    low, middle, high, upper, largest = _past(single, (0.25, 0.5, 0.75, 0.9, 1.0))
    rising = np.maximum(middle, 0.0)
    scatter = np.maximum(_SPREAD * (high - low), np.maximum(upper - rising, 0.0) / _UPPER)
    record = np.maximum(largest - rising, 0.0)
    share, length = np.zeros(log_displacement.shape), np.ones(log_displacement.shape, dtype=np.int64)
    for wide, window in WINDOWS.items():
        found = np.where(_touched(broken, wide), np.nan, _above(values, wide))
        scale = _later(np.maximum(window.share * scatter, record), wide)
        if wide > 1:
            own = _past(np.where(curved, np.nan, np.maximum(found, 0.0)), (0.9,))[0]
            scale = np.maximum(scale, _OWN * _later(own, wide))
        above = (found - _later(rising, wide)) / np.maximum(scale, _SMALLEST_SCALE)
        now = above.min(axis=0) / (window.needed * needed)
        now[..., TAIL_FROM:] = 0.0
        chances = np.array([_chances(row, curved, wide) for row in found.reshape(-1, count)]).reshape(found.shape)
        now = np.fmax(now, window.level * _LEVEL / np.arange(1, count + 1) / chances.max(axis=0))
        better = now > share  # not where it is missing
        share[better], length[better] = now[better], wide
    return Departures(share, length)


def early_departure(
    log_displacement: Float64[np.ndarray, "runs intervals"],
    log_plan: Float64[np.ndarray, " intervals"],
) -> tuple[int, int, int] | None:
    """The clearest departure among windows that were too early to be judged, in the first `EARLY_LOOK` intervals.

    Returns:
        the run, and the first and last interval of the window; None where no window stands out or it is too soon.
    """
    if len(log_plan) < EARLY_LOOK:
        return None
    plan = log_plan[:EARLY_LOOK]
    curved = np.abs(np.nan_to_num(_above(plan, 1))) > _CURVED
    powers = np.array(POWERS)[:, None, None]
    values = log_displacement[None, :, :EARLY_LOOK] - powers * plan
    best, clearest = 1.0, None
    for wide, window in WINDOWS.items():
        before = _above(values, wide)
        after = _above(values[..., ::-1], wide)[..., ::-1]  # of the window that begins at each place
        for last in range(BASE + wide - 1, BASE + FEWEST + 1):
            behind = last + wide + BASE
            rest = np.abs(before[..., behind:][..., ~curved[behind:]])
            standing = np.minimum(before[..., last], after[..., last - wide + 1])
            chance = np.array(
                [
                    [_chance_above(float(standing[p, r]), sorted(rest[p, r])) for r in range(len(log_displacement))]
                    for p in range(len(POWERS))
                ]
            ).max(axis=0) / (window.level * _EARLY_LEVEL)
            if chance.min() < best:
                best, clearest = float(chance.min()), (int(chance.argmin()), last - wide + 1, last)
    return clearest


def least_above(
    log_displacement: Float64[np.ndarray, "intervals layers"],
    log_plan: Float64[np.ndarray, " intervals"],
    base: slice,
) -> Float64[np.ndarray, "intervals layers"]:
    """Every interval above the median of some of them, under the power that explains most of it; NaN where missing."""
    found = []
    for power in POWERS:
        values = log_displacement - power * log_plan[:, None]
        found.append(values - row_quantiles(values[base].T, 0.5))
    least: np.ndarray = np.min(found, axis=0)
    return least


def _above(values: np.ndarray, wide: int) -> Float64[np.ndarray, "*rows intervals"]:
    """What three quarters of the window that ends at each place are above the median before it; NaN if too few."""
    found = np.full(values.shape, np.nan)
    places = values.shape[-1] - BASE - wide + 1
    if places < 1:
        return found
    before = np.sort(sliding_window_view(values, BASE, axis=-1)[..., :places, :], axis=-1)
    windows = np.sort(sliding_window_view(values, wide, axis=-1)[..., BASE:, :], axis=-1)
    middle = (before[..., (BASE - 1) // 2] + before[..., BASE // 2]) / 2
    found[..., BASE + wide - 1 :] = windows[..., wide // 4] - middle
    return found


def _chances(differences: np.ndarray, curved: np.ndarray, wide: int) -> Float64[np.ndarray, " intervals"]:
    """How likely each is, from `TAIL_FROM` on, by all that were known before its window began; else infinite.

    What is known are differences either way: a run has few.
    """
    chances = np.full(len(differences), np.inf)
    past: list[float] = []
    taken = 0
    for place in range(TAIL_FROM, len(differences)):
        for each in range(taken, place - wide):
            if not curved[each] and np.isfinite(differences[each]):
                insort(past, abs(float(differences[each])))
        taken = max(taken, place - wide)
        chances[place] = _chance_above(float(differences[place]), past)
    return chances


def _chance_above(difference: float, past: list[float]) -> float:
    """Infinite where nothing can be said."""
    if not np.isfinite(difference) or len(past) < FEWEST:
        return np.inf
    return chance_of(max(difference, 0.0), past, smallest=_SMALLEST_SCALE)


def _touched(broken: np.ndarray, wide: int) -> Bool[np.ndarray, " intervals"]:
    """Whether a window that ends at each place, or what it is compared with, has a broken interval."""
    running = np.concatenate([np.zeros(BASE + wide, dtype=np.int64), np.cumsum(broken)])
    touched: np.ndarray = running[BASE + wide :] > running[: len(broken)]
    return touched


def _past(differences: np.ndarray, shares: tuple[float, ...]) -> list[Float64[np.ndarray, "*rows intervals"]]:
    """Quantiles at `HISTORY` places before each, the newest left out: a change may have begun there."""
    rows = differences.reshape(-1, differences.shape[-1])
    # row by row: the windows of all at once are some kilobytes for each interval of a run
    found = np.stack([_past_of_row(row, shares) for row in rows], axis=1)
    return list(found.reshape(len(shares), *differences.shape))


def _past_of_row(row: np.ndarray, shares: tuple[float, ...]) -> Float64[np.ndarray, "shares intervals"]:
    padded = np.concatenate([np.full(HISTORY + 1, np.nan), row])
    ordered = np.sort(sliding_window_view(padded, HISTORY)[:-2], axis=1)  # NaN last
    counts = np.isfinite(ordered).sum(axis=1)
    places = [np.maximum(0, np.ceil(share * counts).astype(np.int64) - 1) for share in shares]
    values = np.stack([ordered[np.arange(len(row)), place] for place in places])
    return np.where(counts >= FEWEST, values, np.nan)


def _later(values: np.ndarray, wide: int) -> np.ndarray:
    """What was known before a window that ends at each place began, from what was known before the place."""
    missing = np.full((*values.shape[:-1], wide - 1), np.nan)
    later: np.ndarray = np.concatenate([missing, values], axis=-1)[..., : values.shape[-1]]
    return later
