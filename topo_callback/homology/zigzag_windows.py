"""Windows."""

from __future__ import annotations

import numpy as np

from topo_callback.homology.cone_window_kernels import chosen_columns
from topo_callback.homology.zigzag_cone import Chains, Critical, Level, bars_of_cone, level_of_cells

STATS = []


def windowed_bars(cells: list[Critical], stages: int, max_dimension: int, length: int):
    """Bars of dimensions 1..max_dimension; windows of `length` steps."""
    cells = cells + [Critical.none()] * (max_dimension + 2 - len(cells))
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
            staying = 0 if is_last else int(np.sum(clipped.last == end))
            disks = alive.get(d - 1, Chains.none())
            if len(disks):
                STATS.append((begin, d, len(disks), disks.cells.size / len(disks)))
            disk_numbers = np.arange(chosen[d].size, chosen[d].size + len(disks))
            levels.append(
                Level(
                    np.concatenate([starts, starts[-1] + disks.starts[1:]]),
                    np.concatenate([entries, numbers[d - 1][disks.cells]]) if len(disks) else entries,
                    np.concatenate([level.enters, np.full(len(disks), 2 * begin)]),
                    np.concatenate([level.leaves, disks.births]),
                    np.concatenate([disk_numbers, level.ascending]),
                    np.concatenate([level.coned, disk_numbers]),
                    staying,
                )
            )
        found, handed = bars_of_cone(levels, dimensions)
        bars.append(found[:, (found[0] >= 1) & (found[0] <= max_dimension)])
        if is_last:
            return np.concatenate(bars, axis=1)
        alive = {d: Chains(c.starts, chosen[d][c.cells].astype(np.int32), c.births) for d, c in handed.items()}
        new_from, begin = end + 1, end
