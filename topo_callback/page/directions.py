"""Given directions on the page: a table of where each moved most, and which charts there are."""

from __future__ import annotations

import math

from topo_callback.page.wording import plain, rounded, table
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

MOST_CHARTED = 6  # directions
_NONE = "-"


def directions_of(trajectory: Trajectory) -> list[str]:
    """The names of a run's directions; none where it has none."""
    held = trajectory.run.get("directions")
    return sorted(held) if isinstance(held, dict) and all(isinstance(name, str) for name in held) else []


def directions_content(trajectory: Trajectory) -> list[list[str]]:
    """Name in the names of numbers, and as it is shown, of those with charts of their own."""
    return [[name, plain(name)] for name in directions_of(trajectory)[:MOST_CHARTED]]


def directions_table(trajectory: Trajectory) -> str:
    """What each direction says at the newest sample, of all prompts and each group; empty without directions."""
    now = trajectory.overview(trajectory.steps[-1])
    sets = ["", *(f"[{name}]" for name in trajectory.groups.names)]
    rows = [
        row for name in directions_of(trajectory) for of_set in sets if (row := _row(name, of_set, now)) is not None
    ]
    if not rows:
        return ""
    caption = (
        f"How far prompts moved along each direction by step {now.step} since the start, in the layer where it is "
        "most: in standard deviations of the prompts along it at the start. The cosine says whether the drift goes "
        "that way; 95 of 100 random directions of the prompts' covariance stay below the last column."
    )
    groups = bool(trajectory.groups)
    heading = ("direction", *(("prompts",) if groups else ()), "layer", "moved", "cosine of the drift", "random, 95 %")
    return table(heading, rows if groups else [(row[0], *row[2:]) for row in rows], caption)


def _row(name: str, of_set: str, now: Snapshot) -> tuple[str, ...] | None:
    moved = now.numbers.get(f"projection_change({name}){of_set}.first", {})
    if not moved:
        return None
    layer = max(moved, key=lambda each: abs(moved[each]))
    cells = [_said(now, f"{number}({name}){of_set}.first", layer) for number in ("projection_change", "drift_cosine")]
    chance = now.numbers.get(f"drift_cosine_by_chance({name}){of_set}.first", {}).get(layer)
    return (name, of_set[1:-1] or "all", str(layer), *cells, _NONE if chance is None else rounded(chance))


def _said(now: Snapshot, number: str, layer: int | None) -> str:
    value, error = (held.get(number, {}).get(layer) for held in (now.numbers, now.errors))
    if value is None:
        return _NONE
    if error is None or not error > 0:
        return rounded(value)
    digits = decimals(2 * error)
    return f"{value:.{digits}f} \N{PLUS-MINUS SIGN} {2 * error:.{digits}f}"


def decimals(interval: float) -> int:
    """After the point: so many that an interval has one digit, two where the first is 1; at most 3."""
    first = math.floor(math.log10(interval))
    return min(3, max(0, -first + (1 if interval < 2 * 10.0**first else 0)))
