"""Caveats: what a reader has to know before believing a comparison, one sentence each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from topo_callback.comparison.comparison import SEEDS_FOR_PAIRS, Comparison
from topo_callback.comparison.effects import SEEDS_FOR_INTERVAL
from topo_callback.comparison.labelings import fewest_seeds
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.reading_conditions import reading_notes


def notes(comparison: Comparison) -> list[str]:
    """How the runs were aligned, what was left out, and what so many runs can and cannot show."""
    return [*_about_runs(comparison), *_about_alignment(comparison), *_about_labelings(comparison)]


def position(value: float, axis: str) -> str:
    """A position on the axis, in words."""
    if axis == "step":
        return f"step {value:.0f}"
    return f"{100 * value:.3g} % of the run" if axis == "progress" else f"clock {value:.4g}"


def probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def named(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _about_runs(comparison: Comparison) -> list[str]:
    found = []
    every = [run for of_unit in comparison.runs for run in of_unit.each]
    for run in every:
        if run.trajectory.damaged:
            found.append(f"{run.given}: damaged samples are skipped: {named(sorted(run.trajectory.damaged))}.")
        if run.trajectory.state != "finished":
            found.append(f"{run.given} is {run.trajectory.state}: its recorded samples are compared.")
    models = Counter(str(run.trajectory.run.get("model", {}).get("name", "")) for run in every)
    if len(models) > 1:
        found.append(f"The runs are of different models ({named(sorted(models))}): a difference may be theirs.")
    return [*found, *reading_notes([(run.name, run.trajectory.run) for run in every])]


def _about_alignment(comparison: Comparison) -> list[str]:
    alignment = comparison.alignment
    start, end = (position(float(alignment.positions[at]), alignment.axis) for at in (0, -1))
    text = f"Aligned on {alignment.axis} ({alignment.unit}), {len(alignment.positions)} points from {start} to {end}"
    between = [
        f"{run.name} ({count})" for run, count in zip(comparison.runs, alignment.interpolated, strict=True) if count
    ]
    text += (
        f"; interpolated linearly between two samples (points): {named(between)}"
        if between
        else "; every point is a sample of every run"
    )
    found = [f"{text}; nothing is extrapolated."]
    if alignment.gaps:
        found.append(f"{alignment.gaps} further points are left out: some run has no sample near them.")
    found += _about_lengths(comparison)
    reasons = defaultdict(list)
    for measure, reason in alignment.left_out.items():
        reasons[reason].append(measure)
    found += [f"Not compared: {named(measures)} ({reason})." for reason, measures in reasons.items()]
    return found


def _about_lengths(comparison: Comparison) -> list[str]:
    """Whether the runs go on after what is compared."""
    if comparison.alignment.axis != "step":
        return []
    ends = {run.name: run.trajectory.steps[-1] for of_unit in comparison.runs for run in of_unit.each}
    shortest, longest = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    if ends[shortest] >= 0.9 * ends[longest]:
        return []
    return [
        f"{shortest} ends at step {ends[shortest]} and {longest} at step {ends[longest]}: what follows the shortest "
        "run is not compared. To compare runs of different plans as a whole, align them on progress."
    ]


def _about_labelings(comparison: Comparison) -> list[str]:
    ways = comparison.labelings
    sizes = Counter(run.objective for run in comparison.runs)
    blocks = len(set(ways.blocks) - {0})
    of_units = any(run.unit is not None for run in comparison.runs)
    if of_units:
        how = (
            "Runs of one objective in one unit count together as one, their mean; labels are permuted within the "
            f"{blocks} units that objectives share, and among those that they do not; seeds do not count"
        )
    elif 0 not in ways.blocks:
        how = f"Objectives share their {blocks} seeds, so labels are permuted within each seed"
    elif blocks:
        how = f"{blocks} seeds are shared: labels are permuted within each, and among the runs of all other seeds"
    else:
        how = "No seed is shared, so labels are permuted among all runs"
    if not of_units and any(run.seed is None for run in comparison.runs):
        how += " (runs without a seed count as independent)"
    count = f"all {ways.possible:,}" if ways.exact else f"{len(ways.labels):,} drawn of {ways.possible:,}"
    found = [f"{how}: {count} different labelings; the smallest possible p-value is {probability(ways.smallest_p)}."]
    if ways.smallest_p > LEVEL:
        found.append(
            f"With these runs no difference can be shown at {100 * LEVEL:g} %: "
            f"{len(comparison.objectives)} objectives need {_needed(len(comparison.objectives))} for each."
        )
    fewest = min(sizes.values())
    if fewest < SEEDS_FOR_PAIRS and len(comparison.objectives) > 2:
        found.append(
            f"Global test only: two objectives are tested against each other from {SEEDS_FOR_PAIRS} seeds each on "
            f"(here {', '.join(f'{name} {size}' for name, size in sizes.items())})."
        )
    found.append(
        "Corrections: step-down max-T (Westfall and Young) over measures, and over measures and layers; the maximum "
        "over all points and measures for where objectives become distinguishable; times the number of pairs "
        "(Bonferroni) between pairs. Nothing is claimed unless all measures together differ."
    )
    found += _about_pairs(comparison)
    if fewest < SEEDS_FOR_INTERVAL:
        found.append(f"No bootstrap interval of an effect size below {SEEDS_FOR_INTERVAL} seeds.")
    return found


def _about_pairs(comparison: Comparison) -> list[str]:
    if len(comparison.objectives) == 2:
        return []
    return [
        f"{pair.objectives[0]} against {pair.objectives[1]}: the smallest possible p-value is "
        f"{probability(min(1.0, pair.pairs_tested * pair.labelings.smallest_p))} after correction for "
        f"{pair.pairs_tested} pairs, so no claim can be made at {100 * LEVEL:g} %."
        for pair in comparison.pairs
        if pair.labelings is not None and pair.pairs_tested * pair.labelings.smallest_p > LEVEL
    ]


def _needed(objectives: int) -> str:
    return (
        f"{fewest_seeds(objectives, shared=False)} seeds that are not shared, or "
        f"{fewest_seeds(objectives, shared=True)} shared ones,"
    )
