"""Alignment: the numbers of several runs at the same points of one axis.

The axis is the optimizer step, the progress (step / max_steps) or the clock: the path that the weights have travelled
(fact `path_length` of the samples) or, where that is not recorded, the sum of the learning rates. The points are
the samples that all runs have in the range that they share, if these are at least half of the samples of that run which
has the fewest there. Otherwise they are the samples of that run, and between two samples a run is interpolated
linearly, but never across a gap that is much longer than the other runs' there: numbers between distant samples are
smoother than samples are, so an objective whose runs were thinned would differ from the others by that alone. Runs that
leave too few points are refused. Before its first and after its last sample a run never has a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float64, Int64

from topo_callback.comparison.runs import Run
from topo_callback.errors import ConfigurationError
from topo_callback.groups import is_of_groups
from topo_callback.measuring.directions import is_of_directions

AXES = ("step", "progress", "clock")
CLOCKS = {"path_length": "path length of the weights", "learning_rate_sum": "sum of learning rates"}
# a run is interpolated over a gap of up to so many times the shortest distance between samples of other runs there
LONGEST_GAP = 3.0
# numbers about the measuring, not about the model
BOOKKEEPING = (
    "overhead", "thinned_samples", "previous_sample_seconds", "invalid_layers",
    "survival_h1_gaussian_error.previous", "survival_h1_gaussian_error.first",
)  # fmt: skip

Values = Mapping[str, Mapping[int | None, Float64[np.ndarray, "runs points"]]]


@dataclass(frozen=True)
class Alignment:
    """Numbers of all runs at common points.

    Attributes:
        axis: "step", "progress" or "clock".
        unit: what positions are in, for people.
        positions: float64 [points], ascending.
        values: measure -> layer -> float64 [runs, points], in the order of the runs; layer None is the median over the
            layers that have a number in every run at that point, or the number of the whole depth. A point where some
            run has no number is NaN in all runs.
        interpolated: for every run, how many of the points lie between two of its samples.
        gaps: how many points were left out because some run has too long a gap there.
        left_out: measure -> why it is not compared.
    """

    axis: str
    unit: str
    positions: Float64[np.ndarray, " points"]
    values: Values
    interpolated: tuple[int, ...]
    gaps: int
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Places:
    """Where the points of the axis lie among the samples of one run.

    Attributes:
        before: index of the last sample at or before each point.
        share: how far the point lies towards the sample after it; 0 where it is a sample.
        of_step: position of each sampled step, and of the others that samples compare with where it is known.
    """

    before: Int64[np.ndarray, " points"]
    share: Float64[np.ndarray, " points"]
    of_step: Mapping[int, float]


def align(runs: Sequence[Run], axis: str = "step") -> Alignment:
    """Bring runs onto one axis.

    Args:
        runs: at least two, as `load_runs` gives them.
        axis: one of `AXES`.

    Raises:
        ConfigurationError: an unknown axis, a run without what the axis needs, or runs without a common range.
    """
    if axis not in AXES:
        raise ConfigurationError(f"unknown axis {axis!r}; accepted: {', '.join(AXES)}")
    unit, by_run = _positions(runs, axis)
    sampled = [
        np.array([positions[step] for step in run.trajectory.steps])
        for run, positions in zip(runs, by_run, strict=True)
    ]
    points, gaps = _common_points(runs, sampled)
    places = [_place(points, at, positions) for at, positions in zip(sampled, by_run, strict=True)]
    values, left_out = {}, {}
    for measure in _measures(runs):
        by_layer = _aligned(runs, places, measure)
        if isinstance(by_layer, str):
            left_out[measure] = by_layer
        else:
            values[measure] = by_layer
    interpolated = tuple(int((place.share > 0).sum()) for place in places)
    return Alignment(axis, unit, points, values, interpolated, gaps, left_out)


def _positions(runs: Sequence[Run], axis: str) -> tuple[str, list[dict[int, float]]]:
    """The unit, and for every run the position of each sampled step and of each step that samples compare with."""
    if axis == "step":
        return "optimizer step", [{step: float(step) for step in _named_steps(run)} for run in runs]
    if axis == "progress":
        return "share of the run", [{step: step / _max_steps(run) for step in _named_steps(run)} for run in runs]
    for fact, unit in CLOCKS.items():
        if all(_fact(run, step, fact) is not None for run in runs for step in run.trajectory.steps):
            return unit, [_clock(run, fact) for run in runs]
    lacking = next(run for run in runs if any(_fact(run, s, "path_length") is None for s in run.trajectory.steps))
    raise ConfigurationError(
        f"no clock: not every sample of every run has {' or '.join(CLOCKS)} (the first run without path_length is "
        f"{lacking.given}); align on step or progress"
    )


def _named_steps(run: Run) -> set[int]:
    """The sampled steps, and those that they compare with, whose samples may be damaged."""
    snapshots = [run.trajectory.overview(step) for step in run.trajectory.steps]
    references = {step for snapshot in snapshots for step in (snapshot.previous, snapshot.first) if step is not None}
    return {*run.trajectory.steps, *references}


def _max_steps(run: Run) -> int:
    steps = run.trajectory.run.get("training", {}).get("max_steps")
    if not isinstance(steps, int) or steps < 1:
        raise ConfigurationError(
            f"{run.given}: run.json has max_steps {steps!r}, so there is no progress; align on step"
        )
    return steps


def _fact(run: Run, step: int, fact: str) -> float | None:
    value = run.trajectory.overview(step).provenance.get("facts", {}).get(fact)
    is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)
    return float(value) if is_number and np.isfinite(value) else None


def _clock(run: Run, fact: str) -> dict[int, float]:
    found = {step: _fact(run, step, fact) or 0.0 for step in run.trajectory.steps}
    for (step, earlier), (_, later) in pairwise(found.items()):
        if later < earlier:
            raise ConfigurationError(f"{run.given}: {fact} goes down after step {step}; align on step or progress")
    return found


def _common_points(
    runs: Sequence[Run], sampled: Sequence[Float64[np.ndarray, " _"]]
) -> tuple[Float64[np.ndarray, " points"], int]:
    """The points, and how many more there would be without gaps that are too long."""
    start, end = max(at[0] for at in sampled), min(at[-1] for at in sampled)
    if start > end:
        late = next(run for run, at in zip(runs, sampled, strict=True) if at[0] == start)
        early = next(run for run, at in zip(runs, sampled, strict=True) if at[-1] == end)
        raise ConfigurationError(
            f"no common range: {early.given} ends at {end:g}, {late.given} begins at {start:g}; nothing is extrapolated"
        )
    inside = [np.unique(at[(at >= start) & (at <= end)]) for at in sampled]
    fewest = min((points for points in inside if len(points)), key=len)
    common = fewest[np.all([np.isin(fewest, points) for points in inside], axis=0)]
    if 2 * len(common) >= len(fewest) and (len(common) > 1 or len(fewest) == 1):
        return common, 0
    gaps = np.stack([_gaps(fewest, np.unique(at)) for at in sampled])
    is_sample = np.stack([np.isin(fewest, at) for at in sampled])
    with np.errstate(divide="ignore", invalid="ignore"):
        longer = np.where(is_sample, 0.0, gaps / gaps.min(axis=0))
    usable = (longer <= LONGEST_GAP).all(axis=0)
    if 2 * usable.sum() < len(fewest):
        raise ConfigurationError(_too_long(runs, fewest, gaps, longer))
    return fewest[usable], int((~usable).sum())


def _gaps(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The distance between the two samples around each point; the mean of the two distances where it is a sample."""
    if len(at) < 2:
        return np.full(len(points), np.inf)
    before, after = np.searchsorted(at, points, side="left") - 1, np.searchsorted(at, points, side="right")
    is_sample = after - before > 1
    wide = at[np.minimum(after, len(at) - 1)] - at[np.maximum(before, 0)]
    inside = (before >= 0) & (after < len(at))
    found: np.ndarray = wide / np.where(is_sample & inside, 2.0, 1.0)
    return found


