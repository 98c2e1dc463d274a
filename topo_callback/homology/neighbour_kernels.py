# mypy: disable-error-code="no-untyped-def"
"""Nearest points from rows of distances, and from rounded products of a cloud. Kernels for numba: no annotations.

A *value* is |y|² - 2<x, y> of two centred rows, which is a squared distance less the |x|² that a whole row shares. It
is computed in low precision, so it only says which points may be among the nearest; `bounds` say how far it may be off.
"""

import math

import numpy as np

from topo_callback.homology.jit_kernels import kernel

TOO_MANY, DECIDED = -1, -2  # in place of a number of candidates
LINES = 8  # rows that are put together at once from a triangle
SUMS = 32  # partial sums of one distance: so many that a processor adds several at a time


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


@kernel
def column_sums(cloud, sums):
    """The sum of every column, added in float64."""
    sums[:] = 0.0
    for row in range(cloud.shape[0]):
        for column in range(cloud.shape[1]):
            sums[column] += cloud[row, column]


@kernel
def subtract(cloud, centre, rows):
    """rows = cloud - centre; the largest magnitude in each column is returned."""
    largest = np.zeros(cloud.shape[1], rows.dtype)
    for row in range(cloud.shape[0]):
        for column in range(cloud.shape[1]):
            rows[row, column] = cloud[row, column] - centre[column]
            size = abs(rows[row, column])
            largest[column] = size if size > largest[column] else largest[column]
    return largest


@kernel
def scale_rows(rows, factor, squares):
    """Multiply all rows by a factor, and add the squares of each in float64."""
    width = rows.shape[1]
    whole = width - width % SUMS
    sums = np.empty(SUMS)
    for row in range(rows.shape[0]):
        sums[:] = 0.0
        for start in range(0, whole, SUMS):
            part = rows[row, start : start + SUMS]
            for place in range(SUMS):
                part[place] *= factor
                sums[place] += np.float64(part[place]) * np.float64(part[place])
        for column in range(whole, width):
            rows[row, column] *= factor
            sums[column - whole] += np.float64(rows[row, column]) * np.float64(rows[row, column])
        squares[row] = sums.sum()


@kernel
def candidates_of_rows(products, squares, points, rows, k, groups, bounds, candidates, counts):
    """Columns that may be among the nearest k of each row in the range `rows`, found in so many groups of columns.

    products[r] are the products of point points[r] with all points; they become values. Every true neighbour is a
    candidate. counts[r] is their number, TOO_MANY where they are too many for the columns of `candidates`, or DECIDED
    where they are the nearest k in their order.
    """
    least, nearest = np.empty(groups, products.dtype), np.empty(k, products.dtype)
    values = np.empty(candidates.shape[1], products.dtype)
    for row in range(*rows):
        line, point = products[row], points[row]
        _to_values(line, squares)
        least_of_groups(line, point, least)
        # Of k groups the least value is at most this, hence the k-th smallest of all values is, too.
        limit = _limit(kth_smallest(least, groups, nearest), squares[point], bounds)
        found = 0
        for group in range(groups):
            if least[group] <= limit:
                for column in range(group, line.size, groups):
                    if line[column] <= limit and column != point:
                        if found < values.size:
                            values[found], candidates[row, found] = line[column], column
                        found += 1
        if found > values.size:
            counts[row] = TOO_MANY
            continue
        limit = _limit(kth_smallest(values, found, nearest), squares[point], bounds)
        kept = 0
        for place in range(found):
            if values[place] <= limit:
                values[kept], candidates[row, kept] = values[place], candidates[row, place]
                kept += 1
        decided = kept == k and _far_apart(values, candidates[row], k, squares[point], bounds)
        counts[row] = DECIDED if decided else kept


@kernel
def _far_apart(values, columns, count, own, bounds):
    """Sort the first `count` columns by value, and say whether their distances can have no other order."""
    for index in range(1, count):
        value, column, place = values[index], columns[index], index
        while place > 0 and value < values[place - 1]:
            values[place], columns[place] = values[place - 1], columns[place - 1]
            place -= 1
        values[place], columns[place] = value, column
    apart = True
    for index in range(1, count):
        apart &= values[index] > _limit(values[index - 1], own, bounds)
    return apart


@kernel
def candidates_of_triangle(triangle, height, squares, points, rows, k, groups, bounds, candidates, counts):
    """As `candidates_of_rows`, for points that are the rows, from products that are there once for every two points.

    Args:
        triangle: the products on and above the diagonal, in blocks of `height` rows one after another; a block begins
            at the column of its first row.
    """
    lines = np.empty((LINES, squares.size), triangle.dtype)
    for first in range(rows[0], rows[1], LINES):
        end = min(first + LINES, rows[1])
        for row in range(first, end):
            _line_from_diagonal(triangle, height, row, lines[row - first])
        _lines_before_diagonal(triangle, height, first, end, lines)
        some, enough = candidates[first:end], counts[first:end]
        candidates_of_rows(lines, squares, points[first:end], (0, end - first), k, groups, bounds, some, enough)


