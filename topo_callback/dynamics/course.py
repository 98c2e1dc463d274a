"""Course: how far one number of a run had come since the start at every sample, when it was half-way, and since when
it is as at the end. All of it with the errors over prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from topo_callback.measures.behaviour import mean_and_error
from topo_callback.measures.missing import Missing
from topo_callback.measures.uncertainty import LEAST_PART, error_of
from topo_callback.records.trajectory import Trajectory

ANSWERS, LOSS = "next_token_tv.first", "general_text_loss_change.first"
STRUCTURE = "mutual_knn.first"
MOVES = {ANSWERS: "next_token_tv.previous"}  # a distance: so much can change though the number stays the same
TOLERANCE = 0.1  # of the last value, within which a number is as at the end
REST = 0.25  # share of the steps for which it has to be so; one that grows evenly is so for a tenth of them
FEWEST = 6  # samples
MOST_READ = 200  # samples whose values of all prompts are read; of more, evenly spaced ones
ROUNDING = 2e-4
"""What rounding to the recorded codes can make of a share of probability."""


@dataclass(frozen=True)
class Settled:
    """Since when a number is as at the end.

    Attributes:
        step: of the first sample from which on it stays within a tenth of its last value.
        earliest: the same where every difference is smaller by its error; `step` may be this early.
        latest: where every difference is larger by it.
    """

    step: int
    earliest: int
    latest: int


@dataclass(frozen=True)
class HalfWay:
    """When half of the way to the last value was there.

    Attributes:
        step: of the first sample with at least half of it.
        after: of a sample that, whatever the errors, had less.
        by: of the first sample that, whatever the errors, had at least half.
    """

    step: int
    after: int
    by: int


@dataclass(frozen=True)
class Course:
    """A number since the start, 0 there, at the samples that have it.

    Attributes:
        start: step of the sample that they are compared with.
        newest: step of the run's newest sample. Where that has no such number, nothing is said of how it ends.
        steps: of the samples, ascending.
        values: the number.
        errors: half of what the 95 % intervals of the values reach to each side, over prompts; NaN where unknown.
        by_prompt: what each value is the mean of, so that differences are those of the same prompts; None: not known,
            and errors are taken as independent, which makes those of differences too large.
        jumps: of samples, their step, how far the model was from where the sample before had it, in the same unit, and
            half of what the 95 % interval of that reaches to each side. A number can be as large as at the end where
            the model is not as at the end; of two samples that are further apart than twice a tenth of the last value,
            one is further than a tenth from the end. Empty where no such distances are recorded.
    """

    start: int
    newest: int
    steps: tuple[int, ...]
    values: Float64[np.ndarray, " samples"]
    errors: Float64[np.ndarray, " samples"]
    by_prompt: Float64[np.ndarray, "samples prompts"] | None = None
    jumps: tuple[tuple[int, float, float], ...] = ()

    @classmethod
    def of_prompts(cls, trajectory: Trajectory, measure: str) -> Course | None:
        """Of a mean over prompts or passages; None where it is not recorded, or of too few of them."""
        steps = [step for step in trajectory.steps if trajectory.overview(step).number(measure) is not None]
        if len(steps) > MOST_READ:
            steps = [steps[place] for place in np.linspace(0, len(steps) - 1, MOST_READ).round().astype(int)]
        read = [(step, trajectory.snapshot(step).by_prompt.get(measure)) for step in steps]
        known = [(step, values) for step, values in read if values is not None]
        if (
            not known
            or np.isfinite(known[-1][1]).sum() < LEAST_PART
            or any(len(values) != len(known[-1][1]) for _, values in known)
        ):
            return None
        rows = np.stack([values for _, values in known])
        means = np.array([_mean(row) for row in rows])
        ends = trajectory.steps[0], trajectory.steps[-1]
        jumps = _jumps(trajectory, MOVES[measure]) if measure in MOVES else ()
        return cls(*ends, tuple(step for step, _ in known), means[:, 0], means[:, 1], rows, jumps)

    @classmethod
    def of_structure(cls, trajectory: Trajectory) -> Course | None:
        """Of the share of nearest neighbours that are others than at the start, median over layers; None where it is
        not recorded, or without its error at the last sample that has it."""
        kept = {step: trajectory.overview(step).median(STRUCTURE) for step in trajectory.steps}
        has = np.array([value is not None for value in kept.values()])
        errors = trajectory.errors(STRUCTURE, [None])[has, 0]
        if not errors.size or not np.isfinite(errors[-1]):
            return None
        known = {step: 1 - value for step, value in kept.items() if value is not None}
        ends = trajectory.steps[0], trajectory.steps[-1]
        return cls(*ends, tuple(known), np.array(list(known.values())), errors)

    @property
    def last(self) -> tuple[float, float]:
        """The last value and its error."""
        return float(self.values[-1]), float(self.errors[-1])

    @property
    def is_current(self) -> bool:
        """Whether the newest sample of the run has the number."""
        return self.steps[-1] == self.newest

    @property
    def clear(self) -> bool:
        """Whether the last value is larger than its 95 % interval and than rounding."""
        value, error = self.last
        return bool(abs(value) > max(2 * error, ROUNDING))

    def difference(self, one: int, other: int, *, share: float = 1.0) -> tuple[float, float]:
        """That share of the value at the second place less the value at the first, and its error."""
        if self.by_prompt is not None:
            return _mean(share * self.by_prompt[other] - self.by_prompt[one])
        value = share * self.values[other] - self.values[one]
        if one == other:
            return float(value), float(abs(share - 1) * self.errors[one])
        return float(value), float(np.hypot(share * self.errors[other], self.errors[one]))

    def between(self, one: int, other: int) -> tuple[float, float]:
        """The value at the second step less the value at the first, and its error; on straight lines between samples,
        from 0 at the start. Both steps lie among the samples.

        Raises:
            ValueError: what the values are means of is not known.
        """
        if self.by_prompt is None:
            raise ValueError("a course without its prompts has no errors between samples")
        steps, rows = np.array(self.steps), self.by_prompt
        if self.steps[0] > self.start:
            steps, rows = np.append(self.start, steps), np.vstack([np.zeros(rows.shape[1]), rows])
        return _mean(self._on_lines(steps, rows, other) - self._on_lines(steps, rows, one))

    @staticmethod
    def _on_lines(steps: np.ndarray, rows: np.ndarray, step: int) -> np.ndarray:
        after = int(np.clip(np.searchsorted(steps, step), 1, len(steps) - 1))
        share = (step - steps[after - 1]) / (steps[after] - steps[after - 1])
        found: np.ndarray = rows[after] if share == 1 else (1 - share) * rows[after - 1] + share * rows[after]
        return found

    def settled(self) -> Settled | None:
        """Since when the number is as at the end; None where it did not clearly move, the newest samples lack it, or
        samples are few."""
        if len(self.steps) < FEWEST or not self.is_current or not self.clear:
            return None
        away, errors = self._differences(1.0)
        found = []
        within = TOLERANCE * abs(self.values[-1])
        for sign in (0, 1, -1):
            outside = np.flatnonzero(~(np.abs(away) <= within + sign * errors))
            place = int(outside[-1]) + 1 if outside.size else 0
            jumped = [step for step, moved, error in self.jumps if moved > 2 * within + sign * 2 * error]
            if jumped:
                place = max(place, int(np.searchsorted(self.steps, jumped[-1])))
            found.append(self.steps[min(place, len(self.steps) - 1)])
        return Settled(*found)

    def at_rest(self) -> bool | None:
        """Whether the number is as at the end for a quarter of the steps, or more; None where the errors, too few
        samples, or newest ones that lack it, leave that open."""
        settled = self.settled()
        if settled is None:
            return None
        needed = self.steps[-1] - REST * (self.steps[-1] - self.start)
        if settled.latest <= needed:
            return True
        return False if settled.earliest > needed else None

    def half_way(self) -> HalfWay | None:
        """When half of the last value was there; None where it did not clearly move, the newest samples lack it, or
        samples are few."""
        if len(self.steps) < FEWEST or not self.is_current or not self.clear:
            return None
        left, errors = self._differences(0.5)
        sign = 1.0 if self.values[-1] > 0 else -1.0
        last = len(self.steps) - 1
        found = []
        for slack in (np.zeros(len(left)), errors, -errors):
            there = np.flatnonzero(sign * left <= slack)  # missing errors are no evidence that it was
            found.append(int(there[0]) if there.size else last)
        reached, earliest, latest = found
        return HalfWay(self.steps[reached], (self.start, *self.steps)[earliest], self.steps[latest])

    def _differences(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """What every sample is short of that share of the last value, and half of the width of its 95 % interval."""
        last = len(self.steps) - 1
        found = np.array([self.difference(place, last, share=share) for place in range(last + 1)])
        return found[:, 0], 2 * found[:, 1]


def _jumps(trajectory: Trajectory, measure: str) -> tuple[tuple[int, float, float], ...]:
    """The step, value and error of a number of the whole model, at the samples that have both."""
    columns = (read(measure, [None])[:, 0].tolist() for read in (trajectory.array, trajectory.errors))
    found = zip(trajectory.steps, *columns, strict=True)
    return tuple((step, value, error) for step, value, error in found if value == value and error == error)


def no_longer(what: str, last: int) -> str:
    """That the newest samples lack a number.

    Args:
        what: it is of.
        last: step of the last sample that has it.
    """
    return f"the newest samples have no number of {what}, the last is of step {last}"


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and half of what its 95 % interval reaches to each side; NaN where there is none."""
    mean, standard = mean_and_error(values)
    if isinstance(mean, Missing):
        return float("nan"), float("nan")
    error = None if isinstance(standard, Missing) else error_of(standard, int(np.isfinite(values).sum()))
    return mean, float("nan") if error is None else error
