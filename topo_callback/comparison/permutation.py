"""The permutation tests of objective against seed: all measures together, each measure, layer and step.

The statistic is the share of the variance between runs, after the blocks' own means are taken away, that the
objectives explain (`explained`). Over a whole curve the sums of squares of its points are added, which makes the test a
PERMANOVA (Anderson, 2001) of the distance matrix between runs. All measures together is the mean of -ln(1 - R2) over
measures, the log likelihood ratio of independent Gaussian measures: it sees a difference in all of them as well as the
mean R2 does, and one in a single measure far better (benchmarks/RESULTS_comparison.md).

Searches are corrected inside the same labelings. Measures, and (measure, layer): step-down max-T of Westfall and
Young (1993), algorithm 4.1. Steps: the maximum over all steps, of one measure or of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.comparison.explained import joined, share_of_curves, share_of_points
from topo_callback.comparison.labelings import Labelings

# R2 of two labelings that are equal by symmetry differ by rounding
ROUNDING = 1e-8
# variance between runs that is rounding of the numbers themselves
_CONSTANT = 1e-10
_CHUNK_BYTES = 1 << 27

Curves = Mapping[str, Mapping[int | None, Float64[np.ndarray, "runs points"]]]


@dataclass(frozen=True)
class StepTest:
    """A statistic at every point; NaN where the runs do not differ or have no number.

    Attributes:
        r_squared: share of the variance between runs that the objectives explain; for all measures together its mean.
        p: corrected for the search over points.
        p_all: corrected for the search over points and measures; equal to `p` for all measures together.
    """

    r_squared: Float64[np.ndarray, " points"]
    p: Float64[np.ndarray, " points"]
    p_all: Float64[np.ndarray, " points"]


@dataclass(frozen=True)
class CurveTest:
    """One test of whole curves.

    Attributes:
        r_squared: share of the variance between runs that the objectives explain; for all measures together its mean.
        p: of this test alone.
        p_all: corrected for the search over measures, or over measures and layers.
    """

    r_squared: float
    p: float
    p_all: float


@dataclass(frozen=True)
class ObjectiveTest:
    """All tests over one set of labelings.

    Attributes:
        together: all measures together, the one test that needs no correction.
        together_steps: the same at every point.
        measures: measure -> test of the medians over layers; measures in which no two runs differ are left out.
        steps: measure -> the same at every point.
        layers: (measure, layer) -> test; a family of its own.
    """

    together: CurveTest
    together_steps: StepTest
    measures: Mapping[str, CurveTest]
    steps: Mapping[str, StepTest]
    layers: Mapping[tuple[str, int], CurveTest]


def permutation_test(curves: Curves, labelings: Labelings) -> ObjectiveTest | None:
    """Test whether the objectives of the first labeling explain more than those of the others.

    Args:
        curves: measure -> layer (None: median over layers) -> [runs, points]; NaN columns have no number.
        labelings: of the same runs.

    Returns:
        None when no two runs differ in anything. Deterministic.
    """
    points = next((by_layer[None].shape[1] for by_layer in curves.values()), 0)
    residuals = {
        (measure, layer): block_residuals(values, labelings.blocks)
        for measure, by_layer in curves.items()
        for layer, values in by_layer.items()
    }
    varying = {key: residual for key, residual in residuals.items() if (residual != 0).any()}
    medians = [measure for measure, layer in varying if layer is None]
    if not medians:
        return None
    stacked = np.stack([varying[measure, None] for measure in medians])
    by_curve = _curve_statistics([varying[measure, None] for measure in medians], labelings.labels)
    p_together = _p_value(joined(by_curve))
    corrected = step_down(by_curve)
    searched = _search_steps(stacked, labelings.labels)
    most_of_all = searched.most.max(axis=1)
    layers = [(measure, layer) for measure, layer in varying if layer is not None]
    return ObjectiveTest(
        together=CurveTest(float(by_curve[0].mean()), p_together, p_together),
        together_steps=_joined_steps(searched, points),
        measures={
            measure: CurveTest(float(column[0]), _p_value(column), float(p_all))
            for measure, column, p_all in zip(medians, by_curve.T, corrected, strict=True)
        },
        steps={
            measure: StepTest(
                searched.single[row],
                _p_values(searched.single[row], searched.most[:, row]),
                _p_values(searched.single[row], most_of_all),
            )
            for row, measure in enumerate(medians)
        },
        layers=_layer_tests(layers, varying, labelings.labels),
    )


def step_down(statistics: Float64[np.ndarray, "labelings tests"]) -> Float64[np.ndarray, " tests"]:
    """p-values corrected for many tests: step-down max-T (Westfall and Young 1993, algorithm 4.1).

    Args:
        statistics: of every test under every labeling, the true one first; large values speak against the null.
    """
    order = np.argsort(-statistics[0], kind="stable")
    # the maximum over a test and all tests with smaller statistics
    most = np.maximum.accumulate(statistics[:, order[::-1]], axis=1)[:, ::-1]
    p = (most >= statistics[0, order] - ROUNDING).mean(axis=0)
    corrected: np.ndarray = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p)
    return corrected


def block_residuals(
    values: Float64[np.ndarray, "runs points"], blocks: tuple[int, ...]
) -> Float64[np.ndarray, "runs points"]:
    """What is left of the numbers without the means of the blocks; 0 where there is no number or no difference."""
    numbers = np.where(np.isnan(values), 0.0, values)
    of = np.array(blocks)
    residual = np.empty_like(numbers)
    for block in set(blocks):
        members = of == block
        residual[members] = numbers[members] - numbers[members].mean(axis=0)
    constant = np.abs(residual).max(axis=0) <= _CONSTANT * np.abs(numbers).max(axis=0)
    residual[:, constant] = 0.0
    return residual


def _p_value(statistics: Float64[np.ndarray, " labelings"]) -> float:
    return float((statistics >= statistics[0] - ROUNDING).mean())


def _curve_statistics(
    curves: list[Float64[np.ndarray, "runs _"]], labels: Int64[np.ndarray, "labelings runs"]
) -> Float64[np.ndarray, "labelings curves"]:
    """R2 of every curve under every labeling."""
    products = np.stack([curve @ curve.T for curve in curves])
    products /= np.trace(products, axis1=1, axis2=2)[:, None, None]
    return share_of_curves(products, labels)


def _layer_tests(
    layers: list[tuple[str, int]],
    varying: Mapping[tuple[str, int | None], Float64[np.ndarray, "runs points"]],
    labels: Int64[np.ndarray, "labelings runs"],
) -> dict[tuple[str, int], CurveTest]:
    if not layers:
        return {}
    statistics = _curve_statistics([varying[key] for key in layers], labels)
    return {
        key: CurveTest(float(column[0]), _p_value(column), float(p_all))
        for key, column, p_all in zip(layers, statistics.T, step_down(statistics), strict=True)
    }


@dataclass(frozen=True)
class _Search:
    """R2 at the points under the true labeling; the maxima of the statistics over points under every labeling."""

    single: Float64[np.ndarray, "measures points"]
    most: Float64[np.ndarray, "labelings measures"]
    most_joined: Float64[np.ndarray, " labelings"]


def _search_steps(
    residuals: Float64[np.ndarray, "measures runs points"], labels: Int64[np.ndarray, "labelings runs"]
) -> _Search:
    total = (residuals**2).sum(axis=1)
    varies = total > 0
    scaled = residuals / np.sqrt(np.where(varies, total, 1.0))[:, None]
    single = np.empty((0, 0))
    most: list[np.ndarray] = []
    most_joined: list[np.ndarray] = []
    for chunk in _chunks(labels, residuals.size):
        between = share_of_points(scaled, chunk)
        if not most:
            single = np.where(varies, between[0], np.nan)
        most.append(between.max(axis=2))
        # a measure in which the runs do not differ at a point adds nothing there
        most_joined.append(joined(np.moveaxis(between, 1, 2)).max(axis=1))
    return _Search(single, np.concatenate(most), np.concatenate(most_joined))


def _chunks(labels: Int64[np.ndarray, "labelings runs"], numbers: int) -> Iterator[Int64[np.ndarray, "_ runs"]]:
    size = max(1, _CHUNK_BYTES // (8 * max(numbers, 1)))
    return (labels[start : start + size] for start in range(0, len(labels), size))


def _joined_steps(searched: _Search, points: int) -> StepTest:
    """All measures together, at every point where the runs differ in one."""
    numbered = ~np.isnan(searched.single).all(axis=0)
    observed = np.full(points, np.nan)
    observed[numbered] = np.nanmean(searched.single[:, numbered], axis=0)
    p = _p_values(np.where(numbered, joined(searched.single.T), np.nan), searched.most_joined)
    return StepTest(observed, p, p)


def _p_values(
    observed: Float64[np.ndarray, " points"], most: Float64[np.ndarray, " labelings"]
) -> Float64[np.ndarray, " points"]:
    """The share of labelings whose maximum reaches each observed number; NaN for NaN."""
    fewer = np.searchsorted(np.sort(most), observed - ROUNDING, side="left")
    return np.where(np.isnan(observed), np.nan, (len(most) - fewer) / len(most))
