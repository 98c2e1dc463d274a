# mypy: disable-error-code="no-untyped-def"
"""Cancelling cells against facets with the same run of stages. Kernels for numba, hence without annotations.

Cells of one dimension are numbered so that later cells of the filtration have lower numbers: the pivot of a column is
its smallest entry. Columns live in pools: column c is entries[starts[c] : starts[c] + lengths[c]].
"""

import numpy as np

from topo_callback.homology.bit_tree_kernels import new_bit_tree, smallest, take_all, toggle
from topo_callback.homology.jit_kernels import grown, kernel

ODD = np.uint8(1)
TOUCHED = np.uint8(2)


@kernel
def toggle_column(words, offsets, column, facets, entries, starts, lengths):
    """Add a column to the set: its entries where it has been reduced, its facets where not."""
    if starts[column] < 0:
        for place in range(facets.shape[1]):
            toggle(words, offsets, facets[column, place])
    else:
        for place in range(starts[column], starts[column] + lengths[column]):
            toggle(words, offsets, entries[place])


@kernel
def pair_equal_runs(lower_first, lower_last, first, last, facets, is_lower_half):
    """Pair cells with facets of the same run by reducing columns within each run.

    Such a pair enters and leaves together, so it bears no bar and can be cancelled from the complex: the algebraic form
    of a filtered Morse matching, which leaves no pair of equal runs that are facet and cofacet. Cells that are the
    lower half of a pair one dimension up are skipped.

    Returns (owner, is_upper_half, starts, lengths, entries): owner[f] is the cell paired with facet f or -1; the
    columns that were changed lie in the pool entries, all others have starts -1 and are their facets.
    """
    count = facets.shape[0]
    owner = np.full(lower_first.size, -1, np.int32)
    is_upper_half = np.zeros(count, np.bool_)
    starts = np.full(count, -1, np.int64)
    lengths = np.zeros(count, np.int64)
    entries = np.empty(1024, np.int32)
    used = 0
    words, offsets = new_bit_tree(lower_first.size)
    for cell in range(count - 1, -1, -1):
        if is_lower_half[cell]:
            continue
        pivot = facets[cell, 0]
        for place in range(1, facets.shape[1]):
            pivot = min(pivot, facets[cell, place])
        if lower_first[pivot] != first[cell] or lower_last[pivot] != last[cell]:
            continue
        if owner[pivot] >= 0:
            toggle_column(words, offsets, cell, facets, entries, starts, lengths)
            pivot = smallest(words, offsets)
            while pivot >= 0 and lower_first[pivot] == first[cell] and lower_last[pivot] == last[cell]:
                if owner[pivot] < 0:
                    break
                toggle_column(words, offsets, owner[pivot], facets, entries, starts, lengths)
                pivot = smallest(words, offsets)
            starts[cell] = used
            entries, used = take_all(words, offsets, entries, used)
            lengths[cell] = used - starts[cell]
            if pivot < 0 or lower_first[pivot] != first[cell] or lower_last[pivot] != last[cell]:
                continue
        owner[pivot] = cell
        is_upper_half[cell] = True
    return owner, is_upper_half, starts, lengths, entries


@kernel
def critical_numbers(is_lower_half, is_upper_half):
    """New numbers, in the same order, of the cells that are in no pair; -1 for the others."""
    numbers = np.full(is_lower_half.size, -1, np.int32)
    count = 0
    for cell in range(is_lower_half.size):
        if not is_lower_half[cell] and not is_upper_half[cell]:
            numbers[cell] = count
            count += 1
    return numbers, count


@kernel
def critical_columns(owner, lower_numbers, lower_count, numbers, count, facets, starts, lengths, entries):
    """Boundaries of the critical cells in the complex left when all pairs are cancelled: (starts, entries).

    Cancelling a pair (facet, cell) replaces the facet by the rest of the cell's boundary and forgets the cell. Facets
    are replaced from the longest run on, so that what replaces them is already in critical cells. One loop for both,
    facets first: calls with so many arrays would take longer than what they do.
    """
    chain_starts = np.zeros(owner.size, np.int64)
    chain_ends = np.zeros(owner.size, np.int64)
    column_starts = np.zeros(count + 1, np.int64)
    pool = np.empty(4 * (owner.size + numbers.size) + 1024, np.int32)
    used = first_column = 0
    marks = np.zeros(lower_count, np.uint8)
    touched = np.empty(lower_count, np.int32)
    for turn in range(owner.size + numbers.size):
        if turn < owner.size:
            without = owner.size - 1 - turn
            cell = owner[without]
            if cell < 0:
                continue
            chain_starts[without] = used
        else:
            if turn == owner.size:
                first_column = used
            without = -1
            cell = turn - owner.size
            if numbers[cell] < 0:
                continue
        many = 0
        reduced = starts[cell] >= 0
        for place in range(lengths[cell] if reduced else facets.shape[1]):
            facet = entries[starts[cell] + place] if reduced else facets[cell, place]
            if facet == without:
                continue
            number = lower_numbers[facet]
            if number >= 0:
                many = flip(number, marks, touched, many)
            elif owner[facet] >= 0:
                for link in range(chain_starts[facet], chain_ends[facet]):
                    many = flip(pool[link], marks, touched, many)
        if used + many > pool.size:
            pool = grown(pool, used, 2 * (used + many))
        for place in range(many):
            number = touched[place]
            if marks[number] & ODD:
                pool[used] = number
                used += 1
            marks[number] = 0
        if without >= 0:
            chain_ends[without] = used
        else:
            column_starts[numbers[cell] + 1] = used - first_column
    if numbers.size == 0:
        first_column = used
    return column_starts, pool[first_column:used].copy()


@kernel
def flip(number, marks, touched, many):
    """Put a number in when it is out, take it out when it is in; how many have been touched."""
    mark = marks[number]
    if not mark & TOUCHED:
        touched[many] = number
        many += 1
    marks[number] = (mark ^ ODD) | TOUCHED
    return many
