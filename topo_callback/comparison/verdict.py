"""The verdict of a comparison: the objectives differ, or differ by less than a size, or these runs cannot tell.

Never "no difference" because none was found: that takes an interval that leaves none of this size. And never a
difference where the runs cannot bound the error: what stands in the way is said instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from topo_callback.comparison.effects import Difference, largest_excluded
from topo_callback.comparison.labelings import Labelings
from topo_callback.comparison.own_spread import LEVEL, Levels
from topo_callback.comparison.permutation import ObjectiveTest
from topo_callback.comparison.seeds import MOST_SEEDS, SeedsNeeded

Kind = Literal["differ", "no difference", "undecided"]


@dataclass(frozen=True)
class ComparisonVerdict:
    """What the runs allow to say.

    Attributes:
        kind: "differ": by more than the seeds do, in all measures together; "no difference": of at least `size` in any
            measure's mean over the run; "undecided".
        size: the difference that was asked about, in spreads between the seeds of one objective.
        excluded: the smallest difference that is excluded in every measure, in the same spreads; None where none is.
        excluded_measure: the measure that keeps it from being smaller.
        needed: seeds of each objective that would decide.
        add: objective -> runs to add so that a difference of `size` is found in 4 of 5 comparisons; empty where that is
            not known.
        reasons: why nothing could be claimed, a sentence each; empty where a difference could have been.
        sentences: the verdict in words; the first is the verdict alone.
    """

    kind: Kind
    size: float
    excluded: float | None
    excluded_measure: str | None
    needed: SeedsNeeded
    add: Mapping[str, int]
    reasons: tuple[str, ...]
    sentences: tuple[str, ...]


def decide(
    test: ObjectiveTest | None,
    levels: Levels,
    labelings: Labelings,
    differences: Sequence[Mapping[str, Difference]],
    needed: SeedsNeeded,
    sizes: Mapping[str, int],
    spread_ratio: float | None,
    size: float,
) -> ComparisonVerdict:
    """The verdict.

    Args:
        test: of the objectives; None where no two runs differ.
        levels: of that test.
        labelings: of that test.
        differences: measure -> difference, of every pair of objectives.
        needed: seeds of each objective.
        sizes: objective -> how many runs there are.
        spread_ratio: how many times as far the widest objective spreads as the narrowest; None where that is not known.
        size: the difference that was asked about, in spreads.
    """
    bounds = [found for each in differences if (found := largest_excluded(each)) is not None]
    measure, bound = max(bounds, key=lambda found: found[1]) if bounds else (None, float("inf"))
    reasons = _reasons(test, levels, labelings, sizes, spread_ratio, needed)
    if test is not None and test.together.p <= levels.together:
        kind: Kind = "differ"
    elif test is not None and bound <= size:
        kind = "no difference"
    else:
        kind = "undecided"
    add = {} if needed.find is None else {name: max(0, needed.find - runs) for name, runs in sizes.items()}
    finite = bool(np.isfinite(bound)) and test is not None
    sentences = [_headline(kind, size)]
    if kind == "undecided":
        sentences += reasons
    if finite and kind != "differ":
        sentences.append(
            f"Differences from {bound:.2g} {_spreads(bound)} on are excluded at 95 % in every measure's mean over the "
            f"run (the widest: {measure})."
        )
    if kind == "undecided" and test is not None:
        sentences += _advice(needed, add, size)
    return ComparisonVerdict(
        kind,
        size,
        bound if finite else None,
        measure if finite else None,
        needed,
        add,
        tuple(reasons),
        tuple(sentences),
    )


def _headline(kind: Kind, size: float) -> str:
    if kind == "differ":
        return "Verdict: the objectives differ by more than their seeds."
    if kind == "no difference":
        return f"Verdict: no difference of at least {size:g} {_spreads(size)} between seeds."
    return "Verdict: cannot be decided with these runs."


def _reasons(
    test: ObjectiveTest | None,
    levels: Levels,
    labelings: Labelings,
    sizes: Mapping[str, int],
    ratio: float | None,
    needed: SeedsNeeded,
) -> list[str]:
    if test is None:
        return ["No two runs differ in any measure, so there is no spread to judge a difference by."]
    single = [name for name, runs in sizes.items() if runs < 2]
    found = []
    if single:
        found.append(f"One run of {', '.join(single)} shows no spread of its own: give at least 2, better 5.")
    if labelings.smallest_p > LEVEL:
        shared = "shared " if 0 not in labelings.blocks else ""
        found.append(
            f"No p-value can be below {labelings.smallest_p:.4f} with these runs; a claim at {100 * LEVEL:g} % takes "
            f"at least {needed.claim} {shared}seeds of each objective."
        )
    elif not single and levels.together < labelings.smallest_p:
        spreads = f"{ratio:.1f} times as far" if ratio is not None else "unequally"
        found.append(
            f"The objectives spread unequally (the widest {spreads} as the narrowest), and so few runs cannot hold "
            f"{100 * LEVEL:g} % then: add seeds, first to the objective with the fewest."
        )
    elif ratio is not None and levels.together < test.together.p <= LEVEL:
        found.append(
            f"p = {test.together.p:.4f} would be claimed if the objectives spread equally; the widest spreads "
            f"{ratio:.1f} times as far as the narrowest, and then only p up to {levels.together:.4f} is claimed."
        )
    return found


def _advice(needed: SeedsNeeded, add: Mapping[str, int], size: float) -> list[str]:
    what = f"a difference of {size:g} {_spreads(size)} in all measures"
    if needed.find is None:
        if needed.exclude is None:
            return [f"How many seeds {what} takes cannot be told from these runs, or it is more than {MOST_SEEDS}."]
        found = f"To find {what} takes more than {MOST_SEEDS} seeds of each objective"
    else:
        adding = ", ".join(f"{count} to {name}" for name, count in add.items() if count)
        found = f"To find {what} in 4 of 5 cases takes {needed.find} seeds of each objective"
        found += f" (add {adding})" if adding else ", which these runs have"
    exclude = f"more than {MOST_SEEDS}" if needed.exclude is None else f"{needed.exclude}"
    return [f"{found}; to exclude it where there is none, {exclude}."]


def _spreads(size: float) -> str:
    return "spread" if size == 1 else "spreads"