def _too_long(runs: Sequence[Run], points: np.ndarray, gaps: np.ndarray, longer: np.ndarray) -> str:
    worst, point = (int(at) for at in np.unravel_index(np.argmax(longer), longer.shape))
    return (
        f"{runs[worst].given} has samples {gaps[worst, point]:g} apart around {points[point]:g}, where other runs have "
        f"them every {gaps[:, point].min():g}; runs sampled so differently are not compared, since numbers between "
        "distant samples are smoother than samples. Leave that run out, compare it with runs sampled as sparsely, or "
        "train again with samples at the same steps (the same schedule and a higher max_overhead)"
    )


def _place(points: np.ndarray, at: np.ndarray, of_step: Mapping[int, float]) -> _Places:
    # "left": where the clock stands still, the first of the equal samples
    exact = np.searchsorted(at, points, side="left")
    is_sample = at[np.minimum(exact, len(at) - 1)] == points
    before = np.where(is_sample, exact, np.searchsorted(at, points, side="right") - 1)
    after = np.minimum(before + 1, len(at) - 1)
    gap = np.where(is_sample, 1.0, at[after] - at[before])
    return _Places(before, np.where(is_sample, 0.0, (points - at[before]) / gap), of_step)


def _measures(runs: Sequence[Run]) -> list[str]:
    names: set[str] = set()
    for run in runs:
        for step in run.trajectory.steps:
            names.update(run.trajectory.overview(step).numbers)
    if len({run.trajectory.groups for run in runs}) > 1:
        names = {name for name in names if not is_of_groups(name)}
    if len({json.dumps(run.trajectory.run.get("directions"), sort_keys=True) for run in runs}) > 1:
        names = {name for name in names if not is_of_directions(name)}
    return sorted(names - set(BOOKKEEPING))


