"""Windows."""

from __future__ import annotations

import time
import numpy as np

from topo_callback.homology.cone_window_kernels import chosen_columns, match_classes, parts_of_columns, sums_of_chains
from topo_callback.homology.zigzag_cone import NO_BARS, Chains, Critical, Level, Pairs, _bars, _rows, level_of_cells, pairs_of_cone

STATS = []
ASC, CON = 1, 2
TIMES = {}


def windowed_bars(cells: list[Critical], stages: int, max_dimension: int, length: int):
    """Bars of dimensions 1..max_dimension; windows of `length` steps."""
    by_first = [np.argsort(c.first, kind="stable") for c in cells]
    upto = [np.searchsorted(c.first[o], np.arange(stages + 1)) for c, o in zip(cells, by_first)]
    numbers = [np.zeros(len(c), np.int32) for c in cells]
    chosen = [np.empty(0, np.int64)] * len(cells)
    dimensions = range(1, max_dimension + 1)
    alive = {d: Chains.none() for d in dimensions}
    bars = []
    begin = 0
    new_from = 0
    while True:
        end = min(begin + length, stages - 1)
        is_last = end == stages - 1
        levels = []
        for d, c in enumerate(cells):
            kept = chosen[d][c.last[chosen[d]] >= begin]
            chosen[d] = np.concatenate([kept, by_first[d][upto[d][new_from] : upto[d][end + 1]]])
            numbers[d][chosen[d]] = np.arange(chosen[d].size, dtype=np.int32)
            starts, entries = chosen_columns(c.starts, c.entries, chosen[d], numbers[d - 1] if d else np.zeros(0, np.int32))
            clipped = Critical(np.maximum(c.first[chosen[d]], begin).astype(np.int32), np.minimum(c.last[chosen[d]], end).astype(np.int32), starts, entries)
            level = level_of_cells(clipped, stages)
            F, L = c.first[chosen[d]].astype(np.int64), c.last[chosen[d]].astype(np.int64)
            cF, cL = clipped.first.astype(np.int64), clipped.last.astype(np.int64)
            A = [(cF, -cL), (cF, -L), (F, -cL), (F,-L), (cF,F-L)][ASC]
            B = [(-cL, cF), (-cL, F), (-L, cF), (-L, F), (-cL,F-L)][CON]
            level = Level(level.starts, level.entries, level.enters, level.leaves, np.lexsort(A[::-1]), np.lexsort(B[::-1]))
            staying = int(np.sum(clipped.last == end))
            levels.append(Level(level.starts, level.entries, level.enters, level.leaves, level.ascending, level.coned, staying))
        handed = {d: Chains.none() for d in dimensions}
        t0 = time.process_time()
        for pairs in pairs_of_cone(levels, dimensions):
            t1 = time.process_time(); TIMES[f"cone {pairs.dimension}"] = TIMES.get(f"cone {pairs.dimension}", 0) + t1 - t0
            found, removed, kept = window_bars(pairs, begin, end, None if begin == 0 else alive.get(pairs.dimension), dimensions, numbers)
            bars.append(found)
            t0 = time.process_time(); TIMES[f"match {pairs.dimension}"] = TIMES.get(f"match {pairs.dimension}", 0) + t0 - t1
            for d, chains in ((pairs.dimension - 1, removed), (pairs.dimension, kept)):
                if d in handed:
                    handed[d] = handed[d].and_then(chains)
        if is_last:
            for d, c in handed.items():
                bars.append(np.stack([np.full(len(c), d), c.births, np.full(len(c), 2 * end + 1)]))
            bars = np.concatenate(bars, axis=1)
            return bars[:, (bars[0] >= 1) & (bars[0] <= max_dimension)]
        alive = {d: Chains(c.starts, chosen[d][c.cells].astype(np.int32), c.births) for d, c in handed.items() if d < len(cells)}
        STATS.append((end, len(alive[1]), alive[1].cells.size / max(1, len(alive[1]))))
        new_from, begin = end + 1, end


