"""The cone of a complex whose cells have runs: its reduction, its bars, and the classes alive at its last stage.

Source: Dey and Hou, FastZigzag, arXiv 2204.11080.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from topo_callback.homology.cone_forest_kernels import pair_edges_in_cone
from topo_callback.homology.cone_pairing_kernels import pair_in_cone


@dataclass(frozen=True)
class Critical:
    """The cells of one dimension left by cancellation; the boundary of cell c is entries[starts[c] : starts[c + 1]]."""

    first: Int32[np.ndarray, " cells"]
    last: Int32[np.ndarray, " cells"]
    starts: Int64[np.ndarray, " boundaries"]
    entries: Int32[np.ndarray, " entries"]

    def __len__(self) -> int:
        return int(self.first.size)

    @classmethod
    def none(cls) -> Critical:
        nothing = np.empty(0, np.int32)
        return cls(nothing, nothing, np.zeros(1, np.int64), nothing)


@dataclass(frozen=True)
class Level:
    """The cells of one dimension of a cone: boundaries, both orders, and the complexes at which they come and go.

    ascending lists the cells in the order in which they enter, coned in the order in which cones are put over them,
    the first `staying` of which are cells of the last stage.
    """

    starts: Int64[np.ndarray, " boundaries"]
    entries: Int32[np.ndarray, " entries"]
    enters: Int64[np.ndarray, " cells"]
    leaves: Int64[np.ndarray, " cells"]
    ascending: Int64[np.ndarray, " cells"]
    coned: Int64[np.ndarray, " cells"]
    staying: int = 0

    def __len__(self) -> int:
        return int(self.enters.size)


@dataclass(frozen=True)
class Chains:
    """Chains of cells of one dimension: chain c is cells[starts[c] : starts[c + 1]]; births are complexes."""

    starts: Int64[np.ndarray, " boundaries"]
    cells: Int32[np.ndarray, " cells"]
    births: Int64[np.ndarray, " chains"]

    @classmethod
    def none(cls) -> Chains:
        return cls(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    def __len__(self) -> int:
        return int(self.births.size)

    def and_then(self, other: Chains) -> Chains:
        return Chains(
            np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]),
            np.concatenate([self.cells, other.cells]),
            np.concatenate([self.births, other.births]),
        )


Bars = Int64[np.ndarray, "3 bars"]
NO_BARS = np.empty((3, 0), np.int64)


def level_of_cells(cells: Critical, stages: int) -> Level:
    first, last = cells.first.astype(np.int64), cells.last.astype(np.int64)
    # In both orders, of cells that enter (or leave) together, those that live longer come first: fewer additions.
    ascending = np.argsort(first * stages - last, kind="stable")
    coned = np.argsort(first - last * stages, kind="stable")
    return Level(cells.starts, cells.entries, 2 * first, 2 * last + 1, ascending, coned)


@dataclass(frozen=True)
class Pairs:
    """The pairs of one place of the cone, and its reduced columns."""

    dimension: int
    upper: Level
    base: Level
    lower: Level
    owner: np.ndarray
    columns: list[np.ndarray]


def pairs_of_cone(levels: list[Level], dimensions: range):
    none = level_of_cells(Critical.none(), 1)
    levels = [none, *levels, none]
    is_cleared = np.zeros(len(levels[-2]), np.bool_)
    for place in range(len(levels) - 1, min(dimensions) + 1, -1):
        upper, base, lower = levels[place], levels[place - 1], levels[place - 2]
        rows = len(base) + len(lower)
        tracked = base.staying if place - 2 in dimensions else 0
        # Edges in levels[2]: cones over them are paired along a spanning forest.
        owner, *columns = (pair_edges_in_cone if place == 3 else pair_in_cone)(
            upper.starts,
            upper.entries,
            upper.ascending,
            base.starts,
            base.entries,
            base.coned,
            _rows(base.ascending, rows - 1),
            _rows(lower.coned, rows - 1 - len(base)),
            is_cleared,
            tracked,
        )
        is_cleared = owner[::-1] >= 0
        yield Pairs(place - 2, upper, base, lower, owner, columns)


def bars_of_cone(levels, dimensions):
    return np.concatenate([NO_BARS, *(_bars(p.owner, p.dimension, p.upper, p.base, p.lower) for p in pairs_of_cone(levels, dimensions))], axis=1)


def _rows(order: Int64[np.ndarray, " cells"], first_row: int) -> Int32[np.ndarray, " cells"]:
    """The row of every cell when rows fall from first_row in the given order."""
    rows = np.empty(order.size, np.int32)
    rows[order] = first_row - np.arange(order.size, dtype=np.int32)
    return rows


def _bars(
    owner: Int32[np.ndarray, " rows"], dimension: int, upper: Level, base: Level, lower: Level
):
    """The bars (dimension, birth, death) of the pairs of one dimension of the cone.

    A cell enters at complex 2 * first and leaves at 2 * last + 1. Dey and Hou's three kinds of pairs: both cells
    ascending, [in, in); both coned, [out, out), where the column's cell leaves first; ascending with coned, from the
    smaller to the larger of in and out, one dimension lower when the cell comes in after the coned one went out.
    """
    row = np.flatnonzero(owner >= 0)
    birth_place, death_place = owner.size - 1 - row, owner[row].astype(np.int64)
    birth_coned, death_coned = birth_place >= len(base), death_place >= len(upper)
    enters = np.concatenate([base.enters[base.ascending], lower.leaves[lower.coned]])
    leaves = np.concatenate([upper.enters[upper.ascending], base.leaves[base.coned]])
    one, other = enters[birth_place], leaves[death_place]
    dimensions = dimension - (birth_coned | (death_coned & (one > other)))
    return np.stack([dimensions, np.minimum(one, other), np.maximum(one, other)])