def _aligned(
    runs: Sequence[Run], places: Sequence[_Places], measure: str
) -> dict[int | None, Float64[np.ndarray, "runs points"]] | str:
    """The aligned numbers of one measure, or why there are none."""
    layers: list[int | None] = [*runs[0].trajectory.layers, None]
    stacked = np.array([_interpolated(run, place, measure, layers) for run, place in zip(runs, places, strict=True)])
    absent = [run for run, table in zip(runs, stacked, strict=True) if np.isnan(table).all()]
    if absent:
        return f"no number in {absent[0].name}" + (f" and {len(absent) - 1} other runs" if len(absent) > 1 else "")
    comparable, reason = _comparable(runs, places, measure)
    stacked[:, :, ~comparable] = np.nan
    stacked[:, np.isnan(stacked).any(axis=0)] = np.nan
    if np.isnan(stacked).all():
        return reason or "no point where every run has a number"
    found = {layer: stacked[:, row] for row, layer in enumerate(layers) if not np.isnan(stacked[:, row]).all()}
    if None not in found:
        found[None] = _median(stacked[:, :-1])
    return found


def _interpolated(
    run: Run, place: _Places, measure: str, layers: Sequence[int | None]
) -> Float64[np.ndarray, "layers points"]:
    table = run.trajectory.array(measure, layers).T
    table[~np.isfinite(table)] = np.nan
    after = np.minimum(place.before + 1, table.shape[1] - 1)
    left, right = table[:, place.before], table[:, after]
    return np.where(place.share == 0.0, left, (1.0 - place.share) * left + place.share * right)


def _comparable(runs: Sequence[Run], places: Sequence[_Places], measure: str) -> tuple[np.ndarray, str]:
    """Where numbers that compare with another sample compare with one at the same position, and a reason if nowhere."""
    points = len(places[0].before)
    if not measure.endswith((".previous", ".first")):
        return np.ones(points, dtype=bool), ""
    which = "previous" if measure.endswith(".previous") else "first"
    references = np.array([_references(run, place, which) for run, place in zip(runs, places, strict=True)])
    same = (references == references[0]).all(axis=0)
    return same, f"compares with the {which} sample, which lies elsewhere in other runs"


def _references(run: Run, place: _Places, which: str) -> Float[np.ndarray, " points"]:
    """The position of the sample that each number compares with.

    NaN, equal to nothing, where it is not known or differs between the two samples around the point: what happened
    since the previous sample has no value between two samples.
    """
    snapshots = [run.trajectory.overview(step) for step in run.trajectory.steps]
    steps = [getattr(snapshot, which) for snapshot in snapshots]
    at = np.array([place.of_step.get(step, np.nan) if step is not None else np.nan for step in steps])
    after = np.minimum(place.before + 1, len(at) - 1)
    return np.where((place.share == 0.0) | (at[place.before] == at[after]), at[place.before], np.nan)


def _median(stacked: Float64[np.ndarray, "runs layers points"]) -> Float64[np.ndarray, "runs points"]:
    """Median over the layers that have a number in every run, point by point."""
    usable = ~np.isnan(stacked).any(axis=0)
    found = np.full((stacked.shape[0], stacked.shape[2]), np.nan)
    for point in np.flatnonzero(usable.any(axis=0)):
        found[:, point] = np.median(stacked[:, usable[:, point], point], axis=1)
    return found
