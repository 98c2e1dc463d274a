"""Series: the dynamics of one run as arrays, taken from its trajectory, and its clock: how far the weights moved.

Displacement is compared with the weights' path, never with the number of steps: a sample taken later, or at a higher
learning rate, has moved further without anything having happened.

A sample that went away and came back shows only in the displacement across it, between the samples on both sides:
both intervals beside it are large, the one across is not.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from topo_callback.dynamics.group_series import GroupSeries
from topo_callback.dynamics.identity import identity_of, part_of
from topo_callback.errors import RecordError, described
from topo_callback.measures.neighbours import mutual_knn
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot, number_array
from topo_callback.records.training_steps import COLUMNS, TrainingSteps, read_training_steps
from topo_callback.records.trajectory import Trajectory

CLOCKS = ("path_length", "learning_rate_sum", "steps")  # in order of preference
_NEGLIGIBLE = 0.02
HEADLINE = "wasserstein_h1"
AGREEMENTS = ("mutual_knn", "cka", "survival", "nts")  # 1 where nothing moved: the displacement is one minus them
COVARIATES = ("loss", "grad_norm", "learning_rate")
FACTS = (*CLOCKS[:-1], *COVARIATES)  # of a sample, that a series takes
SIZES = ("effective_rank", "h1_total_persistence_scaled")  # what collapses
_PREVIOUS = ".previous"
ANSWERS = "next_token_js.previous"
logger = logging.getLogger("topo_callback")


def choose_clock(steps: Sequence[int], readings: Mapping[str, Sequence[float | None]]) -> tuple[str, np.ndarray]:
    """The best clock that every sample has, and its reading at every sample.

    Args:
        steps: of the samples.
        readings: cumulative path length of the weights and cumulative learning rate, None where a sample lacks it.

    Returns:
        The name (`path_length`, else `learning_rate_sum`, else `steps`) and float64 [samples], never falling.
    """
    for name in CLOCKS[:-1]:
        values = readings.get(name, ())
        if len(values) == len(steps) and all(value is not None and np.isfinite(value) for value in values):
            reading = np.array(values, dtype=np.float64)
            if (np.diff(reading) >= 0).all():
                return name, reading
    return "steps", np.array(steps, dtype=np.float64)


def comparable(path: Float64[np.ndarray, " intervals"]) -> Bool[np.ndarray, " intervals"]:
    """Intervals long enough to be compared with others: at least 2 % of the median path, and not 0.

    The quotient of two tiny numbers says nothing: a fixed probe in a model that did not move is displaced by exactly 0.
    """
    moved = path[path > 0]
    enough: np.ndarray = path >= (_NEGLIGIBLE * np.median(moved) if moved.size else np.inf)
    return enough


@dataclass(frozen=True)
class Series:
    """One run. Intervals lie between consecutive samples: interval i from sample i to sample i + 1.

    Attributes:
        steps: optimizer steps of the samples in which some layer is ok, ascending.
        layers: the layers, ascending.
        displacement: measure -> float64 [intervals, layers], how far each layer moved; NaN where missing.
        path: float64 [intervals], how far the weights moved, in the unit of the clock.
        clock: `path_length` (of the weights), `learning_rate_sum`, or `steps`.
        max_steps: steps that the run is planned to have; None where that is not known.
        covariates: loss, gradient norm, learning rate -> float64 [samples]; NaN where missing.
        sizes: effective rank, scaled total persistence -> float64 [samples, layers]; NaN where missing.
        status: of every layer, for every sample: "ok", "degenerate: ..." or "invalid: ...".
        without: step -> status of every layer, of the samples in which none is ok. No interval begins or ends there:
            the next sample was compared with the one before them.
        identity: what runs must share to be compared, from `identity_of`.
        training: what training itself said at every optimizer step; None where there is no readable table of it.
        logged: what the trainer logged, of `records.logged_numbers`; None where there is no readable table of it.
        answers: float64 [intervals], Jensen-Shannon divergence of the next-token distributions since the previous
            sample; NaN where missing, None where the run has none.
        rates: float64 [intervals], sum of the optimizer's learning rates; None where some sample does not say it.
        across: float64 [samples, layers], one minus mutual kNN between the sample before and the sample after each;
            NaN where it is not known, None where it is known of no sample.
        groups: what all samples say of the probe's groups; None without groups.
    """

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    displacement: Mapping[str, Float64[np.ndarray, "intervals layers"]]
    path: Float64[np.ndarray, " intervals"]
    clock: str
    max_steps: int | None = None
    covariates: Mapping[str, Float64[np.ndarray, " samples"]] = field(default_factory=dict)
    sizes: Mapping[str, Float64[np.ndarray, "samples layers"]] = field(default_factory=dict)
    status: tuple[Mapping[int, str], ...] = ()
    without: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSteps | None = None
    logged: TrainingSteps | None = None
    answers: Float64[np.ndarray, " intervals"] | None = None
    rates: Float64[np.ndarray, " intervals"] | None = None
    across: Float64[np.ndarray, "samples layers"] | None = None
    groups: GroupSeries | None = None

    def __post_init__(self) -> None:
        intervals = max(0, len(self.steps) - 1)
        if any(later <= earlier for earlier, later in itertools.pairwise(self.steps)):
            raise ValueError(f"steps must ascend; got {list(self.steps)}")
        if self.clock not in CLOCKS:
            raise ValueError(f"unknown clock {self.clock!r}; accepted: {', '.join(CLOCKS)}")
        shapes: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {"path": (self.path, (intervals,))}
        for name, values in self.displacement.items():
            shapes[name] = (values, (intervals, len(self.layers)))
        for name, (values, expected) in shapes.items():
            if values.shape != expected:
                raise ValueError(f"{name} has shape {values.shape}; {len(self.steps)} samples need {expected}")

    @classmethod
    def of(cls, trajectory: Trajectory) -> Series:
        """The series of a run so far, finished or not; see `of_snapshots`."""
        snapshots = [trajectory.overview(step) for step in trajectory.steps]
        folder = TrajectoryFolder(trajectory.folder)
        series = cls.of_snapshots(snapshots, trajectory.run, trajectory.layers)
        return series.beside(folder)

    @classmethod
    def of_snapshots(cls, snapshots: Sequence[Snapshot], run: Mapping[str, Any], layers: tuple[int, ...]) -> Series:
        """The series of the samples of one run.

        Displacements are all numbers `<measure>.previous` of the snapshots, those of agreements as one minus their
        value. A layer that was compared with another sample than the one before it (in which that layer was not ok, or
        which was damaged since) has none. The clock is the best of the facts `path_length`, `learning_rate_sum` (both
        cumulative from the start of the run) that every sample has, else the step; `loss`, `grad_norm` and
        `learning_rate` are facts as well.

        Args:
            snapshots: ascending; only numbers, status, facts and what they are compared with are read.
            run: content of run.json.
            layers: the layers that were read.
        """
        groups = GroupSeries.of(snapshots, run, layers)
        without = {each.step: dict(each.status) for each in snapshots if not _some_ok(each)}
        snapshots = [each for each in snapshots if each.step not in without]
        steps = tuple(snapshot.step for snapshot in snapshots)
        facts = [snapshot.provenance.get("facts", {}) for snapshot in snapshots]
        clock, reading = choose_clock(
            steps, {name: [_number(fact.get(name)) for fact in facts] for name in CLOCKS[:-1]}
        )
        names = sorted(
            {name for snapshot in snapshots for name in snapshot.numbers if name.endswith(_PREVIOUS)}
            - {name for snapshot in snapshots for name in snapshot.numbers if None in snapshot.numbers[name]}
        )
        max_steps = part_of(run, "training").get("max_steps")
        rates = choose_clock(steps, {"learning_rate_sum": [_number(fact.get("learning_rate_sum")) for fact in facts]})
        return cls(
            steps=steps,
            layers=layers,
            displacement={name.removesuffix(_PREVIOUS): _displacement(snapshots, layers, name) for name in names},
            path=np.diff(reading),
            clock=clock,
            max_steps=max_steps if isinstance(max_steps, int) and max_steps > 0 else None,
            covariates={name: np.array([_number(fact.get(name)) for fact in facts]) for name in COVARIATES},
            sizes={
                name: number_array(snapshots, name, layers)
                for name in SIZES
                if any(name in snapshot.numbers for snapshot in snapshots)
            },
            status=tuple(dict(snapshot.status) for snapshot in snapshots),
            without=without,
            identity=identity_of(run),
            answers=_answers(snapshots),
            rates=np.diff(rates[1]) if rates[0] == "learning_rate_sum" else None,
            groups=groups,
        )

    def beside(self, folder: TrajectoryFolder) -> Series:
        """The series with what else the folder of the run has: training steps, logged numbers, distances across."""
        across = across_samples(folder, self.steps, self.layers)
        return replace(self, training=training_of(folder), logged=logged_of(folder), across=across)

    def log_displacement(self, measure: str = HEADLINE) -> Float64[np.ndarray, "intervals layers"]:
        """Natural logarithm of the displacement; NaN where it is missing or 0.

        Raises:
            KeyError: the run has no such measure.
        """
        if measure not in self.displacement:
            known = ", ".join(sorted(self.displacement)) or "none"
            raise KeyError(f"no displacement {measure!r} in this run; it has: {known}")
        values = self.displacement[measure]
        return np.log(np.where(values > 0, values, np.nan))

    def every_status(self) -> list[tuple[int, Mapping[int, str]]]:
        """The steps of all samples, ascending, those without an ok layer included, and the status of every layer."""
        return sorted({**dict(zip(self.steps, self.status, strict=False)), **self.without}.items())

    def progress(self) -> Float64[np.ndarray, " samples"] | None:
        """Share of the training steps done at every sample; None where the planned number is not known."""
        return None if self.max_steps is None else np.array(self.steps, dtype=np.float64) / self.max_steps


def training_of(folder: TrajectoryFolder) -> TrainingSteps | None:
    """The table of training steps of a run; None where there is none, or it cannot be read, which is logged."""
    return _read(folder.training_steps, COLUMNS)


def logged_of(folder: TrajectoryFolder) -> TrainingSteps | None:
    """The table of logged numbers of a run; None where there is none, or it cannot be read, which is logged."""
    return _read(folder.logged, LOGGED_COLUMNS)


def _read(path: Path, columns: tuple[str, ...]) -> TrainingSteps | None:
    try:
        steps = read_training_steps(path, columns)
    except (RecordError, OSError) as error:
        logger.warning("what training said is left out: %s", described(error))
        return None
    return steps if len(steps.step) else None


def _displacement(snapshots: Sequence[Snapshot], layers: tuple[int, ...], name: str) -> np.ndarray:
    rows = number_array(snapshots, name, layers)[1:]
    for row, (before, snapshot) in zip(rows, itertools.pairwise(snapshots), strict=True):
        row[[snapshot.compared_with("previous", layer) != before.step for layer in layers]] = np.nan
    return 1.0 - rows if name.removeprefix("tokens.").startswith(AGREEMENTS) else rows


def _answers(snapshots: Sequence[Snapshot]) -> Float64[np.ndarray, " intervals"] | None:
    values = number_array(snapshots, ANSWERS, (None,))[1:, 0]
    for place, (before, snapshot) in enumerate(itertools.pairwise(snapshots)):
        if snapshot.compared_with("previous", None) != before.step:
            values[place] = np.nan
    return values if np.isfinite(values).any() else None


def _some_ok(snapshot: Snapshot) -> bool:
    return not snapshot.status or any(text == "ok" for text in snapshot.status.values())


def _number(value: Any) -> float:
    """A fact as a number; NaN where it is none, or a whole number beyond any."""
    is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)
    return float(value) if is_number else float("nan")


def across_samples(
    folder: TrajectoryFolder, steps: Sequence[int], layers: Sequence[int]
) -> Float64[np.ndarray, "samples layers"] | None:
    """One minus mutual kNN between the sample before and the sample after each; None where none has both.

    NaN for the first and the last sample, for layers that are not ok on both sides, and where a record cannot be read.
    What was compared once is remembered, so that one more sample costs one comparison.
    """
    found = np.full((len(steps), len(layers)), np.nan)
    paths = [folder.step_file(folder.samples, step) for step in steps]
    for place, (before, after) in enumerate(zip(paths, paths[2:], strict=False), start=1):
        try:
            moved = _between(str(before), before.stat().st_mtime_ns, str(after), after.stat().st_mtime_ns)
        except (RecordError, OSError):
            continue
        found[place] = [dict(moved).get(layer, math.nan) for layer in layers]
    return found if np.isfinite(found).any() else None


@lru_cache(maxsize=1 << 16)
def _between(before: str, before_written: int, after: str, after_written: int) -> tuple[tuple[int, float], ...]:
    """Of the layers that are ok in both records, with neighbours of as many points."""
    first, second = _neighbours(before, before_written), _neighbours(after, after_written)
    both = [layer for layer in first if layer in second and first[layer].shape == second[layer].shape]
    return tuple((layer, 1.0 - mutual_knn(first[layer], second[layer])) for layer in both)


@lru_cache(maxsize=4)
def _neighbours(path: str, written: int) -> dict[int, np.ndarray]:
    snapshot = Snapshot.from_record(*read_record(Path(path)))
    rows = itertools.compress(range(len(snapshot.layers)), (snapshot.status.get(n) == "ok" for n in snapshot.layers))
    return {snapshot.layers[row]: snapshot.neighbours[row] for row in rows if snapshot.neighbours[row].size}
