# mypy: disable-error-code="no-untyped-def"
"""From cells with runs to the pairs of a zigzag barcode. Kernels for numba, hence without annotations.

Cells of one dimension are numbered so that later cells of the filtration have lower numbers: the pivot of a column is
its smallest entry. Columns live in pools: column c is entries[starts[c] : starts[c] + lengths[c]].
"""

import numpy as np

from topo_callback.homology.bit_kernels import trailing_zeros
from topo_callback.homology.jit_kernels import kernel

SHIFT = np.uint64(6)
SIX_BITS = np.uint64(63)
ONE = np.uint64(1)
ODD = np.uint8(1)
TOUCHED = np.uint8(2)


@kernel
def new_bit_tree(size):
    """A set of numbers below `size` with fast smallest element: (words, offsets of its levels, leaves first)."""
    offsets = np.zeros(12, np.int64)
    level = 0
    width = size
    while True:
        width = (width + 63) // 64
        offsets[level + 1] = offsets[level] + max(width, 1)
        level += 1
        if width <= 1:
            break
    return np.zeros(offsets[level], np.uint64), offsets[: level + 1]


@kernel
def toggle(words, offsets, number):
    """Put the number in when it is out, take it out when it is in."""
    place = np.uint64(number)
    for level in range(offsets.size - 1):
        word = offsets[level] + np.int64(place >> SHIFT)
        before = words[word]
        after = before ^ (ONE << (place & SIX_BITS))
        words[word] = after
        # The levels above only say which words are not empty.
        if (before == 0) == (after == 0):
            return
        place >>= SHIFT


@kernel
def smallest(words, offsets):
    """The smallest number in the set, -1 when it is empty."""
    top = offsets.size - 2
    if words[offsets[top]] == 0:
        return -1
    place = 0
    for level in range(top, -1, -1):
        place = place * 64 + trailing_zeros(words[offsets[level] + place])
    return place


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
def take_all(words, offsets, entries, used):
    """Move the set, smallest first, to the end of the pool: (pool, its used length)."""
    number = smallest(words, offsets)
    while number >= 0:
        if used == entries.size:
            larger = np.empty(2 * entries.size + 16, entries.dtype)
            larger[:used] = entries
            entries = larger
        entries[used] = number
        used += 1
        toggle(words, offsets, number)
        number = smallest(words, offsets)
    return entries, used


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
        pivot = facets[cell].min()
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
    are replaced from the longest run on, so that what replaces them is already in critical cells.
    """
    chain_starts = np.zeros(owner.size + 1, np.int64)
    chain_ends = np.zeros(owner.size + 1, np.int64)
    pool = np.empty(1024, np.int32)
    used = 0
    marks = np.zeros(lower_count, np.uint8)
    touched = np.empty(lower_count, np.int32)
    for facet in range(owner.size - 1, -1, -1):
        if owner[facet] < 0:
            continue
        many = _add_chain(
            owner[facet],
            facet,
            marks,
            touched,
            0,
            owner,
            lower_numbers,
            facets,
            starts,
            lengths,
            entries,
            chain_starts,
            chain_ends,
            pool,
        )
        chain_starts[facet] = used
        pool, used = _flush(marks, touched, many, pool, used)
        chain_ends[facet] = used
    column_starts = np.zeros(count + 1, np.int64)
    column_entries = np.empty(1024, np.int32)
    used = 0
    for cell in range(numbers.size):
        if numbers[cell] < 0:
            continue
        many = _add_chain(
            cell,
            -1,
            marks,
            touched,
            0,
            owner,
            lower_numbers,
            facets,
            starts,
            lengths,
            entries,
            chain_starts,
            chain_ends,
            pool,
        )
        column_entries, used = _flush(marks, touched, many, column_entries, used)
        column_starts[numbers[cell] + 1] = used
    return column_starts, column_entries[:used]


@kernel
def _add_chain(
    cell,
    without,
    marks,
    touched,
    many,
    owner,
    lower_numbers,
    facets,
    starts,
    lengths,
    entries,
    chain_starts,
    chain_ends,
    pool,
):
    """Add the cell's boundary, but for the facet `without`, in critical cells to the odd ones; how many are touched."""
    reduced = starts[cell] >= 0
    width = lengths[cell] if reduced else facets.shape[1]
    for place in range(width):
        facet = entries[starts[cell] + place] if reduced else facets[cell, place]
        if facet == without:
            continue
        number = lower_numbers[facet]
        if number >= 0:
            many = _flip(number, marks, touched, many)
        elif owner[facet] >= 0:
            for link in range(chain_starts[facet], chain_ends[facet]):
                many = _flip(pool[link], marks, touched, many)
    return many


@kernel
def _flip(number, marks, touched, many):
    marks[number] ^= ODD
    if not marks[number] & TOUCHED:
        marks[number] |= TOUCHED
        touched[many] = number
        many += 1
    return many


@kernel
def _flush(marks, touched, many, pool, used):
    for place in range(many):
        mark = marks[touched[place]]
        marks[touched[place]] = 0
        if mark & ODD:
            if used == pool.size:
                larger = np.empty(2 * pool.size, pool.dtype)
                larger[:used] = pool
                pool = larger
            pool[used] = touched[place]
            used += 1
    return pool, used


@kernel
def pair_in_cone(
    starts, entries, ascending_order, lower_starts, lower_entries, coned_order, ascending_row, coned_row, is_cleared
):
    """Reduce the columns of one dimension of the cone; owner[row] is the column paired with the row, or -1.

    Columns are the cells of this dimension in ascending order, then the cones over the cells one dimension lower in
    theirs. The boundary of a cone is its base plus the cones over the base's boundary. Rows are numbered from the last
    of the filtration to the first. Cleared columns are those known to be rows of pairs one dimension up.
    """
    cells = ascending_order.size
    columns = cells + coned_order.size
    rows = ascending_row.size + coned_row.size
    owner = np.full(rows, -1, np.int32)
    column_starts = np.zeros(columns, np.int64)
    column_lengths = np.zeros(columns, np.int64)
    pool = np.empty(4096, np.int32)
    used = 0
    words, offsets = new_bit_tree(rows)
    for column in range(columns):
        if is_cleared[column]:
            continue
        begin = used
        if column < cells:
            cell = ascending_order[column]
            pool = _with_space(pool, used, starts[cell + 1] - starts[cell])
            for place in range(starts[cell], starts[cell + 1]):
                pool[used] = ascending_row[entries[place]]
                used += 1
        else:
            cell = coned_order[column - cells]
            pool = _with_space(pool, used, lower_starts[cell + 1] - lower_starts[cell] + 1)
            for place in range(lower_starts[cell], lower_starts[cell + 1]):
                pool[used] = coned_row[lower_entries[place]]
                used += 1
            pool[used] = ascending_row[cell]
            used += 1
        pivot = rows
        for place in range(begin, used):
            pivot = min(pivot, pool[place])
        if pivot < rows and owner[pivot] >= 0:
            for place in range(begin, used):
                toggle(words, offsets, pool[place])
            while pivot >= 0 and owner[pivot] >= 0:
                added = owner[pivot]
                for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
                    toggle(words, offsets, pool[place])
                pivot = smallest(words, offsets)
            used = begin
            pool, used = take_all(words, offsets, pool, used)
        if used > begin:
            owner[pivot] = column
            column_starts[column] = begin
            column_lengths[column] = used - begin
    return owner


@kernel
def _with_space(pool, used, more):
    if used + more <= pool.size:
        return pool
    larger = np.empty(2 * (used + more), pool.dtype)
    larger[:used] = pool[:used]
    return larger
