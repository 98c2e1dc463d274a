"""The scan statistic: the largest excess of a window of samples over the rest of its series, in robust standard units.

Every window of at least two and at most a third of the intervals is compared with the intervals outside of it. The
scale and the autocorrelation come from outside the window alone, so that a burst neither inflates the noise it is
measured by nor passes for autocorrelation. The standard error is that of means of a first-order autoregression, whose
coefficient is corrected for its bias in short series (Kendall, Biometrika 1954) and then raised by two standard
errors: a short series cannot tell autocorrelation from a burst, and has to allow for it. Residuals are clipped at
3 + 75 / n robust standard deviations, which matters for heavy tails in long series only.

How large it gets in quiet runs is found by a parametric bootstrap on the run's own path.

A simulated quiet run follows the weights' path by a power law; its log velocity is a first-order autoregression with
innovations of Student's t with 3 degrees of freedom. The level has to hold for the least favourable of several
coefficients, because a single run is too short to say which one it has. (With Gaussian innovations the statistic is
smaller throughout, so they need no simulation of their own.)

The excess that an observed run is forgiven, because its response may be bent otherwise, is not forgiven here: these
runs follow responses that can be fitted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.response import log_velocity
from topo_callback.dynamics.summaries import MAD, row_medians

SHORTEST = 2  # intervals in a window
TOLERANCE = 0.1  # of log velocity: the response may be wrong by this much over many intervals
_TOLERANT_WIDTH = 11  # from here on all of it is forgiven; a wrong response is wrong smoothly, not in two intervals
SMALLEST_SCALE = 0.02  # noise below 2 % is taken as 2 %
CLIP, CLIP_SHORT = 3.0, 75.0
_ALLOWANCE = 2.0
_HIGHEST = 0.9
_GRID = np.linspace(0.0, _HIGHEST, 19)
AUTOCORRELATIONS = (0.0, 0.5, 0.8)
SIMULATIONS = ((0, 4000), (16, 1000), (1024, 300))  # from so many intervals on, for each autocorrelation
_SEED = 20260619
_BURN_IN = 40
_BLOCK = 100  # simulated runs, or intervals, worked on at once
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SCALES = (0.05, 0.15, 0.4)
_EVEN = 0.1  # ranges of log path below this are one and the same to the response


@dataclass(frozen=True)
class Scan:
    """The best window of each run.

    Attributes:
        score: excess of its mean over the mean outside, less the tolerance, in standard errors.
        start: first interval of the window.
        width: intervals in the window.
        autocorrelation: the coefficient that its standard error allows for.
    """

    score: Float64[np.ndarray, " runs"]
    start: Int64[np.ndarray, " runs"]
    width: Int64[np.ndarray, " runs"]
    autocorrelation: Float64[np.ndarray, " runs"]


def widths(intervals: int) -> list[int]:
    """The widths that are scanned: 2, 3, 4, 5, then growing by a third, up to a third of the intervals."""
    found = [SHORTEST]
    while (wider := max(found[-1] + 1, int(found[-1] * 1.35))) <= intervals / 3:
        found.append(wider)
    return found


def scan(log_velocity: Float64[np.ndarray, "runs intervals"], *, tolerance: float = TOLERANCE) -> Scan:
    """The best window of every run.

    Args:
        log_velocity: at least 6 intervals, without missing values.
        tolerance: excess over 11 intervals or more that does not count; over fewer, proportionally less.
    """
    runs, intervals = log_velocity.shape
    values = _clipped(log_velocity)
    sums, squares, products = (_running(part) for part in (values, values**2, values[:, :-1] * values[:, 1:]))
    score = np.full(runs, -np.inf)
    start, width = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    autocorrelation = np.zeros(runs)
    every = np.arange(runs)
    for wide in widths(intervals):
        scores, allowed = _windows(sums, squares, products, wide, tolerance)
        place = scores.argmax(axis=1)
        found = scores[every, place]
        better = found > score
        score[better] = found[better]
        start[better], width[better] = place[better], wide
        autocorrelation[better] = allowed[every, place][better]
    return Scan(score, start, width, autocorrelation)


def locate(log_velocity: Float64[np.ndarray, "runs intervals"], found: Scan) -> Scan:
    """Where the burst of an alarm is: the best window when all are judged by one and the same autocorrelation.

    For the decision every window is judged by the intervals outside of it, which now and then favours one that is too
    wide, because what is left outside of it happens to be less autocorrelated.

    Returns:
        Starts and widths; scores and autocorrelations are those of `found`.
    """
    runs, intervals = log_velocity.shape
    sums = _running(_clipped(log_velocity))
    best = np.full(runs, -np.inf)
    start, width = found.start.copy(), found.width.copy()
    for wide in widths(intervals):
        inside = sums[:, wide:] - sums[:, :-wide]
        excess = inside / wide - (sums[:, -1:] - inside) / (intervals - wide)
        variance = _mean_variance(found.autocorrelation, wide)
        variance = variance + _mean_variance(found.autocorrelation, intervals - wide)
        place = excess.argmax(axis=1)
        scores = excess[np.arange(runs), place] / np.sqrt(variance)
        better = scores > best
        best[better] = scores[better]
        start[better], width[better] = place[better], wide
    return Scan(found.score, start, width, found.autocorrelation)


def _clipped(log_velocity: np.ndarray) -> np.ndarray:
    centred = log_velocity - row_medians(log_velocity)
    limit = CLIP + CLIP_SHORT / log_velocity.shape[1]
    limits = limit * np.maximum(MAD * row_medians(np.abs(centred)), SMALLEST_SCALE)
    values: np.ndarray = np.clip(centred, -limits, limits)
    return values


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _windows(
    sums: np.ndarray, squares: np.ndarray, products: np.ndarray, wide: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Score and allowed autocorrelation of all windows of one width, each [runs, starts]."""
    intervals = sums.shape[1] - 1
    first = np.arange(intervals - wide + 1)
    after = first + wide
    outside = intervals - wide
    forgiven = tolerance * min(1.0, (wide - 1) / (_TOLERANT_WIDTH - 1))
    inside = sums[:, after] - sums[:, first]
    rest = (sums[:, -1:] - inside) / outside
    variance = (squares[:, -1:] - squares[:, after] + squares[:, first]) / outside - rest**2
    # neighbours of which neither is in the window
    low, high = np.maximum(first - 1, 0), np.minimum(after, intervals - 1)
    pairs = (intervals - 1) - (high - low)
    covariance = (products[:, -1:] - products[:, high] + products[:, low]) / pairs - rest**2
    variance = np.maximum(variance, SMALLEST_SCALE**2)
    coefficient = covariance / variance
    coefficient = coefficient + (1 + 3 * coefficient) / outside + _ALLOWANCE / np.sqrt(outside)
    coefficient = np.clip(coefficient, 0.0, _HIGHEST)
    spread = _mean_variance(coefficient, wide) + _mean_variance(coefficient, outside)
    return (inside / wide - rest - forgiven) / np.sqrt(variance * spread), coefficient