@kernel
def _block_start(height, points, block):
    """Where a block of a triangle begins: after block * height rows, each block's shorter by `height` than before."""
    return height * (block * points - height * (block * (block - 1) // 2))


@kernel
def _line_from_diagonal(triangle, height, row, line):
    """The part of a row that its own block has."""
    points, block = line.size, row // height
    left, width = block * height, points - block * height
    start = _block_start(height, points, block) + (row - left) * width
    part, beyond = line[left:], triangle[start : start + width]
    for place in range(width):
        part[place] = beyond[place]


@kernel
def _lines_before_diagonal(triangle, height, first, end, lines):
    """What is left of some rows: columns of earlier blocks. A few rows at once, as they lie side by side there."""
    points = lines.shape[1]
    for row in range(first, end):
        block = row // height
        if row > first and block == (row - 1) // height:
            continue
        last = min(end, (block + 1) * height)
        for other in range(block):
            left, width = other * height, points - other * height
            start = _block_start(height, points, other) + row - left
            for column in range(left, left + height):
                for place in range(last - row):
                    lines[row - first + place, column] = triangle[start + place]
                start += width


@kernel
def rank_candidates(cloud, points, rows, candidates, counts, found, reach):
    """The nearest of the candidates of each row in the range `rows`, by exact distance, ties by index.

    reach[r] becomes the distance of the last one, but where the candidates are DECIDED. Rows with TOO_MANY are left
    alone.
    """
    k = found.shape[1]
    nearest, sums, distance = np.empty(k, cloud.dtype), np.empty(SUMS), np.empty(1, cloud.dtype)
    for row in range(*rows):
        filled, point = 0, points[row]
        if counts[row] == DECIDED:
            for place in range(k):
                found[row, place] = candidates[row, place]
        for place in range(counts[row]):
            column = candidates[row, place]
            if column != point:
                distance[0] = math.sqrt(_square(cloud, point, column, sums))
                filled = offer(nearest, found[row], filled, distance[0], column)
        if filled == k:
            reach[row] = nearest[k - 1]


@kernel
def rank_rows(cloud, points, products, squares, rows, bounds, found):
    """The nearest points of each row in the range `rows`, by exact distance wherever the values leave a doubt."""
    k = found.shape[1]
    nearest, sums, distance = np.empty(k, cloud.dtype), np.empty(SUMS), np.empty(1, cloud.dtype)
    least = np.empty(k, squares.dtype)
    for row in range(*rows):
        filled, line, point = 0, products[row], points[row]
        _to_values(line, squares)
        line[point] = np.inf
        limit = _limit(kth_smallest(line, line.size, least), squares[point], bounds)
        for column in range(line.size):
            if line[column] <= limit and column != point:
                distance[0] = math.sqrt(_square(cloud, point, column, sums))
                filled = offer(nearest, found[row], filled, distance[0], column)
                if filled == k and nearest[k - 1] == 0:
                    break  # later columns are no nearer, and ties go to the earlier ones


@kernel
def rank_directly(cloud, points, rows, found):
    """The nearest points of each row in the range `rows` by exact distances alone."""
    k = found.shape[1]
    nearest, sums, distance = np.empty(k, cloud.dtype), np.empty(SUMS), np.empty(1, cloud.dtype)
    for row in range(*rows):
        filled, point = 0, points[row]
        for column in range(cloud.shape[0]):
            if column != point:
                distance[0] = math.sqrt(_square(cloud, point, column, sums))
                filled = offer(nearest, found[row], filled, distance[0], column)
                if filled == k and nearest[k - 1] == 0:
                    break


@kernel
def _to_values(line, squares):
    for column in range(line.size):
        line[column] = squares[column] - (line[column] + line[column])


@kernel
def _limit(kth, own, bounds):
    """No neighbour has a larger value: kth is the k-th smallest value or more, own the |x|² of the row.

    With d a distance, the values plus |x|² are within error * (3 |x|² + 2 d²) + tiny of d², and distances whose squares
    differ by less than the share `slack` may be equal when rounded.
    """
    error, slack, tiny = bounds
    kth, own = np.float64(kth), np.float64(own)
    fixed = 3 * error * own + tiny
    square = (kth + own + fixed) / (1 - 2 * error) * (1 + slack) + tiny
    return square * (1 + 2 * error) + fixed - own


@kernel
def _square(cloud, one, other, sums):
    """The squared distance of two points in float64, always added in the same order."""
    width = cloud.shape[1]
    total = 0.0
    if width < SUMS:
        for column in range(width):
            difference = np.float64(cloud[one, column]) - np.float64(cloud[other, column])
            total += difference * difference
        return total
    whole = width - width % SUMS
    sums[:] = 0.0
    for start in range(0, whole, SUMS):
        first, second = cloud[one, start : start + SUMS], cloud[other, start : start + SUMS]
        for place in range(SUMS):
            difference = np.float64(first[place]) - np.float64(second[place])
            sums[place] += difference * difference
    for column in range(whole, width):
        difference = np.float64(cloud[one, column]) - np.float64(cloud[other, column])
        sums[column - whole] += difference * difference
    for place in range(SUMS):
        total += sums[place]
    return total
