"""Early concentration: the share of all velocity that falls in the first third (Malhotra et al., arXiv 2606.19542).

A description, not a test: where velocity is proportional to a decaying learning rate, or merely autocorrelated, the
permutation test rejects often although nothing happened. Compared with runs of the same schedule it is a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

PERMUTATIONS = 4000
_SEED = 20260620


@dataclass(frozen=True)
class Concentration:
    """Early concentration of one run, by one notion of time.

    Attributes:
        value: sum of the velocities in the first third over the sum of all of them, 0 to 1.
        expected: mean of the value over orders of the intervals.
        p_value: share of the orders that concentrate at least as much. It describes how far the order departs from a
            random one; it is no evidence of a reorganisation.
        permutations: orders drawn.
    """

    value: float
    expected: float
    p_value: float
    permutations: int


def early_concentration(
    velocity: Float64[np.ndarray, " intervals"],
    durations: Float64[np.ndarray, " durations"] | None = None,
    *,
    permutations: int = PERMUTATIONS,
) -> Concentration | None:
    """Early concentration C with its permutation test.

    Args:
        velocity: displacement of every interval, at least 0; those that are NaN are left out.
        durations: of the intervals, by step or by clock; an interval on the border counts by the share of it that lies
            in the first third. None: by index, every interval counts the same, as in the paper.
        permutations: orders of the velocities over the intervals, drawn with a fixed seed; at least 2000.

    Returns:
        None where fewer than three intervals are left, all velocities are 0, or no time passes.

    Raises:
        ValueError: fewer than 2000 permutations, or arrays of different lengths.
    """
    if permutations < 2000:
        raise ValueError(f"permutations={permutations}; accepted: at least 2000")
    if durations is None:
        durations = np.ones_like(velocity)
    if durations.shape != velocity.shape:
        raise ValueError(f"{len(velocity)} velocities need as many durations; got {len(durations)}")
    kept = np.isfinite(velocity)
    velocity, durations = velocity[kept], durations[kept]
    if len(velocity) < 3 or velocity.sum() == 0 or durations.sum() == 0:
        return None
    share = _early_share(durations)
    value = float(velocity @ share / velocity.sum())
    generator = np.random.default_rng(_SEED)
    orders = generator.permuted(np.tile(velocity, (permutations, 1)), axis=1)
    drawn = orders @ share / velocity.sum()
    exceeding = int((drawn >= value - 1e-12).sum())
    return Concentration(value, float(drawn.mean()), (1 + exceeding) / (1 + permutations), permutations)


def concentrations(
    velocity: Float64[np.ndarray, " intervals"], steps: Sequence[int], path: Float64[np.ndarray, " intervals"]
) -> dict[str, Concentration]:
    """Early concentration by `index`, by `step` and by `clock`; undefined ones are left out."""
    times: Mapping[str, np.ndarray | None] = {
        "index": None,
        "step": np.diff(np.array(steps, dtype=np.float64)),
        "clock": path,
    }
    found = {name: early_concentration(velocity, durations) for name, durations in times.items()}
    return {name: concentration for name, concentration in found.items() if concentration is not None}


def compare_concentration(run: float, references: Sequence[float]) -> float:
    """p-value of a run's concentration against those of reference runs of the same schedule, both sides.

    (1 + references at least as far from the references' median) / (references + 1): a test, where the references are
    runs of the same schedule and probe in which nothing is known to have happened.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("no reference runs; give the concentrations of runs of the same schedule")
    middle = float(np.median([run, *references]))
    exceeding = sum(abs(reference - middle) >= abs(run - middle) for reference in references)
    return (1 + exceeding) / (1 + len(references))


def _early_share(durations: np.ndarray) -> np.ndarray:
    """Share of every interval that lies in the first third of the whole time."""
    end = np.cumsum(durations)
    begin = end - durations
    inside = np.clip(np.minimum(end, end[-1] / 3) - begin, 0.0, None)
    share: np.ndarray = np.divide(inside, durations, out=(begin < end[-1] / 3).astype(np.float64), where=durations > 0)
    return share
