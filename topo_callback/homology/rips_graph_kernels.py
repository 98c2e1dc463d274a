# mypy: disable-error-code="no-untyped-def"
"""Edges of a cloud in their total order, and the sparse graphs made of them. Kernels for numba.

Distances come as `keys`: uint32 [points, points] of the same order as the distances. An edge (a, b), a < b, has the
code a << 16 | b, and comes before another one when its (key, code) is smaller: one total order, the same everywhere.
"""

import numpy as np

from topo_callback.homology.jit_kernels import kernel

MOST_POINTS = 1 << 16
BINS = 1 << 12


@kernel
def row_statistics(keys, totals, longest, first_row, last_row):
    """Write each row's sum and its greatest entry; the bit patterns of floats may carry the sign of -0."""
    points = keys.shape[1]
    for row in range(first_row, last_row):
        total = np.uint64(0)
        greatest = np.uint32(0)
        for column in range(points):
            key = keys[row, column] & np.uint32(0x7FFFFFFF)
            total += np.uint64(key)
            greatest = max(greatest, key)
        totals[row] = total
        longest[row] = greatest


@kernel
def relabelled_rows(keys, order, relabelled, first_row, last_row):
    """Write keys[order[row], order[column]] to rows [first_row, last_row) of `relabelled`."""
    points = keys.shape[0]
    for row in range(first_row, last_row):
        source = order[row]
        for column in range(points):
            relabelled[row, column] = keys[source, order[column]] & np.uint32(0x7FFFFFFF)


@kernel
def count_edges(keys, cut, floor, shift, first_row, last_row):
    """How many edges of rows [first_row, last_row) fall into each of BINS bins of width 2**shift above `floor`."""
    points = keys.shape[0]
    counts = np.zeros(BINS, np.int64)
    for row in range(first_row, last_row):
        for column in range(row + 1, points):
            key = keys[row, column]
            if key <= cut:
                counts[(max(key, floor) - floor) >> shift] += 1
    return counts


@kernel
def deal_edges(keys, cut, floor, shift, bucket_of_bin, places, codes, first_row, last_row):
    """Write the codes of the edges of rows [first_row, last_row) to their buckets, ascending; moves `places` on."""
    points = keys.shape[0]
    for row in range(first_row, last_row):
        for column in range(row + 1, points):
            key = keys[row, column]
            if key <= cut:
                bucket = bucket_of_bin[(max(key, floor) - floor) >> shift]
                codes[places[bucket]] = (row << 16) | column
                places[bucket] += 1


@kernel
def sort_bucket(keys, codes, start, end):
    """Sort the ascending codes of one bucket by key, in place: least significant digit first, which is stable."""
    size = end - start
    if size < 2:
        return
    values, target_values = np.empty(size, keys.dtype), np.empty(size, keys.dtype)
    lowest = highest = keys[codes[start] >> 16, codes[start] & 0xFFFF]
    for place in range(size):
        code = codes[start + place]
        key = keys[code >> 16, code & 0xFFFF]
        values[place] = key
        lowest = min(lowest, key)
        highest = max(highest, key)
    spread = np.uint64(highest - lowest)
    source_codes, target_codes = codes[start:end], np.empty(size, np.uint32)
    bits = 0
    while bits < 64 and spread >> np.uint64(bits) > 0:
        bits += 1
    # short digits cost less each, long ones are fewer
    digit_bits = 8 if size < 1024 or (bits + 7) // 8 == (bits + 10) // 11 else 11
    passes = 0
    counts = np.empty(1 << digit_bits, np.int64)
    mask = np.uint64((1 << digit_bits) - 1)
    while passes * digit_bits < bits:
        shift = np.uint64(passes * digit_bits)
        counts[:] = 0
        for place in range(size):
            counts[(np.uint64(values[place] - lowest) >> shift) & mask] += 1
        total = 0
        for digit in range(counts.size):
            total, counts[digit] = total + counts[digit], total
        for place in range(size):
            bin_of = (np.uint64(values[place] - lowest) >> shift) & mask
            target = counts[bin_of]
            counts[bin_of] = target + 1
            target_values[target] = values[place]
            target_codes[target] = source_codes[place]
        values, target_values = target_values, values
        source_codes, target_codes = target_codes, source_codes
        passes += 1
    if passes % 2 == 1:
        for place in range(size):
            codes[start + place] = source_codes[place]


@kernel
def packed_triangle(distances):
    """The entries above the diagonal, row by row."""
    points = distances.shape[0]
    values = np.empty(points * (points - 1) // 2, distances.dtype)
    place = 0
    for row in range(points):
        for column in range(row + 1, points):
            values[place] = distances[row, column]
            place += 1
    return values


@kernel
def rank_keys(values, order, points):
    """(keys, values by key): uint32 [points, points] dense ranks from 1 on of the entries above the diagonal."""
    ranks = np.empty(order.size, np.uint32)
    distinct = np.empty(order.size + 1, values.dtype)
    distinct[0] = 0
    rank = 0
    for place in order:
        if rank == 0 or values[place] != distinct[rank]:
            rank += 1
            distinct[rank] = values[place]
        ranks[place] = rank
    keys = np.zeros((points, points), np.uint32)
    place = 0
    for row in range(points):
        for column in range(row + 1, points):
            keys[row, column] = ranks[place]
            keys[column, row] = ranks[place]
            place += 1
    return keys, distinct[: rank + 1].copy()


@kernel
def neighbour_count(points):
    """How many near points are worth a look: more find more shortcuts, but take longer to find themselves."""
    return min(points - 1, 8 if points >= 256 else 4)


@kernel
def precedes(keys, first, second, key, code):
    """Whether the edge between two points comes before the edge of the given key and code."""
    other = keys[first, second]
    if other != key:
        return other < key
    low, high = min(first, second), max(first, second)
    return ((low << 16) | high) < code


@kernel
def spanning_forest(codes, points):
    """Whether each edge, given in order, closes a cycle rather than merging two components."""
    parent = np.empty(points, np.int64)
    for point in range(points):
        parent[point] = point
    closes = np.empty(codes.size, np.bool_)
    for place in range(codes.size):
        first = _root(parent, np.int64(codes[place] >> 16))
        second = _root(parent, np.int64(codes[place] & 0xFFFF))
        closes[place] = first == second
        parent[first] = second
    return closes


@kernel
def _root(parent, point):
    while parent[point] != point:
        parent[point] = parent[parent[point]]
        point = parent[point]
    return point


@kernel
def spanning_tree(lengths):
    """(edges' lengths, points in the order in which they are reached from point 0, the point by which each is joined).

    Prim's algorithm: the i-th edge joins the (i + 1)-th point to an earlier one. Ties go to the lower index.
    """
    points = lengths.shape[0]
    outside = lengths[0].copy()
    joined_by = np.zeros(points, np.int64)
    inside = np.zeros(points, np.bool_)
    order = np.zeros(points, np.int64)
    found = np.empty(max(0, points - 1), lengths.dtype)
    current = 0
    for edge in range(points - 1):
        inside[current] = True
        following = -1
        for point in range(points):
            if inside[point]:
                continue
            if lengths[current, point] < outside[point]:
                outside[point] = lengths[current, point]
                joined_by[point] = current
            if following < 0 or outside[point] < outside[following]:
                following = point
        current = following
        found[edge] = outside[current]
        order[edge + 1] = current
    return found, order, joined_by[order[1:]]


@kernel
def tree_keys(keys, cut):
    """The keys up to `cut` of a minimum spanning forest, in the order in which they are found."""
    found = spanning_tree(keys)[0]
    return found[found <= cut]
