"""The cone of a complex whose cells have runs of stages: reducing it, and the bars of its pairs.

Source: Dey and Hou, FastZigzag, arXiv 2204.11080.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from topo_callback.homology.cone_pairing_kernels import pair_edges_in_cone, pair_in_cone


@dataclass(frozen=True)
class Cells:
    """Cells of one dimension with their runs first..last; the boundary of cell c is entries[starts[c] : starts[c + 1]].

    The run of a cell lies within the runs of the cells of its boundary.
    """

    first: Int32[np.ndarray, " cells"]
    last: Int32[np.ndarray, " cells"]
    starts: Int64[np.ndarray, " boundaries"]
    entries: Int32[np.ndarray, " entries"]

    def __len__(self) -> int:
        return int(self.first.size)


@dataclass(frozen=True)
class Level:
    """The cells of one dimension of a cone.

    enters and leaves are complexes; ascending lists the cells in the order in which they enter, coned in the order in
    which cones are put over them: the first `staying` of these are still there when a window of stages ends.
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

    @classmethod
    def of(cls, cells: Cells, stages: int, end: int | None = None) -> Level:
        """A level of cells; those that last until stage `end` or longer stay."""
        first, last = cells.first.astype(np.int64), cells.last.astype(np.int64)
        # In both orders, of cells that enter (or leave) together, those that live longer come first: fewer additions.
        ascending = _stable_order(first * stages - last, stages)
        coned = _stable_order(first - last * stages, stages)
        staying = 0 if end is None else int(np.sum(last >= end))
        return cls(cells.starts, cells.entries, 2 * first, 2 * last + 1, ascending, coned, staying)


@dataclass(frozen=True)
class Pairs:
    """The pairs of one dimension of the cone and its reduced columns.

    Rows are cones over `lower` and cells of `base`, columns are cells of `upper` and cones over `base`. Pair i is of
    row[i] and column[i] and has the bar bars[:, i]: dimension, birth, death. Column c is pool[starts[c] : starts[c] +
    lengths[c]], and up to mark_ends[c] its marked cycle, as in `pair_in_cone`.
    """

    dimension: int  # of base
    upper: Level
    base: Level
    lower: Level
    owner: Int32[np.ndarray, " rows"]
    pool: Int32[np.ndarray, " pool"]
    starts: Int64[np.ndarray, " columns"]
    lengths: Int64[np.ndarray, " columns"]
    mark_ends: Int64[np.ndarray, " marked"]
    row: Int64[np.ndarray, " pairs"]
    column: Int64[np.ndarray, " pairs"]
    bars: Int64[np.ndarray, "3 pairs"]

    @property
    def row_coned(self) -> Bool[np.ndarray, " pairs"]:
        """Whether the row of each pair is a cone."""
        return self.row < len(self.lower)

    @property
    def column_coned(self) -> Bool[np.ndarray, " pairs"]:
        """Whether the column of each pair is a cone."""
        return self.column >= len(self.upper)


def pairs_of_cone(levels: list[Level], lowest: int, highest: int) -> Iterator[Pairs]:
    """The pairs that decide dimensions `lowest` and up, from the highest dimension down.

    Cycles of the cones over staying cells are marked in dimensions lowest..highest.
    """
    nothing = np.empty(0, np.int32)
    none = Level.of(Cells(nothing, nothing, np.zeros(1, np.int64), nothing), 1)
    levels = [none, *levels, none]
    is_cleared = np.zeros(len(levels[-2]), np.bool_)
    for place in range(len(levels) - 1, lowest + 1, -1):
        upper, base, lower = levels[place], levels[place - 1], levels[place - 2]
        rows = len(base) + len(lower)
        # Edges in levels[2]: cones over them are paired along a spanning forest.
        owner, pool, starts, lengths, mark_ends = (pair_edges_in_cone if place == 3 else pair_in_cone)(
            upper.starts,
            upper.entries,
            upper.ascending,
            base.starts,
            base.entries,
            base.coned,
            rows_in_order(base.ascending, rows - 1),
            rows_in_order(lower.coned, len(lower) - 1),
            is_cleared,
            base.staying if lowest <= place - 2 <= highest else 0,
        )
        is_cleared = owner[::-1] >= 0
        row = np.flatnonzero(owner >= 0)
        column = owner[row].astype(np.int64)
        bars = _bars(row, column, place - 2, upper, base, lower)
        yield Pairs(place - 2, upper, base, lower, owner, pool, starts, lengths, mark_ends, row, column, bars)


def _stable_order(keys: Int64[np.ndarray, " cells"], stages: int) -> Int64[np.ndarray, " cells"]:
    """The places of keys between -stages² and stages², sorted; equal ones as they come."""
    # NumPy sorts numbers of 16 bits in linear time
    return np.argsort(keys.astype(np.int16) if stages**2 < 2**15 else keys, kind="stable")


def rows_in_order(order: Int64[np.ndarray, " cells"], first_row: int) -> Int32[np.ndarray, " cells"]:
    """The row of every cell when rows fall from first_row in the given order."""
    rows = np.empty(order.size, np.int32)
    rows[order] = first_row - np.arange(order.size, dtype=np.int32)
    return rows


def _bars(
    row: Int64[np.ndarray, " pairs"],
    column: Int64[np.ndarray, " pairs"],
    dimension: int,
    upper: Level,
    base: Level,
    lower: Level,
) -> Int64[np.ndarray, "3 pairs"]:
    """The bars (dimension, birth, death) of the pairs of one dimension of the cone.

    A cell enters at complex 2 * first and leaves at 2 * last + 1. Dey and Hou's three kinds of pairs: both cells
    ascending, [in, in); both coned, [out, out), where the column's cell leaves first; ascending with coned, from the
    smaller to the larger of in and out, one dimension lower when the cell comes in after the coned one went out.
    """
    birth_place = len(base) + len(lower) - 1 - row
    birth_coned, death_coned = birth_place >= len(base), column >= len(upper)
    enters = np.concatenate([base.enters[base.ascending], lower.leaves[lower.coned]])
    leaves = np.concatenate([upper.enters[upper.ascending], base.leaves[base.coned]])
    one, other = enters[birth_place], leaves[column]
    dimensions = dimension - (birth_coned | (death_coned & (one > other)))
    return np.stack([dimensions, np.minimum(one, other), np.maximum(one, other)])