def window_bars(pairs: Pairs, begin, end, alive: Chains | None, dimensions, numbers):
    upper, base, lower, owner = pairs.upper, pairs.base, pairs.lower, pairs.owner
    pool, starts, lengths, mark_ends = pairs.columns
    dimension = pairs.dimension
    bars = _bars(owner, dimension, upper, base, lower)
    row = np.flatnonzero(owner >= 0)
    column = owner[row].astype(np.int64)
    row_coned, column_coned = row < len(lower), column >= len(upper)
    # classes of the first stage and of the last one
    column_stays = column_coned & (column < len(upper) + base.staying)
    row_stays = row >= len(lower) - lower.staying
    rows = len(base) + len(lower)
    at_end = ~row_coned & column_stays
    removed = row_coned & row_stays & column_coned & ~column_stays
    is_open = at_end | removed
    removed_chains = Chains.none()
    if dimension - 1 in dimensions:
        r, c = row[removed], column[removed]
        order = np.argsort(c)
        c = c[order]
        ends, entries = parts_of_columns(pool, starts[c], starts[c] + lengths[c], len(lower))
        removed_chains = Chains(ends, lower.coned[len(lower) - 1 - entries].astype(np.int32), bars[1, removed][order])
    kept = Chains.none()
    if dimension in dimensions:
        c = column[at_end][::-1]
        births = bars[1, at_end][::-1]
        ends, entries = parts_of_columns(pool, starts[c] + lengths[c], mark_ends[c], 2 * rows)
        chains = Chains(ends, base.ascending[2 * rows - 1 - entries].astype(np.int32), births)
        if alive is None:
            kept = chains
        else:
            # classes of the first stage, from those that die first by insertion to those that go first by removal
            at_start = ~row_coned & (bars[1] == 2 * begin) & (bars[2] > 2 * begin)
            is_open |= at_start
            r, c = row[at_start], column[at_start]
            death = bars[2, at_start]
            assert len(alive) == len(r), (len(alive), len(r), begin, dimension)
            stays = column_stays[at_start]
            group = np.where(stays, 1, np.where(column_coned[at_start], 2, 0))
            order = np.lexsort((np.where(group == 2, -death, death), group))[::-1]
            level_of_row = np.full(rows, -1, np.int32)
            level_of_row[r[order]] = np.arange(len(r), dtype=np.int32)
            rows_of_base = _rows(base.ascending, rows - 1)
            matched, found, fs, fl, adds = match_classes(alive.starts, rows_of_base[numbers[dimension][alive.cells]], owner, pool, starts, lengths, level_of_row, len(r))
            assert (matched >= 0).all()
            ended = ~stays[order]
            bars_ended = np.stack([np.full(ended.sum(), dimension), alive.births[matched[ended]], death[order][ended]])
            # chain numbers of the survivors
            chain_of_row = np.full(rows, -1, np.int64)
            chain_of_row[row[at_end][::-1]] = np.arange(len(chains))
            chain_of_level = np.where(ended, -1, chain_of_row[r[order]])
            survivors = np.sort(matched[~ended]).astype(np.int64)
            s, cc, tot = sums_of_chains(matched, survivors, found, fs, fl, chain_of_level, chains.starts, chains.cells, len(base), True)
            STATS.append(('adds', len(alive), adds, 'Mlen', fl.sum(), 'surv', len(survivors), tot))
            born = chains.births > 2 * begin
            lens = np.diff(chains.starts)
            k = np.repeat(born, lens)
            kept = Chains(s, cc, alive.births[survivors]).and_then(Chains(np.concatenate([[0], np.cumsum(lens[born])]), chains.cells[k], births[born]))
            return np.concatenate([bars[:, ~is_open], bars_ended], axis=1), removed_chains, kept
    return bars[:, ~is_open], removed_chains, kept