def _mean_variance(coefficient: np.ndarray, count: int) -> np.ndarray:
    """Variance of the mean of `count` values of a first-order autoregression of variance 1."""
    variance: np.ndarray = np.interp(coefficient, _GRID, _mean_variances(count))
    return variance


@lru_cache(maxsize=1 << 14)
def _mean_variances(count: int) -> np.ndarray:
    """`_mean_variance` at the coefficients of the grid."""
    lags = np.arange(1, count)
    table: np.ndarray = (count + 2 * ((count - lags) * _GRID[:, None] ** lags).sum(axis=1)) / count**2
    return table


def null_scores(log_path: Float64[np.ndarray, " intervals"]) -> Float64[np.ndarray, "autocorrelations simulations"]:
    """Scan statistics of simulated quiet runs with this path.

    Deterministic, and nested: a simulated run over the first intervals of a path is the beginning of the same one over
    all of it. Longer paths have fewer runs, the first of those that shorter ones have. The last 64 results are kept.
    """
    even = np.ptp(log_path) < _EVEN
    return _null_scores(np.zeros(len(log_path)).tobytes() if even else log_path.tobytes())


@lru_cache(maxsize=64)
def _null_scores(path: bytes) -> np.ndarray:
    log_path = np.frombuffer(path)
    number = np.arange([count for least, count in SIMULATIONS if len(log_path) >= least][-1])
    power = np.array(_POWERS)[number % len(_POWERS)]
    scale = np.array(_SCALES)[number // len(_POWERS) % len(_SCALES)]
    scores = []
    for row in range(len(AUTOCORRELATIONS)):
        noise = _noise(row, len(log_path), len(number))
        found = []
        for start in range(0, len(number), _BLOCK):
            some = slice(start, start + _BLOCK)
            simulated = power[some, None] * log_path + scale[some, None] * noise[some]
            found.append(scan(log_velocity(simulated, log_path), tolerance=0.0).score)
        scores.append(np.concatenate(found))
    return np.stack(scores)


def _noise(row: int, intervals: int, runs: int) -> Float64[np.ndarray, "{runs} {intervals}"]:
    """Log velocities of variance 1 (as far as t has one); those of fewer intervals are the beginning of these."""
    from scipy.signal import lfilter  # half a second to load, for runs that are long enough to be judged

    coefficient = AUTOCORRELATIONS[row]
    generator = np.random.default_rng((_SEED, row))
    most = SIMULATIONS[0][1]
    state = np.zeros((1, most))
    parts = []
    # piece by piece: a long run must not take memory for all simulated runs at once
    for start in range(0, _BURN_IN + intervals, _BLOCK):
        size = (min(_BLOCK, _BURN_IN + intervals - start), most)
        innovations = generator.standard_t(3, size=size) * np.sqrt((1 - coefficient**2) / 3)
        values, state = lfilter([1.0], [1.0, -coefficient], innovations, axis=0, zi=state)
        parts.append(values[:, :runs].copy())
    return np.ascontiguousarray(np.concatenate(parts)[_BURN_IN:].T)
