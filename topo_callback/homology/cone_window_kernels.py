# mypy: disable-error-code="no-untyped-def"
"""Cutting windows of stages out of a complex, and matching classes between them. Kernels for numba: no annotations.

Sets of columns or chains are flat: number c is entries[starts[c] : starts[c + 1]].
"""

import numpy as np

from topo_callback.homology.bit_tree_kernels import new_bit_tree, take_all, toggle
from topo_callback.homology.cone_pairing_kernels import flip, next_in, reduce_column, with_space
from topo_callback.homology.jit_kernels import kernel


@kernel
def chosen_columns(starts, entries, chosen, numbers):
    """The columns of the chosen cells, their entries renumbered: (starts, entries)."""
    chosen_starts = np.zeros(chosen.size + 1, np.int64)
    for place in range(chosen.size):
        cell = chosen[place]
        chosen_starts[place + 1] = chosen_starts[place] + starts[cell + 1] - starts[cell]
    chosen_entries = np.empty(chosen_starts[-1], np.int32)
    used = 0
    for cell in chosen:
        for place in range(starts[cell], starts[cell + 1]):
            chosen_entries[used] = numbers[entries[place]]
            used += 1
    return chosen_starts, chosen_entries


@kernel
def parts_of_columns(pool, begins, ends, limit):
    """The entries below `limit` in pool[begins[i] : ends[i]] for all i: (starts, entries)."""
    starts = np.zeros(begins.size + 1, np.int64)
    for part in range(begins.size):
        starts[part + 1] = starts[part]
        for place in range(begins[part], ends[part]):
            if pool[place] < limit:
                starts[part + 1] += 1
    entries = np.empty(starts[-1], np.int64)
    used = 0
    for part in range(begins.size):
        for place in range(begins[part], ends[part]):
            if pool[place] < limit:
                entries[used] = pool[place]
                used += 1
    return starts, entries


@kernel
def match_classes(chain_starts, chain_rows, owner, pool, column_starts, column_lengths, level_of_row, levels):
    """Match the classes of one flag of a stage's homology with those of another: the relative position of two flags.

    The first flag is spanned by cycles, the lowest first; the second by the reduced columns whose pivots have a level,
    level 0 on top; those without one are boundaries. Each cycle is written in columns, then reduced by lower cycles
    until its top level is its own. Returns (matched, pool, starts, lengths): matched[level] is the cycle, and the
    levels of cycle c are pool[starts[c] : starts[c] + lengths[c]].
    """
    words = np.zeros((owner.size + 63) // 64, np.uint64)
    level_words, level_offsets = new_bit_tree(levels)
    cycles = chain_starts.size - 1
    matched = np.full(levels, -1, np.int32)
    starts = np.zeros(cycles, np.int64)
    lengths = np.zeros(cycles, np.int64)
    found = np.empty(1024, np.int32)
    used = 0
    for cycle in range(cycles):
        begin = used
        for place in range(chain_starts[cycle], chain_starts[cycle + 1]):
            flip(words, chain_rows[place])
        row = next_in(words, 0)
        while row >= 0:
            added = owner[row]
            for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
                flip(words, pool[place])
            if level_of_row[row] >= 0:
                found = with_space(found, used, 1)
                found[used] = level_of_row[row]
                used += 1
            row = next_in(words, row >> 6)
        found, used = reduce_column(cycle, found, begin, used, matched, starts, lengths, level_words, level_offsets)
    return matched, found, starts, lengths


@kernel
def staying_levels(cycles, matched, pool, starts, lengths, stays):
    """The levels that stay in each of the given cycles, after adding lower cycles so that few remain: (starts, levels).

    A cycle loses every level that is matched to a lower one; what lower cycles add is counted by then.
    """
    level_starts = np.zeros(cycles.size + 1, np.int64)
    begins = np.zeros(starts.size, np.int64)
    ends = np.zeros(starts.size, np.int64)
    levels = np.empty(1024, np.int32)
    used = 0
    is_odd = np.zeros(matched.size, np.bool_)
    for number in range(cycles.size):
        cycle = cycles[number]
        begins[cycle] = used
        top = matched.size
        for place in range(starts[cycle], starts[cycle] + lengths[cycle]):
            is_odd[pool[place]] = stays[pool[place]]
            top = min(top, np.int64(pool[place]))
        for level in range(top, matched.size):
            if not is_odd[level]:
                continue
            lower = matched[level]
            if lower < cycle:
                for place in range(begins[lower], ends[lower]):
                    is_odd[levels[place]] ^= True
            else:
                is_odd[level] = False
                levels = with_space(levels, used, 1)
                levels[used] = level
                used += 1
        ends[cycle] = used
        level_starts[number + 1] = used
    return level_starts, levels[:used]


@kernel
def sums_of_chains(sum_starts, sum_chains, chain_starts, chain_cells, cells):
    """Sums over Z/2 of chains of cells below `cells`: sum s is of the chains sum_chains[sum_starts[s] : ...]."""
    words, offsets = new_bit_tree(cells)
    starts = np.zeros(sum_starts.size, np.int64)
    sums = np.empty(1024, np.int64)
    used = 0
    for number in range(sum_starts.size - 1):
        for place in range(sum_starts[number], sum_starts[number + 1]):
            chain = sum_chains[place]
            for link in range(chain_starts[chain], chain_starts[chain + 1]):
                toggle(words, offsets, chain_cells[link])
        sums, used = take_all(words, offsets, sums, used)
        starts[number + 1] = used
    return starts, sums[:used]
