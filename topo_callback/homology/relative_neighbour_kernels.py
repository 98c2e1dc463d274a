# mypy: disable-error-code="no-untyped-def"
"""The relative neighbourhood graph of a cloud: the edges whose lune is empty. Kernels for numba.

Distances come as `keys`, square and unsigned, of the same order as the distances; `precedes` is the total order of the
edges. Nearly all edges are discarded by a look at points near one end, a whole row at once in vector registers; the few
that are left are tested against every point.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, kernel
from topo_callback.homology.triangle_kernels import edge_code, greatest_key, lune_exceeds


@kernel
def row_maxima(keys, maxima, first_row, last_row):
    """Write the greatest key of each row."""
    for row in range(first_row, last_row):
        maxima[row] = _greatest(keys[row])


@kernel
def _greatest(values):
    greatest = values[0]
    for place in range(values.size):
        greatest = max(greatest, values[place])
    return greatest


@kernel
def near_rows(keys, nearest, first_row, last_row):
    """Write points near each row's point, nearest first, to `nearest` int32 [points, count]; the first is the nearest.

    Of the points in each of 8 to 32 groups only the nearest one is looked at: minima of whole groups at a time are
    many times faster than an exact selection, and each list is only a choice of witnesses.
    """
    points, count = keys.shape[0], nearest.shape[1]
    none = greatest_key(keys)
    groups = 8 if points < 256 else 16 if points < 1024 else 32
    least, best, lanes = np.empty(groups, keys.dtype), np.empty(count, keys.dtype), np.empty(count, np.int64)
    full = points // groups * groups
    for row in range(first_row, last_row):
        values = keys[row]
        _write_least(values[:full], least)
        for point in range(full, points):
            least[point - full] = min(least[point - full], values[point])
        # the point itself is the nearest of its group
        own = row % groups
        least[own] = none
        for point in range(own, points, groups):
            if point != row:
                least[own] = min(least[own], values[point])
        found = 0
        for lane in range(groups):
            key = least[lane]
            if key == none or (found == count and key >= best[count - 1]):
                continue
            place = found if found < count else count - 1
            while place > 0 and best[place - 1] > key:
                best[place], lanes[place] = best[place - 1], lanes[place - 1]
                place -= 1
            best[place], lanes[place] = key, lane
            found = min(found + 1, count)
        for place in range(count):
            if place >= found:  # fewer groups than places
                nearest[row, place] = nearest[row, 0]
                continue
            point = lanes[place]
            while values[point] != best[place] or point == row:
                point += groups
            nearest[row, place] = point


@kernel
def _write_least(values, least):
    """Write the least of every so many values, as many as `least` has places."""
    groups = least.size
    least[:] = greatest_key(least)
    for start in range(values.size // groups):
        part = values[start * groups : start * groups + groups]
        for lane in range(groups):
            least[lane] = min(least[lane], part[lane])


@kernel
def neighbourhood_edges(keys, nearest, cut, member, members):
    """The codes of the edges up to the key `cut` with an empty lune, of rows member, member + members, ...

    The lune of an edge holds the points whose edges to both its ends come before it. A look at the points near one end
    discards nearly all edges; ties are left for the full test, which knows the total order.
    """
    points = keys.shape[0]
    shortcut, candidates = np.empty(points, keys.dtype), np.empty(points, np.uint32)
    codes = np.empty(4 * points + 16, np.uint32)
    found = 0
    for row in range(member, points, members):
        count = _edges_without_shortcut(keys, nearest, row, cut, shortcut, candidates)
        if found + count > codes.size:
            codes = grown(codes, found, 2 * (found + count))
        for place in range(count):
            codes[found] = (row << 16) | candidates[place]
            found += _has_empty_lune(keys, nearest, row, np.int64(candidates[place]))
    return codes[:found]


@kernel
def _edges_without_shortcut(keys, nearest, row, cut, shortcut, candidates):
    """Write the later ends of the edges of a row that no path through a near point is shorter than; how many.

    A kernel of its own: within a longer one the compiler uses no vector registers.
    """
    points, count, start = keys.shape[0], nearest.shape[1], row + 1
    own = keys[row]
    # the longer edge of the best path of two edges, and no more than the cut
    shortcut[start:] = cut
    for near in range(0, count, 4):
        # near points that are missing in the last four are repeated
        one = nearest[row, near]
        two, three = nearest[row, min(near + 1, count - 1)], nearest[row, min(near + 2, count - 1)]
        four = nearest[row, min(near + 3, count - 1)]
        _shorten(
            shortcut[start:],
            own[one],
            keys[one][start:],
            own[two],
            keys[two][start:],
            own[three],
            keys[three][start:],
            own[four],
            keys[four][start:],
        )
    found = 0
    for column in range(start, points):
        candidates[found] = column
        found += shortcut[column] >= own[column]
    return found


@kernel
def _shorten(shortcut, reach, onward, reach2, onward2, reach3, onward3, reach4, onward4):
    """On whole arrays from index 0, so that the compiler sees that it may use vector registers: 6 times faster."""
    for place in range(shortcut.size):
        one = min(max(reach, onward[place]), max(reach2, onward2[place]))
        other = min(max(reach3, onward3[place]), max(reach4, onward4[place]))
        shortcut[place] = min(shortcut[place], min(one, other))


@kernel
def _has_empty_lune(keys, nearest, row, column):
    key = keys[row, column]
    for near in range(nearest.shape[1]):
        witness = nearest[column, near]
        if max(keys[column, witness], keys[row, witness]) < key:
            return False
    return not lune_exceeds(keys, row, column, key, edge_code(row, column), 0)
