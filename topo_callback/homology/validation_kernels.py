# mypy: disable-error-code="no-untyped-def"
"""Search for the first bad entry of a distance matrix. Kernels for numba, hence without annotations."""

from topo_callback.homology.jit_kernels import kernel

TILE = 64


@kernel
def is_distance_matrix(distances, first_row, last_row):
    """Whether rows [first_row, last_row) hold a zero diagonal and, from the diagonal on, equal non-negative pairs."""
    points = distances.shape[0]
    for row_start in range(first_row, last_row, TILE):
        row_end = min(row_start + TILE, last_row)
        for column_start in range(row_start, points, TILE):
            column_end = min(column_start + TILE, points)
            good = True
            # tiles, because one of the two walks jumps a whole row per entry
            for row in range(row_start, row_end):
                for column in range(column_start, column_end):
                    value = distances[row, column]
                    good &= (value >= 0) & (value == distances[column, row])
            if not good:
                return False
        for row in range(row_start, row_end):
            if distances[row, row] != 0:
                return False
    return True


@kernel
def first_bad_entry(distances):
    """(row, column) of the first entry, row by row, that no distance matrix has; (-1, -1) where all is well."""
    points = distances.shape[0]
    for row in range(points):
        for column in range(points):
            value = distances[row, column]
            if not (value >= 0) or value != distances[column, row] or (row == column and value != 0):
                return row, column
    return -1, -1
