# mypy: disable-error-code="no-untyped-def"
"""Cutting windows of stages out of a complex and matching classes between them. Kernels for numba: no annotations."""

import numpy as np

from topo_callback.homology.bit_tree_kernels import new_bit_tree, smallest, take_all, toggle
from topo_callback.homology.cone_pairing_kernels import reduce_column, with_space
from topo_callback.homology.jit_kernels import kernel


@kernel
def chosen_columns(starts, entries, chosen, numbers):
    """The columns of the chosen cells, entries renumbered: (starts, entries)."""
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
def parts_of_columns(pool, begins, ends, below):
    """The entries less than `below` of the pieces pool[begins[i]:ends[i]]: (starts, entries)."""
    starts = np.zeros(begins.size + 1, np.int64)
    for piece in range(begins.size):
        many = 0
        for place in range(begins[piece], ends[piece]):
            if pool[place] < below:
                many += 1
        starts[piece + 1] = starts[piece] + many
    entries = np.empty(starts[-1], np.int64)
    used = 0
    for piece in range(begins.size):
        for place in range(begins[piece], ends[piece]):
            if pool[place] < below:
                entries[used] = pool[place]
                used += 1
    return starts, entries


@kernel
def match_classes(chain_starts, chain_rows, owner, pool, column_starts, column_lengths, level_of_row, levels):
    """Pair the classes of a flag with those of another one: (owner of levels, pool, starts, lengths)."""
    words, offsets = new_bit_tree(owner.size)
    level_words, level_offsets = new_bit_tree(levels)
    chains = chain_starts.size - 1
    matched = np.full(levels, -1, np.int32)
    starts = np.zeros(chains, np.int64)
    lengths = np.zeros(chains, np.int64)
    found = np.empty(1024, np.int32)
    used = 0
    adds=0
    for chain in range(chains):
        for place in range(chain_starts[chain], chain_starts[chain + 1]):
            toggle(words, offsets, chain_rows[place])
        begin = used
        row = smallest(words, offsets)
        while row >= 0:
            added = owner[row]
            for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
                toggle(words, offsets, pool[place])
            adds+=1
            if level_of_row[row] >= 0:
                found = with_space(found, used, 1)
                found[used] = level_of_row[row]
                used += 1
            row = smallest(words, offsets)
        found, used = reduce_column(
            chain, found, begin, used, matched, starts, lengths, level_words, level_offsets
        )
    return matched, found, starts, lengths, adds


@kernel
def sums_of_chains(owner, columns, pool, starts, lengths, chain_of_level, chain_starts, chain_cells, cells, tidy):
    """For each of the given columns the sum of the chains of its levels: (starts, cells)."""
    words, offsets = new_bit_tree(cells)
    lw, lo = new_bit_tree(owner.size)
    sums_starts = np.zeros(columns.size + 1, np.int64)
    sums = np.empty(1024, np.int32)
    used = 0
    tot=0
    for number in range(columns.size):
        column = columns[number]
        for place in range(starts[column], starts[column] + lengths[column]):
            level = pool[place]
            chain = chain_of_level[level]
            if chain >= 0:
                tot+=1
                for link in range(chain_starts[chain], chain_starts[chain + 1]):
                    toggle(words, offsets, chain_cells[link])
        sums, used = take_all(words, offsets, sums, used)
        sums_starts[number + 1] = used
    return sums_starts, sums[:used], tot
