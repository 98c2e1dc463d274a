# mypy: disable-error-code="no-untyped-def"
"""Reducing the boundary columns of the cone of a complex, dimension by dimension. Kernels for numba: no annotations.

Rows are numbered from the last of the filtration to the first, so that the pivot of a column is its smallest entry:
first the cones over the cells two dimensions lower, then the cells one dimension lower. Columns live in a pool: column
c is pool[column_starts[c] : column_starts[c] + column_lengths[c]].
"""

import numpy as np

from topo_callback.homology.bit_tree_kernels import new_bit_tree, smallest, take_all, toggle
from topo_callback.homology.jit_kernels import kernel


@kernel
def pair_in_cone(
    starts, entries, ascending_order, lower_starts, lower_entries, coned_order, ascending_row, coned_row, is_cleared, marked
):
    """Reduce the columns of one dimension of the cone: (owner, pool, column_starts, column_lengths, mark_ends).

    Columns are the cells of this dimension in ascending order, then the cones over the cells one dimension lower in
    theirs. The boundary of a cone is its base plus the cones over the base's boundary. Cleared columns are those known
    to be rows of pairs one dimension up.
    """
    cells = ascending_order.size
    columns = cells + coned_order.size
    rows = ascending_row.size + coned_row.size
    owner = np.full(rows, -1, np.int32)
    column_starts = np.zeros(columns, np.int64)
    column_lengths = np.zeros(columns, np.int64)
    words, offsets = new_bit_tree(2 * rows if marked else rows)
    pool, used = reduce_ascending(
        starts,
        entries,
        ascending_order,
        ascending_row,
        is_cleared,
        owner,
        column_starts,
        column_lengths,
        words,
        offsets,
    )
    mark_ends = np.zeros(cells + marked, np.int64)
    for column in range(cells, columns):
        if column == cells + marked:
            cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows)
        if is_cleared[column]:
            continue
        begin = used
        cell = coned_order[column - cells]
        pool = with_space(pool, used, lower_starts[cell + 1] - lower_starts[cell] + 1)
        for place in range(lower_starts[cell], lower_starts[cell + 1]):
            pool[used] = coned_row[lower_entries[place]]
            used += 1
        pool[used] = ascending_row[cell]
        used += 1
        if column < cells + marked:
            pool, used = with_marks(pool, used - 1, used, rows)
        pool, used = reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets)
    if columns == cells + marked:
        cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows)
    return owner, pool, column_starts, column_lengths, mark_ends


@kernel
def with_marks(pool, begin, used, rows):
    """Append the marks of the entries pool[begin:used]: (pool, used)."""
    pool = with_space(pool, used, used - begin)
    end = used
    for place in range(begin, end):
        pool[used] = pool[place] + rows
        used += 1
    return pool, used


@kernel
def cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows):
    """Shorten the marked columns by their marks, which come last."""
    for column in range(cells, mark_ends.size):
        begin = column_starts[column]
        length = column_lengths[column]
        mark_ends[column] = begin + length
        while length > 0 and pool[begin + length - 1] >= rows:
            length -= 1
        column_lengths[column] = length


@kernel
def reduce_ascending(
    starts, entries, ascending_order, ascending_row, is_cleared, owner, column_starts, column_lengths, words, offsets
):
    """Reduce the columns of the cells themselves, in ascending order: (pool, its used length)."""
    pool = np.empty(4096, np.int32)
    used = 0
    for column in range(ascending_order.size):
        if is_cleared[column]:
            continue
        begin = used
        cell = ascending_order[column]
        pool = with_space(pool, used, starts[cell + 1] - starts[cell])
        for place in range(starts[cell], starts[cell + 1]):
            pool[used] = ascending_row[entries[place]]
            used += 1
        pool, used = reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets)
    return pool, used


@kernel
def reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets):
    """Reduce the column pool[begin:used] and keep it at its pivot, or forget it when it becomes 0: (pool, used)."""
    if begin == used:
        return pool, used
    pivot = np.int64(pool[begin])
    for place in range(begin + 1, used):
        pivot = min(pivot, np.int64(pool[place]))
    if owner[pivot] >= 0:
        for place in range(begin, used):
            toggle(words, offsets, pool[place])
        while pivot >= 0 and owner[pivot] >= 0:
            added = owner[pivot]
            for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
                toggle(words, offsets, pool[place])
            pivot = smallest(words, offsets)
        pool, used = take_all(words, offsets, pool, begin)
    if used > begin:
        owner[pivot] = column
        column_starts[column] = begin
        column_lengths[column] = used - begin
    return pool, used


@kernel
def with_space(pool, used, more):
    """The pool, larger when fewer than `more` entries are free."""
    if used + more <= pool.size:
        return pool
    larger = np.empty(2 * (used + more), pool.dtype)
    larger[:used] = pool[:used]
    return larger
