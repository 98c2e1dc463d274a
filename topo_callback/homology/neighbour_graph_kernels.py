# mypy: disable-error-code="no-untyped-def"
"""The smallest entries of rows. Kernels for numba, hence without annotations."""

import numpy as np

from topo_callback.homology.jit_kernels import kernel


@kernel
def smallest_of_rows(values, groups, found):
    """Columns of the found.shape[1] smallest entries of every row, nearest first, ties by column.

    The entry on the diagonal is left out; there is no NaN. Rows are looked through in so many groups of columns.
    """
    k = found.shape[1]
    least, best = np.empty(groups, values.dtype), np.empty(k, values.dtype)
    for row in range(values.shape[0]):
        line = values[row]
        least_of_groups(line, row, least)
        # Of k groups the least entry is at most this, hence the k-th smallest of all entries is, too.
        limit = kth_smallest(least, groups, best)
        filled = 0
        for group in range(groups):
            if least[group] <= limit:
                for column in range(group, line.size, groups):
                    if line[column] <= limit and column != row:
                        filled = offer(best, found[row], filled, line[column], column)


@kernel
def least_of_groups(line, own, least):
    """least[g] = the least entry in the columns g, g + groups, ..., but for the column `own`.

    In this order a processor takes several entries at once.
    """
    groups = least.size
    whole = line.size - line.size % groups
    least[:] = np.inf
    for start in range(0, whole, groups):
        part = line[start : start + groups]
        for group in range(groups):
            least[group] = part[group] if part[group] < least[group] else least[group]
    for column in range(whole, line.size):
        least[column - whole] = min(least[column - whole], line[column])
    group = own % groups
    least[group] = np.inf
    for column in range(group, line.size, groups):
        if column != own:
            least[group] = min(least[group], line[column])


@kernel
def kth_smallest(values, count, smallest):
    """The largest of the smallest.size smallest of the first `count` values; infinite when there are fewer."""
    last = smallest.size - 1
    smallest[:] = np.inf
    for index in range(count):
        value = values[index]
        if value < smallest[last]:
            place = last
            while place > 0 and value < smallest[place - 1]:
                smallest[place] = smallest[place - 1]
                place -= 1
            smallest[place] = value
    return smallest[last]


@kernel
def offer(nearest, found, filled, value, column):
    """Put a column in its place among the nearest by (value, column), if it has one; their number afterwards."""
    k = nearest.size
    place = filled
    if filled == k:
        if value > nearest[k - 1] or (value == nearest[k - 1] and column > found[k - 1]):
            return k
        place = k - 1
    while place > 0 and (value < nearest[place - 1] or (value == nearest[place - 1] and column < found[place - 1])):
        nearest[place] = nearest[place - 1]
        found[place] = found[place - 1]
        place -= 1
    nearest[place] = value
    found[place] = column
    return min(filled + 1, k)
