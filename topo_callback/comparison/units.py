"""Units: runs that share a machine, a day or a base checkpoint are alike, and count together as one replicate.

The runs of one objective in one unit are averaged. Where a unit has runs of several objectives it is a block, as a
shared seed is: labels are permuted within it. Where it has one, its mean is one replicate among those of other units.
So labels are never permuted among runs that are alike because they ran together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from topo_callback.comparison.alignment import Alignment
from topo_callback.comparison.labelings import Labelings, fewest_seeds
from topo_callback.comparison.runs import Run
from topo_callback.errors import ConfigurationError


def with_units(runs: Sequence[Run], units: Mapping[str, str]) -> list[Run]:
    """The runs with their units.

    Args:
        units: what a run was given as, its run id or the name of its output_dir, where * and ? match -> the name of its
            unit.

    Raises:
        ConfigurationError: a run that matches none or two different units, or a key that matches no run.
    """
    used: set[str] = set()
    found = []
    for run in runs:
        names = _names(run)
        keys = [key for key in units if any(_matches(name, key) for name in names)]
        used.update(keys)
        of_run = {units[key] for key in keys}
        if len(of_run) != 1:
            said = "no unit" if not of_run else f"the units {', '.join(sorted(of_run))}"
            raise ConfigurationError(f"{run.given} has {said}; give every run one, as NAME=UNIT, where * and ? match")
        found.append(replace(run, unit=of_run.pop()))
    unknown = [key for key in units if key not in used]
    if unknown:
        raise ConfigurationError(f"no run is called {unknown[0]}; the runs are {', '.join(run.given for run in runs)}")
    return found


def _matches(name: str, key: str) -> bool:
    """Only * and ? stand for something else; brackets are letters of a name."""
    return fnmatchcase(name, key.replace("[", "[[]"))


def _names(run: Run) -> set[str]:
    folder = run.trajectory.folder.resolve()
    above = [folder.parent.parent.name] if folder.parent.name == "topology" else []
    return {run.given, run.given.rstrip("/"), folder.name, *above}


def in_units(runs: Sequence[Run], alignment: Alignment) -> tuple[list[Run], Alignment]:
    """One run in place of all runs of an objective in a unit, and the means of their numbers.

    Args:
        runs: each with its unit.
        alignment: of these runs.
    """
    cells: dict[tuple[str, str | None], list[int]] = {}
    for row, run in enumerate(runs):
        cells.setdefault((run.objective, run.unit), []).append(row)
    rows = list(cells.values())
    merged = []
    for (objective, unit), own in cells.items():
        members = tuple(runs[row] for row in own)
        counted = f" ({len(own)} runs)" if len(own) > 1 else ""
        given = ", ".join(run.given for run in members)
        merged.append(
            replace(members[0], name=f"{objective}, unit {unit}{counted}", seed=None, given=given, members=members)
        )
    values = {
        measure: {layer: np.stack([of[own].mean(axis=0) for own in rows]) for layer, of in by_layer.items()}
        for measure, by_layer in alignment.values.items()
    }
    interpolated = tuple(max(alignment.interpolated[row] for row in own) for own in rows)
    return merged, replace(alignment, values=values, interpolated=interpolated)


def check_enough(runs: Sequence[Run], ways: Labelings, level: float) -> None:
    """Refuse units with which no difference could be shown, with what to add.

    Args:
        runs: of `in_units`.
        ways: of these.

    Raises:
        ConfigurationError: no p-value over these labelings can be as small as `level`.
    """
    if ways.smallest_p <= level:
        return
    counts = Counter(run.objective for run in runs)
    shared = fewest_seeds(len(counts), shared=True, level=level)
    single = fewest_seeds(len(counts), shared=False, level=level)
    have = ", ".join(f"{count} of {name}" for name, count in counts.items())
    raise ConfigurationError(
        f"the runs are of too few units ({have}): labels are permuted over units, and no p-value can be below "
        f"{ways.smallest_p:.2g}; it takes {shared} units with runs of every objective, or {single} units of each "
        "objective by itself; runs added to the same units do not help"
    )
