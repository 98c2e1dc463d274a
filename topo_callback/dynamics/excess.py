"""Excess: how far the newest values of one series are from the values before them, on the scale of its own past.

A window of the k newest values is compared with the median of the few values before it. What counts is what all of its
values, but a quarter, are away from there in one direction: one odd value is no excess of a window of two. The scale is
what the same difference was in the recent past, at least; neither a trend nor autocorrelation make a large excess. Nor
do rare large values that were there before, be they as rare as one in a hundred: what came back several times in a
longer past counts as well.

Behind a change values go to a new level, often by far more than they scatter. That course is no noise: what goes
against it is judged by how the differences scatter about their median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.lib.stride_tricks import sliding_window_view

from topo_callback.dynamics.summaries import MAD

HISTORY = 48  # windows that the scale is taken from
FEWEST = 16  # of them without which there is no scale
LONGER, RECURRING = 1024, 3  # single differences of a longer past, and which of the largest of them is taken
_FEWEST_LONGER = 192
_AT_ONCE = 32  # windows of the longer past that are in memory, 8 KiB each
_RECURS, _ODD = 1.5, 4  # times what the largest of the recent past counts; windows up to here may be odd values alone
SMALLEST_SCALE = 0.01  # of logarithms: a noise below 1 % is taken as 1 %
_UPPER = 1.645  # makes the 90th percentile of an absolute deviation a standard deviation of Gaussian values
_OWN = 1.4


@dataclass(frozen=True)
class Window:
    """How windows of one length are judged.

    Attributes:
        share: of the scale of single values: what a window of independent values has.
        record: of the largest difference of a single value in the past, and for windows of up to four values half as
            much again of the third largest in a longer one: an excess is large beside these, too.
        needed: scales away at which a window has a share of 1.
    """

    share: float
    record: float
    needed: float


@dataclass(frozen=True)
class SeriesRule:
    """How one kind of series is judged.

    Attributes:
        base: values before a window that it is compared with.
        windows: their lengths.
    """

    base: int
    windows: Mapping[int, Window]

    @property
    def context(self) -> int:
        """Values before a place that its excess may depend on, beside what recurs in the longer past."""
        return self.base + 2 * max(self.windows) + HISTORY

    @property
    def longer_context(self) -> int:
        """Values before a place that its excess may depend on."""
        return self.base + max(self.windows) + LONGER + HISTORY

    @property
    def warm_up(self) -> int:
        """Values without which nothing can be said."""
        return self.base + FEWEST + 2 * min(self.windows)


# of values that scatter, as losses of batches do: a single one far away says nothing
NOISY = SeriesRule(
    base=16,
    windows={
        2: Window(0.58, 1 / 4, 9.6),
        3: Window(0.75, 1 / 5, 9.6),
        4: Window(0.5, 1 / 8, 10.2),
        8: Window(0.29, 1 / 16, 13.2),
    },
)
# every value is close to the one before it, so that a single one far away says something
SMOOTH = SeriesRule(
    base=4, windows={1: Window(1.0, 1 / 6, 60.0), 2: Window(0.8, 1 / 8, 12.0), 4: Window(0.7, 1 / 16, 10.8)}
)


@dataclass(frozen=True)
class Excess:
    """The largest excess of the windows that end at each place.

    Attributes:
        share: of what is needed; 0 where nothing can be said.
        length: of that window.
        difference: from the median before it, with its sign: the least that three quarters of its values have.
    """

    share: Float64[np.ndarray, " values"]
    length: Int64[np.ndarray, " values"]
    difference: Float64[np.ndarray, " values"]


def excess(
    values: Float64[np.ndarray, " values"],
    rule: SeriesRule,
    *,
    usual: Bool[np.ndarray, " values"] | None = None,
    settling: Bool[np.ndarray, " values"] | None = None,
    recurring: Float64[np.ndarray, " values"] | None = None,
) -> Excess:
    """The excess at every place of a series.

    Deterministic, and a function of the past: the excess at a place does not change when values are added.

    Args:
        values: finite; logarithms, so that differences are factors. If they are the end of a series, what the first
            `rule.context` of them have is not what they have in the whole of it.
        usual: False for places whose difference is no part of the past that makes the scale, as after a change.
        recurring: what `recurring_differences` says; None: of these values.
        settling: places at which a difference against the median one is judged by the scatter about that.
    """
    count = len(values)
    usual = np.ones(count, dtype=bool) if usual is None else usual
    singles = _differences(values, 1, rule.base)
    recurring = recurring_differences(values, rule, usual=usual) if recurring is None else recurring
    share, length, difference = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count)
    for wide, window in rule.windows.items():
        found = _differences(values, wide, rule.base)
        middle, upper, largest = _past(singles, usual, wide, (0.5, 0.9, 1.0))
        if wide <= _ODD:
            largest = np.maximum(largest, _RECURS * _shifted(recurring, wide))
        scale = _scale(window, middle, upper, largest)
        if wide > 1:
            scale = np.maximum(scale, _OWN * _past(found, usual, wide, (0.9,))[0] / _UPPER)
        if settling is not None and settling.any():
            about, back = _scale_about(singles, found, usual, wide, window)
            scale = np.where(settling & back, np.minimum(scale, about), scale)
        now = np.abs(found) / (np.maximum(scale, SMALLEST_SCALE) * window.needed)
        better = now > share  # not where either is missing
        share[better], length[better], difference[better] = now[better], wide, found[better]
    return Excess(share, length, difference)


def _differences(values: np.ndarray, wide: int, base: int) -> Float64[np.ndarray, " values"]:
    """For the window that ends at each place; 0 where its values lie on both sides, NaN where values are too few."""
    found = np.full(len(values), np.nan)
    places = len(values) - base - wide + 1
    if places < 1:
        return found
    before = np.median(sliding_window_view(values, base)[:places], axis=1)
    away = np.sort(sliding_window_view(values, wide)[base:] - before[:, None], axis=1)
    spared = wide // 4
    low, high = away[:, spared], away[:, wide - 1 - spared]
    found[base + wide - 1 :] = np.where(low > 0, low, np.where(high < 0, high, 0.0))
    return found


def recurring_differences(
    values: Float64[np.ndarray, " values"], rule: SeriesRule, *, usual: Bool[np.ndarray, " values"], first: int = 0
) -> Float64[np.ndarray, " values"]:
    """What `RECURRING` of the `LONGER` single differences up to each place reach; 0 where too few are known.

    Args:
        usual: as of `excess`.
        first: the first place that is asked for; there are zeros before it.
    """
    found = np.zeros(len(values))
    if len(values) <= _FEWEST_LONGER:
        return found
    start = max(0, first - LONGER - rule.base)
    differences = np.where(usual[start:], np.abs(_differences(values[start:], 1, rule.base)), np.nan)
    padded = np.concatenate([np.full(LONGER - 1, np.nan), differences])
    known = np.isfinite(padded)
    counts = np.cumsum(np.concatenate([[0], known]))
    places = np.flatnonzero(counts[LONGER:] - counts[:-LONGER] >= _FEWEST_LONGER)
    places = places[places >= first - start]
    past = sliding_window_view(np.where(known, padded, -1.0), LONGER)
    for begin in range(0, len(places), _AT_ONCE):
        some = places[begin : begin + _AT_ONCE]
        found[start + some] = np.partition(past[some], LONGER - RECURRING, axis=1)[:, LONGER - RECURRING]
    return found


def _shifted(values: np.ndarray, places: int) -> np.ndarray:
    return np.concatenate([np.zeros(places), values])[: len(values)]


def _scale(window: Window, middle: np.ndarray, upper: np.ndarray, largest: np.ndarray) -> np.ndarray:
    scale: np.ndarray = np.maximum(
        window.share * np.maximum(MAD * middle, upper / _UPPER), window.record * largest
    )  # fmt: skip
    return scale


def _scale_about(
    singles: np.ndarray, found: np.ndarray, usual: np.ndarray, wide: int, window: Window
) -> tuple[Float64[np.ndarray, " values"], Bool[np.ndarray, " values"]]:
    """The scale about the median difference, and where a difference goes against that."""
    median = _past(singles, usual, wide, (0.5,), signed=True)[0]
    scale = _scale(window, *_past(singles, usual, wide, (0.5, 0.9, 1.0), about=median))
    if wide > 1:
        own = _past(found, usual, wide, (0.5,), signed=True)[0]
        scale = np.maximum(scale, _OWN * _past(found, usual, wide, (0.9,), about=own)[0] / _UPPER)
    return scale, found * median < 0


def _past(
    differences: np.ndarray,
    usual: np.ndarray,
    wide: int,
    shares: tuple[float, ...],
    *,
    about: Float64[np.ndarray, " values"] | float = 0.0,
    signed: bool = False,
) -> list[Float64[np.ndarray, " values"]]:
    """Quantiles at `HISTORY` places, the last of them before the window; NaN if too few.

    Of how far the differences are from `about`, or of the differences as they are.
    """
    kept = np.where(usual, differences, np.nan)
    padded = np.concatenate([np.full(HISTORY + wide, np.nan), kept])
    past = sliding_window_view(padded, HISTORY)[: len(kept)]
    if not signed:
        past = np.abs(past - np.broadcast_to(about, len(kept))[:, None])
    ordered = np.sort(past, axis=1)  # NaN last
    counts = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(kept))
    return [
        np.where(counts >= FEWEST, ordered[rows, np.maximum(0, np.ceil(share * counts).astype(np.int64) - 1)], np.nan)
        for share in shares
    ]
