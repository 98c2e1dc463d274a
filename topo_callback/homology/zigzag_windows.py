"""The bars of a zigzag, window by window of stages, for complexes whose union over all stages is much larger.

Reducing the cone costs what the union of all stages costs, however short the bars are. Windows of a few stages share
their boundary stages. A bar that crosses a boundary stage is found by what is known from either side of it: from the
left the classes alive there with their births, from the right those classes with their deaths, both in the order in
which the zigzag filters the homology of the stage. How long bars are depends on the relative position of these two
flags alone.

Source: Carlsson and de Silva, Zigzag persistence, Foundations of Computational Mathematics 10, 2010 (arXiv 0812.0197),
section 3: right filtrations, in which a class born by an insertion comes on top and one born by a removal lowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int32, Int64

from topo_callback.homology.cone_window_kernels import (
    chosen_columns,
    match_classes,
    parts_of_columns,
    staying_levels,
    sums_of_chains,
)
from topo_callback.homology.zigzag_cone import Cells, Level, Pairs, pairs_of_cone, rows_in_order

# Measured, see benchmarks/RESULTS_zigzag.md.
LONG_UNION = 7.0
WINDOW_UNION = 3.0


@dataclass(frozen=True)
class _Classes:
    """Classes alive at a stage, the lowest of the flag first, and their cycles: cells[starts[c] : starts[c + 1]]."""

    births: Int64[np.ndarray, " classes"]
    starts: Int64[np.ndarray, " boundaries"]
    cells: Int64[np.ndarray, " cells"]

    def __len__(self) -> int:
        return int(self.births.size)

    @classmethod
    def none(cls) -> _Classes:
        return cls(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64))

    def below(self, upper: _Classes) -> _Classes:
        """These classes, then those above them."""
        starts = np.concatenate([self.starts, self.starts[-1] + upper.starts[1:]])
        return _Classes(np.concatenate([self.births, upper.births]), starts, np.concatenate([self.cells, upper.cells]))

    def where(self, is_kept: Bool[np.ndarray, " classes"]) -> _Classes:
        lengths = np.diff(self.starts)
        starts = np.concatenate([[0], np.cumsum(lengths[is_kept])]).astype(np.int64)
        return _Classes(self.births[is_kept], starts, self.cells[np.repeat(is_kept, lengths)])


@dataclass(frozen=True)
class _Window:
    """Stages begin..end as a complex: chosen[d] are its cells of dimension d, numbers[d] undoes the choice."""

    begin: int
    end: int
    levels: list[Level]
    chosen: list[Int64[np.ndarray, " _"]]
    numbers: list[Int32[np.ndarray, " _"]]


def window_steps(cells: list[Cells], stages: int, max_dimension: int) -> int | None:
    """How many steps between stages a window should have; None for all stages in one window.

    Cycles of the union that no stage holds come with cells that outnumber those one dimension lower, and with a union
    of many times the cells of a stage. Then windows are as long as their union holds three times the cells of a stage.
    """
    steps = []
    for lower, level in pairwise(cells[1 : max_dimension + 2]):
        at_a_stage = float(np.sum(level.last - level.first + 1, dtype=np.int64)) / stages
        if len(level) > max(len(lower), LONG_UNION * at_a_stage):
            steps.append((WINDOW_UNION - 1) * at_a_stage * (stages - 1) / (len(level) - at_a_stage))
    return max(1, round(min(steps))) if steps else None


def bars_by_windows(cells: list[Cells], stages: int, max_dimension: int, steps: int) -> Int64[np.ndarray, "3 bars"]:
    """The bars (dimension, birth, death) of dimensions 1..max_dimension."""
    highest = min(max_dimension, len(cells) - 1)
    alive = {dimension: _Classes.none() for dimension in range(1, highest + 1)}
    bars = [np.empty((3, 0), np.int64)]
    for window in _windows(cells, stages, steps):
        handed_on = {dimension: _Classes.none() for dimension in alive}
        for pairs in pairs_of_cone(window.levels, 1, highest):
            dimension = pairs.dimension
            row_stays = pairs.row_coned & (pairs.row >= len(pairs.lower) - pairs.lower.staying)
            column_stays = pairs.column_coned & (pairs.column < len(pairs.upper) + pairs.base.staying)
            is_closed = ~(row_stays | column_stays)
            if dimension - 1 in alive:
                born = _born_by_removal(pairs, row_stays & ~column_stays, window)
                handed_on[dimension - 1] = handed_on[dimension - 1].below(born)
            if dimension in alive:
                reaching = _reaching_the_end(pairs, column_stays & ~pairs.row_coned, window)
                if window.begin > 0:
                    crosses = ~pairs.row_coned & (pairs.bars[1] == 2 * window.begin)
                    crosses &= pairs.bars[2] > 2 * window.begin
                    is_closed &= ~crosses
                    ended, lasting = _match(pairs, crosses, column_stays, alive[dimension], reaching, window)
                    bars.append(ended)
                    reaching = lasting.below(reaching.where(reaching.births > 2 * window.begin))
                handed_on[dimension] = handed_on[dimension].below(reaching)
            bars.append(pairs.bars[:, is_closed])
        alive = handed_on
    found = np.concatenate(bars, axis=1)
    return found[:, (found[0] >= 1) & (found[0] <= highest)]


def _windows(cells: list[Cells], stages: int, steps: int) -> Iterator[_Window]:
    """Windows of `steps` steps each, the last one maybe shorter; the cells of the last one stay to its end only."""
    by_first = [np.argsort(level.first, kind="stable") for level in cells]
    # entering[d][s] : entering[d][s + 1] are those of by_first[d] that enter at stage s
    entering = [
        np.searchsorted(level.first[order], np.arange(stages + 1)) for level, order in zip(cells, by_first, strict=True)
    ]
    numbers = [np.zeros(len(level), np.int32) for level in cells]
    chosen = [np.empty(0, np.int64) for _ in cells]
    for begin in range(0, max(stages - 1, 1), steps):
        end = min(begin + steps, stages - 1)
        after = 0 if begin == 0 else begin + 1
        levels = []
        for dimension, level in enumerate(cells):
            old = chosen[dimension][level.last[chosen[dimension]] >= begin]
            new = by_first[dimension][entering[dimension][after] : entering[dimension][end + 1]]
            these = np.concatenate([old, new])
            chosen[dimension] = these
            numbers[dimension][these] = np.arange(these.size, dtype=np.int32)
            columns = chosen_columns(level.starts, level.entries, these, numbers[max(dimension - 1, 0)])
            part = Cells(np.maximum(level.first[these], np.int32(begin)), level.last[these], *columns)
            levels.append(Level.of(part, stages, end if end < stages - 1 else None))
        yield _Window(begin, end, levels, chosen, numbers)


def _born_by_removal(pairs: Pairs, which: Bool[np.ndarray, " pairs"], window: _Window) -> _Classes:
    """The classes of the last stage that come with the removal of a cell: those removed last are the lowest.

    The cell's column holds the cycle: the staying cells that it adds cones over.
    """
    order = np.argsort(pairs.column[which])
    column, births = pairs.column[which][order], pairs.bars[1, which][order]
    begins = pairs.starts[column]
    starts, rows = parts_of_columns(pairs.pool, begins, begins + pairs.lengths[column], len(pairs.lower))
    return _Classes(births, starts, window.chosen[pairs.dimension - 1][pairs.lower.coned[len(pairs.lower) - 1 - rows]])


def _reaching_the_end(pairs: Pairs, which: Bool[np.ndarray, " pairs"], window: _Window) -> _Classes:
    """The classes of the last stage that were there at the first or come with an insertion, the latest on top."""
    column, births = pairs.column[which][::-1], pairs.bars[1, which][::-1]
    rows = pairs.owner.size
    begins = pairs.starts[column] + pairs.lengths[column]
    starts, marks = parts_of_columns(pairs.pool, begins, pairs.mark_ends[column], 2 * rows)
    return _Classes(births, starts, window.chosen[pairs.dimension][pairs.base.ascending[2 * rows - 1 - marks]])


def _match(
    pairs: Pairs,
    which: Bool[np.ndarray, " pairs"],
    stays: Bool[np.ndarray, " pairs"],
    alive: _Classes,
    reaching: _Classes,
    window: _Window,
) -> tuple[Int64[np.ndarray, "3 bars"], _Classes]:
    """Match the classes alive at the first stage with the pairs that tell their ends: (bars that end, classes left)."""
    row, column, death, lasts = pairs.row[which], pairs.column[which], pairs.bars[2, which], stays[which]
    # On top those that a removal ends, the first topmost; at the bottom those that an insertion ends, the first lowest.
    by_insertion = column < len(pairs.upper)
    order = np.lexsort((np.where(by_insertion, -death, death), np.where(by_insertion, 2, lasts)))
    row, death, lasts = row[order], death[order], lasts[order]
    rows = pairs.owner.size
    level_of_row = np.full(rows, -1, np.int32)
    level_of_row[row] = np.arange(row.size, dtype=np.int32)
    row_of_cell = rows_in_order(pairs.base.ascending, rows - 1)
    matched, *levels = match_classes(
        alive.starts,
        row_of_cell[window.numbers[pairs.dimension][alive.cells]],
        pairs.owner,
        pairs.pool,
        pairs.starts,
        pairs.lengths,
        level_of_row,
        row.size,
    )
    births = alive.births[matched]
    ended = np.stack([np.full(row.size, pairs.dimension), births, death])[:, ~lasts]
    lasting = np.sort(matched[lasts])
    # `reaching` are in falling order of rows: the last of them are those of the first stage.
    chain_of_row = np.full(rows, -1, np.int64)
    old = which & stays
    chain_of_row[pairs.row[old]] = np.arange(np.sum(old))[::-1]
    level_starts, lasting_levels = staying_levels(lasting, matched, *levels, lasts)
    sums = sums_of_chains(
        level_starts,
        chain_of_row[row[lasting_levels]],
        reaching.starts,
        reaching.cells,
        int(reaching.cells.max(initial=-1)) + 1,
    )
    return ended, _Classes(alive.births[lasting], *sums)
