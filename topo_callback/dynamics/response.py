"""What the weights' path predicts: displacement as a monotone function of how far the weights moved.

Two samples that are a short path apart differ in proportion to it; far apart, displacement saturates, because two
unrelated barcodes are only so far from each other; and very near each other it may stop falling, at the noise floor of
the arithmetic. In logarithms all of these are curves with slopes between 0 and 1. The response is

    log response(x) = level + b x + (c - b) log(1 + exp(x - knee)),    x = log path,    0 <= b, c <= 1,

which has slope b before the knee and c after it: a power law (b = c), linear or root growth that saturates (c = 0), a
floor (b = 0). It is fitted by least absolute deviations, so a burst does not bend it while it covers less than half of
the samples; and as it can neither fall nor grow faster than the path, a burst cannot be explained away by a steep
curve.

Velocity is displacement over what the response predicts, for every layer and over depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from topo_callback.dynamics.series import HEADLINE, Series, comparable
from topo_callback.dynamics.summaries import absolute_deviations, row_medians

FEWEST_INTERVALS = 6  # that can show a departure from a response; see `layer_velocities`
_COARSE_KNEES = 9
_FINE = 4  # fine knees in each gap between coarse ones
_KNEES = (_COARSE_KNEES - 1) * _FINE + 1
_SLOPE_STEPS = (0.25, 0.125, 0.0625)  # of the refinement; the knee moves by 8 times as many fine knees
_SHARPNESS = 1.5
_FLAT = 0.1  # ranges of log path below this (10 %) cannot tell one shape from another
_BENT = 0.7  # ranges below this (a factor of two) cannot show a knee
_ENOUGH = 48  # intervals that the shape is chosen by


@dataclass(frozen=True)
class Response:
    """Fitted responses, one for each run, all over the same paths or for one run.

    Attributes:
        level: log response of a straight line at log path 0.
        before: slope b before the knee.
        after: slope c after the knee.
        knee: log path of the knee.
    """

    level: Float64[np.ndarray, " runs"]
    before: Float64[np.ndarray, " runs"]
    after: Float64[np.ndarray, " runs"]
    knee: Float64[np.ndarray, " runs"]

    def predict(self, log_path: Float64[np.ndarray, " intervals"]) -> Float64[np.ndarray, "runs intervals"]:
        """Log displacement that these paths predict."""
        bend = _bend(log_path, self.knee)
        line: np.ndarray = self.level[:, None] + self.before[:, None] * log_path
        bent: np.ndarray = line + (self.after - self.before)[:, None] * bend
        return bent


def fit_response(
    log_displacement: Float64[np.ndarray, "runs intervals"], log_path: Float64[np.ndarray, " intervals"]
) -> Response:
    """The response with the smallest mean absolute deviation, for each run on its own.

    A coarse grid of slopes and knees, then three rounds of descent on finer ones. Where the paths differ by
    less than 10 % the response is a constant, below a factor of two a power law. Long runs choose the shape by every
    second, third, ... interval. Deterministic.

    Args:
        log_displacement: without missing values.
        log_path: of the same intervals.
    """
    chosen = slice(None, None, -(-len(log_path) // _ENOUGH))
    search = _Search(np.ascontiguousarray(log_displacement[:, chosen]), log_path[chosen])
    span = float(np.ptp(log_path))
    ones = np.ones(len(log_displacement))
    for slope, changed, place in _coarse(span):
        search.offer(slope * ones, changed * ones, place * ones)
    if span > _FLAT:
        for step in _SLOPE_STEPS:
            for b, c, k in _moves(step, bent=span > _BENT):
                before, after, knee = search.found
                search.offer(before + b, after + c, knee + k)
    before, after, knee = search.found
    number = knee.astype(np.int64)
    shape = Response(np.zeros(len(before)), before, after, search.knees[number])
    return replace(shape, level=row_medians(log_displacement - shape.predict(log_path))[:, 0])


def log_velocity(
    log_displacement: Float64[np.ndarray, "runs intervals"], log_path: Float64[np.ndarray, " intervals"]
) -> Float64[np.ndarray, "runs intervals"]:
    """Logarithm of displacement over what the path predicts: 0 is as predicted, and the median of every run."""
    velocity: np.ndarray = log_displacement - fit_response(log_displacement, log_path).predict(log_path)
    return velocity


class _Search:
    """The best parameters so far: slopes before and after the knee, and the number of the knee."""

    def __init__(self, log_displacement: np.ndarray, log_path: np.ndarray) -> None:
        self.log_displacement = log_displacement
        self.log_path = log_path
        self.knees = np.linspace(log_path.min(), log_path.max(), _KNEES)
        self.bends = _bend(log_path, self.knees)
        self.deviation = np.full(len(log_displacement), np.inf)
        self.found = np.zeros((3, len(log_displacement)))

    def offer(self, before: np.ndarray, after: np.ndarray, knee: np.ndarray) -> None:
        """Take these parameters, moved into their ranges, in the runs where they fit better."""
        offered = np.stack([np.clip(before, 0, 1), np.clip(after, 0, 1), np.clip(knee, 0, len(self.knees) - 1)])
        before, after, knee = offered
        bend = self.bends[knee.astype(np.int64)]
        rest = self.log_displacement - before[:, None] * self.log_path - (after - before)[:, None] * bend
        deviation = absolute_deviations(rest)
        better = deviation < self.deviation * (1 - 1e-9)
        self.deviation[better] = deviation[better]
        self.found[:, better] = offered[:, better]


def _bend(log_path: np.ndarray, knee: np.ndarray) -> np.ndarray:
    bend: np.ndarray = np.logaddexp(0.0, _SHARPNESS * (log_path - knee[:, None])) / _SHARPNESS
    return bend


def _coarse(span: float) -> list[tuple[float, float, float]]:
    if span <= _FLAT:
        return [(0.0, 0.0, 0.0)]
    powers = [(slope, slope, 0.0) for slope in (0.0, 0.25, 0.5, 0.75, 1.0)]
    if span <= _BENT:
        return powers
    slopes = (0.0, 0.5, 1.0)
    knees = [float(_FINE * gap) for gap in range(_COARSE_KNEES)]
    return powers + [(b, c, knee) for b in slopes for c in slopes if b != c for knee in knees]


def _moves(step: float, *, bent: bool) -> list[tuple[float, float, float]]:
    if not bent:
        return [(step, step, 0.0), (-step, -step, 0.0)]
    knee = step * 2 * _FINE
    # along the axes, and along the valleys: an earlier knee looks like a smaller change of slope
    ways = [(step, 0.0, 0.0), (0.0, step, 0.0), (0.0, 0.0, knee)]
    ways += [(step, 0.0, knee), (0.0, step, knee), (step, 0.0, -knee), (0.0, step, -knee)]
    return [(sign * b, sign * c, sign * k) for b, c, k in ways for sign in (1, -1)]


def layer_velocities(series: Series, measure: str = HEADLINE) -> Float64[np.ndarray, "intervals layers"]:
    """Velocity of every layer in every interval: 1 is as predicted, 6 is six times as far.

    Each layer has its own response to the path, fitted on all intervals there are; so velocities of early intervals
    change a little as the run goes on. NaN where the displacement is missing or 0, where the weights hardly moved,
    everywhere in runs whose clock is the number of steps, which predicts nothing, and in layers with fewer than
    `FEWEST_INTERVALS` = 6 intervals. The response bends, so fewer intervals leave nothing of what is looked for: in
    simulated noise of 30 % (1,200 runs each) three intervals are met exactly by the fit, a velocity of 1, in 37 % of
    the cases, and a burst to six times the usual shows as 3.4; with six, 6 % and 5.0.

    Raises:
        KeyError: the run has no such measure.
    """
    moved = series.log_displacement(measure)
    velocities = np.full_like(moved, np.nan)
    enough = comparable(series.path) & (series.clock != "steps")
    for layer, of_layer in enumerate(moved.T):
        kept = np.flatnonzero(enough & np.isfinite(of_layer))
        if len(kept) >= FEWEST_INTERVALS:
            velocities[kept, layer] = np.exp(log_velocity(of_layer[None, kept], np.log(series.path[kept]))[0])
    return velocities


def depth_velocity(velocities: Float64[np.ndarray, "intervals layers"]) -> Float64[np.ndarray, " intervals"]:
    """Median over layers; NaN where no layer has a velocity."""
    present = np.isfinite(velocities).any(axis=1)
    median = np.full(len(velocities), np.nan)
    median[present] = np.nanmedian(velocities[present], axis=1)
    return median
