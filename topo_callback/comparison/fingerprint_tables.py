"""What fingerprints say, as sentences, as one table, and as numbers for comparison.json."""

from __future__ import annotations

import math
from typing import Any

from topo_callback.comparison.caveats import named, probability
from topo_callback.comparison.fingerprints import Fingerprints
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.measures.uncertainty import LEAST_PART
from topo_callback.records.results import plain_numbers
from topo_callback.tables import Column, Table

MOST_OBJECTIVES = 8
MOST_RUNS = 24
_WEAK = 0.5


def fingerprint_sentences(found: Fingerprints) -> list[str]:
    """What can be claimed of the runs, and what cannot; the claim comes first."""
    lines = [*_about_objectives(found), *_about_nearest(found)]
    weak = [run.name for run, own in zip(found.runs, found.own, strict=True) if own < _WEAK]
    if weak:
        lines.append(
            f"{named(weak)}: hardly a direction of its own; the cosine with itself on other texts is below {_WEAK:g}."
        )
    if found.passages < LEAST_PART:
        lines.append(f"No errors and no nearest runs below {LEAST_PART} passages; these runs read {found.passages}.")
    return [*lines, *(f"{name} is not among them: {reason}." for name, reason in found.left_out.items())]


def _about_objectives(found: Fingerprints) -> list[str]:
    test = found.test
    if test is None:
        return []
    means = "; ".join(
        f"{name} {within:.2f} among its own runs, {between:.2f} with others"
        for name, (within, between) in list(test.objectives.items())[:MOST_OBJECTIVES]
    )
    numbers = f"mean cosines: {means}; p = {probability(test.p)}"
    if test.claimed:
        return [f"Runs of one objective learned more alike than runs of different ones ({numbers})."]
    few = (
        f"; {test.labelings.possible:,} labelings cannot give less than {probability(test.labelings.smallest_p)}"
        if test.labelings.smallest_p > LEVEL
        else ""
    )
    return [f"Whether runs of one objective learned more alike than others is not shown ({numbers}{few})."]


def _about_nearest(found: Fingerprints) -> list[str]:
    mutual = [
        f"{found.runs[run].name} and {found.runs[other].name}"
        for run, other in found.nearest.items()
        if run < other and found.nearest.get(other) == run
    ]
    if not mutual:
        return []
    return [
        f"Nearest to each other, beyond the error over passages: {named(mutual)}. Of other seeds that says nothing."
    ]


def fingerprint_table(found: Fingerprints) -> Table:
    """A row for each run: how sure its direction is, the run nearest to it, and its mean cosine with each objective."""
    objectives = list(dict.fromkeys(run.objective for run in found.runs))
    shown = objectives if len(objectives) <= MOST_OBJECTIVES else []
    table = Table(
        f"Which runs learned alike (cosines of what moved in {found.passages} general passages, layer {found.layer})",
        (
            Column("run"),
            Column("step", "number"),
            Column("with itself", "number"),
            Column("nearest"),
            Column("cosine", "whole"),
            *(Column(f"with {name}", "number") for name in shown),
        ),
        "with itself: on other passages, about 0 for a run without a direction; \N{PLUS-MINUS SIGN}: 95 % interval "
        "over passages, other seeds are not in it; * nearer than every other run beyond it, corrected for all"
        + ("; with an objective: the mean over its other runs" if shown else ""),
    )
    for place in range(min(len(found.runs), MOST_RUNS)):
        table.add(*_row(found, place, shown))
    if len(found.runs) > MOST_RUNS:
        table.add(f"{len(found.runs) - MOST_RUNS} more runs are in comparison.json")
    return table


def _row(found: Fingerprints, place: int, objectives: list[str]) -> list[str]:
    run = found.runs[place]
    others = [other for other in range(len(found.runs)) if other != place]
    best = max(others, key=lambda other: found.cosines[place, other], default=None)
    cells = [run.name, str(found.steps[place]), _number(float(found.own[place]))]
    if best is None:
        cells += ["-", "-"]
    else:
        cells += [found.runs[best].name + ("*" if found.nearest.get(place) == best else ""), cosine(found, place, best)]
    for name in objectives:
        of = [float(found.cosines[place, other]) for other in others if found.runs[other].objective == name]
        cells.append(_number(math.fsum(of) / len(of)) if of else "-")
    return cells


def cosine(found: Fingerprints, first: int, second: int) -> str:
    """A cosine with its 95 % interval, where it has one."""
    error = float(found.errors[first, second])
    text = _number(float(found.cosines[first, second]))
    return text if math.isnan(error) else f"{text} \N{PLUS-MINUS SIGN} {2 * error:.2f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def fingerprint_content(found: Fingerprints | None) -> dict[str, Any] | None:
    """JSON-compatible; lists are in the order of `runs`."""
    if found is None:
        return None
    test = found.test
    return {
        "runs": [run.name for run in found.runs],
        "left_out": dict(found.left_out),
        "passages": found.passages,
        "layer": found.layer,
        "steps": list(found.steps),
        "cosines": found.cosines.tolist(),
        "errors": [plain_numbers(row) for row in found.errors],
        "with_itself": plain_numbers(found.own),
        "nearest": {found.runs[run].name: found.runs[other].name for run, other in found.nearest.items()},
        "test": None
        if test is None
        else {
            "objectives": {name: {"within": own, "between": others} for name, (own, others) in test.objectives.items()},
            "p": test.p,
            "labelings": test.labelings.possible,
            "claimed": test.claimed,
        },
        "map": None
        if found.map is None
        else {
            "coordinates": found.map.coordinates.tolist(),
            "explained": list(found.map.explained),
            "stress": found.map.stress,
        },
    }
