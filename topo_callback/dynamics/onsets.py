"""Onsets: where the layers of one run move further than before, decided at every sample on the run alone.

Several displacements are one number for an interval: the mean of their logarithms over measures and layers, each
relative to its own first values; and once more with the upper quantile over layers in place of their mean. An onset is
a departure (`dynamics.departures`) of either. An interval is judged when the sample after it is there: a sample that
went away and came back is no change of the model and is left out. After an onset the detector is armed again as soon as
an interval can be compared with four that lie behind it. What was too early to be judged is judged once, later on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from topo_callback.dynamics.departures import BASE, EARLY_LOOK, FEWEST, departures, early_departure, least_above
from topo_callback.dynamics.series import HEADLINE, Series
from topo_callback.dynamics.summaries import UPPER, row_quantiles

SIGNALS = ("rtd", "cka", "mutual_knn")
FEWEST_SAMPLES = BASE + FEWEST + 4  # before which nothing can be said
SQUARES = ("cka", "next_token_js")  # one minus it, or it, is a squared distance
AGREEMENT = "mutual_knn"  # tells whether a sample came back
CAME_BACK = 0.7
_FIRST = 6  # intervals that every layer's displacement is relative to


@dataclass(frozen=True)
class Onset:
    """One alarm.

    Attributes:
        first: first interval of the window.
        last: last interval of it.
        samples: samples of the run when it was known.
        above: log displacement of every interval above that of the four before the window, under the least favourable
            response to the plan; NaN where it is missing or not judged yet.
        layers_above: the same of every layer.
    """

    first: int
    last: int
    samples: int
    above: Float64[np.ndarray, " intervals"]
    layers_above: Float64[np.ndarray, "intervals layers"]


def signals_of(series: Series) -> tuple[str, ...]:
    """The displacements that are judged; runs of older versions have the headline alone."""
    return tuple(name for name in SIGNALS if name in series.displacement) or tuple(
        name for name in (HEADLINE,) if name in series.displacement
    )


def find_onsets(series: Series, signals: Sequence[str]) -> list[Onset]:
    """The onsets of a run so far. Samples that are added never take one back.

    Args:
        signals: names of displacements that the run has. The next-token distributions are judged beside them where the
            run has them.
    """
    logs = [_log(name, series.displacement[name]) for name in signals]
    answers = [] if series.answers is None else [_log("next_token_js", series.answers[:, None])]
    with np.errstate(divide="ignore", invalid="ignore"):
        plan = np.log(plan_of(series)[1])
    judged = np.isfinite(plan) & ~_beside(samples_that_came_back(series))
    judged[-1:] = False  # its last sample may come back
    both = joint_displacement(logs, answers)
    kept = np.flatnonzero(judged & np.isfinite(both).all(axis=0))
    if not kept.size:
        return []
    by_layer = _over_measures(relative(logs))
    onsets: list[Onset] = []
    broken = np.zeros(len(kept), dtype=bool)

    def alarm(summary: int, first: int, last: int, known: int) -> None:
        before = slice(first - BASE, first)
        above, layers_above = np.full(len(plan), np.nan), np.full((len(plan), len(series.layers)), np.nan)
        above[kept] = least_above(both[summary, kept, None], plan[kept], before)[:, 0]
        layers_above[kept] = least_above(by_layer[kept], plan[kept], before)
        window = above[kept[first : last + 1]]
        inside = int(np.argmax(window >= np.median(window) / 2))  # a window may begin with one that is not above
        onsets.append(Onset(int(kept[first + inside]), int(kept[last]), int(kept[known]) + 3, above, layers_above))
        broken[first : last + 1] = True

    start = 0
    for end in (EARLY_LOOK, len(kept)):
        while start < min(end, len(kept)):
            found = departures(both[:, kept], plan[kept], broken=broken)
            alarms = np.flatnonzero((found.share[:, start:end] >= 1).any(axis=0))
            if not alarms.size:
                break
            last = start + int(alarms[0])
            summary = int(found.share[:, last].argmax())
            alarm(summary, last - int(found.length[summary, last]) + 1, last, known=last)
            start = last + 1
        if end == EARLY_LOOK:
            early = early_departure(both[:, kept], plan[kept])
            if early is not None and not broken[early[1] - 1 : early[2] + 2].any():  # else it is a part of another
                alarm(*early, known=EARLY_LOOK - 1)
            start = max(start, end)
    return onsets


def joint_displacement(
    logs: Sequence[Float64[np.ndarray, "intervals layers"]],
    answers: Sequence[Float64[np.ndarray, "intervals 1"]] = (),
) -> Float64[np.ndarray, "2 intervals"]:
    """The means over measures of the mean over layers, and of their upper quantile; NaN where there is no value.

    Args:
        logs: of each measure, NaN where missing.
        answers: what has no layers, and is part of the mean alone.
    """
    centred = relative(logs)
    upper = [row_quantiles(values, UPPER) for values in centred]
    mean = [_row_means(values) for values in [*centred, *relative(answers)]]
    return np.stack([_row_means(np.stack(each, axis=1)) for each in (mean, upper)])


def relative(logs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every layer relative to the median of the run's first intervals; NaN for layers that have nothing there."""
    return [values - row_quantiles(values[:_FIRST].T, 0.5) for values in logs]


