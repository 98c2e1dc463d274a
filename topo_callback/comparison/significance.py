"""Significance: which of the many p-values of a comparison may be stated as a difference, and from which step on.

All measures together come first. Where their p-value is above the level nothing else is claimed, so that runs whose
means do not differ give a report without any claim in at least 95 of 100 cases. Where it is not, every family
(measures; measures and layers; measures and steps; pairs) holds the level by its own correction. The level of each
family is 5 %, or less where objectives spread unequally (`own_spread`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from topo_callback.comparison.comparison import Comparison, Pair


@dataclass(frozen=True)
class Onset:
    """From where objectives are distinguishable.

    Attributes:
        first: the earliest position that is significant after correction for the search.
        lasting: the earliest from which every later one with a number is significant too; None where the last is not.
        p: at `first`.
    """

    first: float
    lasting: float | None
    p: float


def objectives_differ(comparison: Comparison) -> bool:
    """Whether all measures together differ: the gate of every other claim."""
    return comparison.verdict.kind == "differ"


def onset(p: Float64[np.ndarray, " points"], positions: Float64[np.ndarray, " points"], level: float) -> Onset | None:
    """The onset by corrected p-values; None where no point is significant at the level."""
    tested = np.flatnonzero(~np.isnan(p))
    significant = p[tested] <= level
    if not significant.any():
        return None
    first = tested[significant][0]
    since = len(tested) - int(np.argmin(np.append(significant[::-1], False)))
    lasting = float(positions[tested[since]]) if since < len(tested) else None
    return Onset(float(positions[first]), lasting, float(p[first]))


def onset_together(comparison: Comparison) -> Onset | None:
    """From where all measures together are distinguishable; None where that is not claimed."""
    if comparison.test is None or not objectives_differ(comparison):
        return None
    return onset(comparison.test.together_steps.p, comparison.alignment.positions, comparison.levels.together_steps)


def onset_of(comparison: Comparison, measure: str) -> Onset | None:
    """From where one measure is, corrected for all steps and measures; None where that is not claimed."""
    if comparison.test is None or not objectives_differ(comparison) or measure not in comparison.test.steps:
        return None
    return onset(comparison.test.steps[measure].p_all, comparison.alignment.positions, comparison.levels.steps)


def measure_differs(comparison: Comparison, measure: str) -> bool:
    """Whether a difference in this measure may be claimed."""
    test = comparison.test
    return (
        test is not None
        and objectives_differ(comparison)
        and measure in test.measures
        and (test.measures[measure].p_all <= comparison.levels.measures)
    )


def differing_layers(comparison: Comparison, measure: str) -> list[int]:
    """The layers for which a difference in this measure may be claimed."""
    test = comparison.test
    if test is None or not objectives_differ(comparison):
        return []
    return [
        layer for (of, layer), found in test.layers.items() if of == measure and found.p_all <= comparison.levels.layers
    ]


def pair_p(pair: Pair, measure: str) -> float | None:
    """p-value of two objectives in one measure, corrected for all measures and pairs; None where it is not tested."""
    if pair.test is None or measure not in pair.test.measures:
        return None
    return min(1.0, pair.pairs_tested * pair.test.measures[measure].p_all)


def pair_differs(comparison: Comparison, pair: Pair, measure: str) -> bool:
    """Whether a difference of two objectives in this measure may be claimed."""
    p = pair_p(pair, measure)
    return p is not None and p <= pair.levels.measures and objectives_differ(comparison)


def ranked_measures(comparison: Comparison) -> list[str]:
    """The tested measures, the smallest corrected p-value first, then the largest share explained."""
    measures = comparison.test.measures if comparison.test is not None else {}
    return sorted(measures, key=lambda name: (measures[name].p_all, -measures[name].r_squared, name))
