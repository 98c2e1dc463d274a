# mypy: disable-error-code="no-untyped-def"
"""The smallest entries of rows. Kernels for numba, hence without annotations."""

from topo_callback.homology.jit_kernels import kernel


@kernel
def smallest_of_rows(values, first_row, found, best):
    """Columns of the found.shape[1] smallest entries of every row, nearest first, ties by column.

    Row r stands for point first_row + r, whose own column is left out. NaN counts as larger than everything. `best` is
    working space of k entries.
    """
    k = best.size
    for row in range(values.shape[0]):
        filled = 0
        for column in range(values.shape[1]):
            value = values[row, column]
            # Strictly smaller: of equal entries the earlier column stays.
            if column == first_row + row or (filled == k and not value < best[k - 1]):
                continue
            place = filled if filled < k else k - 1
            while place > 0 and (value < best[place - 1] or best[place - 1] != best[place - 1]):
                best[place] = best[place - 1]
                found[row, place] = found[row, place - 1]
                place -= 1
            best[place] = value
            found[row, place] = column
            filled = min(filled + 1, k)