def _over_measures(centred: Sequence[np.ndarray]) -> Float64[np.ndarray, "intervals layers"]:
    stacked = np.stack(centred, axis=2)
    mean: np.ndarray = _row_means(stacked.reshape(-1, len(centred))).reshape(stacked.shape[:2])
    return mean


def _row_means(rows: np.ndarray) -> np.ndarray:
    """Without missing values; NaN where there is none."""
    count = np.isfinite(rows).sum(axis=1)
    means: np.ndarray = np.where(count > 0, np.nansum(rows, axis=1) / np.maximum(count, 1), np.nan)
    return means


def _log(name: str, values: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.log(np.where(values > 0, values, np.nan)) * (0.5 if name in SQUARES else 1.0)
    return found


def plan_of(series: Series) -> tuple[str, Float64[np.ndarray, " intervals"]]:
    """What displacement is compared with: its name, and its value for every interval.

    `planned`, the sum of learning rates that the schedule planned; else `learning_rate_sum`, that of the optimizer's;
    else `steps`.
    """
    if series.training is not None:
        planned = series.training.column("planned")
        kept = np.isfinite(planned)
        running = np.concatenate([[0.0], np.cumsum(planned[kept])])
        edges = np.searchsorted(series.training.step[kept], series.steps, side="right")
        count, steps = np.diff(edges), np.diff(series.steps)
        if (count > 0).all() and running[-1] > 0:
            return "planned", np.diff(running[edges]) * steps / count
    if series.rates is not None:
        return "learning_rate_sum", series.rates
    return "steps", np.diff(np.array(series.steps, dtype=np.float64))


def samples_that_came_back(series: Series) -> Bool[np.ndarray, " samples"]:
    """Samples between two that are nearer to each other than either is to them: below .7 of that, in mutual kNN.

    A model that moves on is further from the sample before the last than from the last, by 1.6 in quiet real runs.
    """
    found = np.zeros(len(series.steps), dtype=bool)
    moved = series.displacement.get(AGREEMENT)
    if moved is None or series.across is None or len(found) < 3:
        return found
    three = np.stack([moved[:-1], moved[1:], series.across[1:-1]])
    complete = np.isfinite(three).all(axis=0)
    there, back, across = np.where(complete, three, 0.0).sum(axis=2)
    found[1:-1] = across < CAME_BACK * np.minimum(there, back)
    return found


def _beside(samples: np.ndarray) -> Bool[np.ndarray, " intervals"]:
    """Intervals that begin or end at one of the samples."""
    beside: np.ndarray = samples[:-1] | samples[1:]
    return beside
