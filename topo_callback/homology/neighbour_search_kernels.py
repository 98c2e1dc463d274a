# mypy: disable-error-code="no-untyped-def"
"""Nearest points of a cloud from rounded products and exact distances. Kernels for numba, hence without annotations.

A *value* is |y|² - 2<x, y> of two centred rows, which is a squared distance less the |x|² that a whole row shares. It
is computed in low precision, so it only says which points may be among the nearest; `bounds` say how far it may be off.
"""

import math

import numpy as np

from topo_callback.homology.jit_kernels import kernel
from topo_callback.homology.neighbour_graph_kernels import kth_smallest, least_of_groups, offer

SUMS = 32  # partial sums of one distance: so many that a processor adds several at a time


@kernel
def row_squares(rows, squares):
    """The sum of the squares of every row, added in float64."""
    for row in range(rows.shape[0]):
        total = 0.0
        for column in range(rows.shape[1]):
            value = np.float64(rows[row, column])
            total += value * value
        squares[row] = total


@kernel
def candidates_of_rows(products, squares, points, rows, k, groups, bounds, candidates, counts):
    """Columns that may be among the nearest k of each row in the range `rows`, found in so many groups of columns.

    products[r] are the products of point points[r] with all points; they become values. Every true neighbour is a
    candidate. counts[r] is their number, -1 where they are too many for the columns of `candidates`.
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
            counts[row] = -1
            continue
        limit = _limit(kth_smallest(values, found, nearest), squares[point], bounds)
        kept = 0
        for place in range(found):
            if values[place] <= limit:
                candidates[row, kept] = candidates[row, place]
                kept += 1
        counts[row] = kept


@kernel
def rank_candidates(cloud, points, rows, candidates, counts, found, reach):
    """The nearest of the candidates of each row in the range `rows`, by exact distance, ties by index.

    reach[r] becomes the distance of the last one. Rows with a negative count are left alone.
    """
    k = found.shape[1]
    nearest, sums, distance = np.empty(k, cloud.dtype), np.empty(SUMS), np.empty(1, cloud.dtype)
    for row in range(*rows):
        filled, point = 0, points[row]
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
