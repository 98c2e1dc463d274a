"""How far a number would be off with other prompts of the same kind: which parts of the probe tell, and what they say.

A number is measured again on parts of the prompts, and its error follows from how far the parts differ. Which parts do
is a property of the number, found by simulation (benchmarks/RESULTS_errors.md): a number in `RULES` has 95 % intervals
that hold the mean over probes of the same size in 90 to 98 % of them, in 85 % or more where tails are heavy. Any other
number has no error.

- `LEFT_OUT`, the delete-block jackknife (Tukey; Shao and Wu, Annals of Statistics 17, 1989): eight blocks, the number
  without each of them. For averages over pairs of prompts and what is smooth in them. What depends on who is next to
  whom, as barcodes and neighbours do, changes more by a block that is left out than by other prompts in its place:
  there the jackknife is up to twice too wide.
- `HALVES` and `QUARTERS`, random groups (Wolter, Introduction to Variance Estimation, chapter 2): the prompts are split
  into parts without a common prompt, several times. Exact for parts of their size; for the whole, variance goes with
  one over the number of prompts, and numbers that grow with it are taken relative to their size. Quarters cost less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.measures.barcodes import barcode_totals
from topo_callback.measures.displacement import loop_displacement
from topo_callback.measures.intrinsic_dimension import nearest_two
from topo_callback.measures.spectrum import spectrum_of_part

LEAST_PART = 16  # prompts; with fewer in a part nothing is said


@dataclass(frozen=True)
class Method:
    """A way to take parts of the prompts.

    Attributes:
        name: for messages.
        groups: into how many parts the prompts are split.
        splits: how many times.
        left_out: a part is what is left without a group, not the group.
        wide: the 0.975 quantile of Student's distribution with as many degrees of freedom as the variance has.
    """

    name: str
    groups: int
    splits: int
    left_out: bool
    wide: float

    @property
    def count(self) -> int:
        """How many parts there are."""
        return self.groups * self.splits


LEFT_OUT = Method("left out", 8, 1, True, 2.3646)  # 7 degrees of freedom
HALVES = Method("halves", 2, 8, False, 2.3060)  # 8
QUARTERS = Method("quarters", 4, 2, False, 2.4469)  # 6


@dataclass(frozen=True)
class ErrorRule:
    """How a measure's numbers get their errors.

    Attributes:
        method: the parts on which the measure is asked again.
        relative: numbers that grow with the prompts, or are no averages: parts tell the error over the number.
        absolute: numbers that are of one size for any number of prompts.
        function: what gives just these numbers of a part, in less time than the measure; None: the measure.
    """

    method: Method
    relative: tuple[str, ...] = ()
    absolute: tuple[str, ...] = ()
    function: Callable[..., Mapping[str, Any]] | None = None


_TOTALS = tuple(f"h{d}_total_persistence{suffix}" for d in (0, 1) for suffix in ("", "_scaled"))
RULES: Mapping[str, ErrorRule] = MappingProxyType(
    {
        "scale": ErrorRule(LEFT_OUT, absolute=("median_distance", "mean_distance", "total_variance")),
        "centred_cosine": ErrorRule(LEFT_OUT, absolute=("centred_cosine",)),
        "spectrum": ErrorRule(
            LEFT_OUT,
            absolute=("dataset_entropy", "effective_rank", "rankme", "participation_ratio", "anisotropy"),
            function=spectrum_of_part,
        ),
        "cka": ErrorRule(LEFT_OUT, absolute=("cka", "cka_biased")),
        "distance_change": ErrorRule(LEFT_OUT, absolute=("distance_change",)),
        "mutual_knn": ErrorRule(HALVES, absolute=("mutual_knn",)),
        "barcode_features": ErrorRule(HALVES, relative=(*_TOTALS, "h1_bars"), function=barcode_totals),
        "intrinsic_dimension": ErrorRule(HALVES, relative=("two_nn", "two_nn_ml"), function=nearest_two),
        "wasserstein": ErrorRule(HALVES, relative=("wasserstein_h1",), function=loop_displacement),
        "rtd": ErrorRule(QUARTERS, relative=("rtd",)),
        "rtd_lite": ErrorRule(QUARTERS, relative=("rtd_lite", "srtd_lite", "max_rtd_lite")),
    }
)
"""Measure -> how its numbers get their errors; see docs/measures.md for those that have none."""


@lru_cache(maxsize=16)
def parts_of_prompts(points: int, method: Method) -> tuple[Int64[np.ndarray, " part"], ...]:
    """The places of the prompts in each part, ascending; the same for every run and sample.

    Groups have equally many prompts. What does not fit is in every part of `LEFT_OUT`, and in none of a split.

    Returns:
        Empty where a part, or what is left out, would have too few prompts.
    """
    size = points // method.groups
    if (size < LEAST_PART and not method.left_out) or points < 2 * LEAST_PART:
        return ()
    found = []
    for split in range(method.splits):
        # raw bits, whose stream is the same in all versions of numpy
        order = np.argsort(np.random.PCG64(split).random_raw(points), kind="stable")
        groups = order[: size * method.groups].reshape(method.groups, size)
        found += [np.setdiff1d(order, group) if method.left_out else np.sort(group) for group in groups]
    return tuple(found)


def blocks_of_prompts(points: int) -> tuple[Int64[np.ndarray, " block"], ...]:
    """The blocks that the parts of `LEFT_OUT` are without, in their order; empty where there are no parts."""
    return tuple(np.setdiff1d(np.arange(points), part) for part in parts_of_prompts(points, LEFT_OUT))


def standard_error(
    whole: Float64[np.ndarray, " numbers"],
    parts: Float64[np.ndarray, "parts numbers"],
    points: int,
    method: Method,
    *,
    relative: bool = False,
) -> Float64[np.ndarray, " numbers"]:
    """The standard error of numbers of all prompts, from the same numbers of parts; exact in the mean for averages.

    With n prompts and d in a group, the jackknife variance is (n - d)^2 / (n d (B - 1)) sum (x_b - mean)^2 over the B
    parts: Tukey's (B - 1) / B where B d = n. That of random groups is d / n times the variance of the groups of a
    split, averaged over the splits.

    Args:
        whole: of all prompts.
        parts: in the order of `parts_of_prompts`.
        points: number of prompts.
        method: how the parts were taken.
        relative: the error over the number is that of the parts; undefined where their mean is 0.

    Returns:
        NaN where it is not defined: a part without a number, or, relative, numbers that are not positive.
    """
    size = points // method.groups
    if method.left_out:
        spread = np.sum((parts - parts.mean(axis=0)) ** 2, axis=0)
        variance = (points - size) ** 2 / (points * size * (method.groups - 1)) * spread
    else:
        splits = parts.reshape(method.splits, method.groups, -1)
        variance = size / points * splits.var(axis=1, ddof=1).mean(axis=0)
    found: Float64[np.ndarray, " numbers"] = np.sqrt(variance)
    if relative:
        mean = parts.mean(axis=0)
        positive = (whole > 0) & (mean > 0)
        found[positive] *= whole[positive] / mean[positive]
        found[~positive] = np.nan
    return found


def recorded_error(standard: Float64[np.ndarray, " numbers"], wide: float) -> Float64[np.ndarray, " numbers"]:
    """The error as it is recorded: half of what the 95 % interval reaches to each side."""
    found: Float64[np.ndarray, " numbers"] = standard * (wide / 2)
    return found


def mean_error(values: Float64[np.ndarray, " prompts"]) -> float | None:
    """The recorded error of a mean over prompts, from its standard error s / sqrt(n).

    Returns:
        None with fewer than 16 prompts.
    """
    if values.size < LEAST_PART:
        return None
    return error_of(float(values.std(ddof=1)) / math.sqrt(values.size), values.size)


def error_of(standard: float, count: int) -> float | None:
    """The recorded error of a number whose standard error is known from the spread of so many prompts or passages.

    Returns:
        None with fewer than 16 of them.
    """
    if count < LEAST_PART:
        return None
    # Student's quantile by the expansion of Cornish and Fisher, right to 4e-4 of itself from 15 degrees of freedom on
    z, freedom = 1.959964, count - 1
    wide = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return standard * wide / 2
