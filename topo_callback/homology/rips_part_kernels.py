# mypy: disable-error-code="no-untyped-def"
"""Neighbourhood graphs of parts of one cloud by index, from one look at the cloud. Kernels for numba.

A bit for each part says of each point which parts it is in. An edge is in the relative neighbourhood graph of those
parts that both its ends are in and no point of its lune, so one look at the lune, with bits instead of points, tells of
all parts at once. Indices of a part ascend, so that the total order of its edges is that of the cloud.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, kernel
from topo_callback.homology.native_rips_kernels import enclosing_key
from topo_callback.homology.relative_neighbour_kernels import near_rows
from topo_callback.homology.rips_graph_kernels import precedes, sort_bucket
from topo_callback.homology.triangle_kernels import edge_code

MOST_PARTS = 64
NEAR = 16
_ONE = np.uint64(1)


@kernel
def edges_of_parts(keys, members, bounds, limit):
    """The codes of the edges up to `limit` that are in the neighbourhood graph of a part, and bits of those parts.

    Args:
        keys: uint32 or uint64 [points, points], without checks.
        members: int64, points of the parts, one part after the other.
        bounds: int64 [parts + 1], where each part starts in `members`, and the end; at most MOST_PARTS parts.
        limit: the greatest key that may enter.
    """
    points = keys.shape[0]
    parts = np.zeros(points, np.uint64)
    for part in range(bounds.size - 1):
        for place in range(bounds[part], bounds[part + 1]):
            parts[members[place]] |= _ONE << np.uint64(part)
    nearest = np.empty((points, min(points - 1, NEAR)), np.int32)
    near_rows(keys, nearest, 0, points)
    left = np.empty(points, np.uint64)
    codes, of_parts = np.empty(8 * points + 16, np.uint32), np.empty(8 * points + 16, np.uint64)
    found = 0
    for row in range(points):
        own, start = keys[row], row + 1
        _both_in(left[start:], parts[start:], parts[row])
        for near in nearest[row]:
            _take_off(left[start:], own[start:], own[near], keys[near][start:], parts[near])
        if found + points > codes.size:
            room = 2 * (found + points)
            codes, of_parts = grown(codes, found, room), grown(of_parts, found, room)
        for column in range(start, points):
            if left[column] and own[column] <= limit:
                rest = _without_lune(keys, row, column, left[column], parts)
                codes[found], of_parts[found] = edge_code(row, column), rest
                found += rest != 0
    return codes[:found], of_parts[:found]


@kernel
def part_keys(keys, chosen):
    """keys[chosen][:, chosen]."""
    part = np.empty((chosen.size, chosen.size), keys.dtype)
    for row in range(chosen.size):
        source = keys[chosen[row]]
        for column in range(chosen.size):
            part[row, column] = source[chosen[column]]
    return part


@kernel
def part_graph(own_keys, points, chosen, part, graph, graph_parts, limit):
    """(The greatest key that matters to a part, the codes of its neighbourhood graph up to it in the total order).

    Args:
        own_keys: from `part_keys`.
        points: how many the cloud has.
        chosen: int64, those of the part, ascending.
        part: its bit.
        graph, graph_parts: from `edges_of_parts`.
        limit: the greatest key that may enter.
    """
    place_of = np.zeros(points, np.uint32)
    for place in range(chosen.size):
        place_of[chosen[place]] = place
    cut = enclosing_key(own_keys, limit)
    own, count = np.empty(graph.size, np.uint32), 0
    for place in range(graph.size):
        if (graph_parts[place] >> np.uint64(part)) & _ONE:
            first, second = place_of[graph[place] >> 16], place_of[graph[place] & 0xFFFF]
            own[count] = edge_code(first, second)
            count += own_keys[first, second] <= cut
    sort_bucket(own_keys, own, 0, count)
    return cut, own[:count]


@kernel
def _both_in(left, parts, own):
    for place in range(left.size):
        left[place] = parts[place] & own


@kernel
def _take_off(left, own, reach, onward, parts):
    """Take off the parts of a point from those of the edges in whose lune it is; ties are left."""
    for place in range(left.size):
        left[place] &= ~(parts if max(reach, onward[place]) < own[place] else np.uint64(0))


@kernel
def _without_lune(keys, first, second, left, parts):
    """Of some parts of an edge, those that have no point of its lune."""
    key = keys[first, second]
    within, equal = _parts_within(keys[first], keys[second], key, parts)
    left &= ~within
    # the two ends are tied
    if left and equal > 2:
        code = edge_code(first, second)
        for point in range(parts.size):
            if (
                parts[point] & left
                and point != first
                and point != second
                and precedes(keys, first, point, key, code)
                and precedes(keys, second, point, key, code)
            ):
                left &= ~parts[point]
    return left


@kernel
def _parts_within(own, other, key, parts):
    """(The parts of the points both whose keys are less, how many the longer one of whose is equal)."""
    within, equal = np.uint64(0), np.uint32(0)
    for point in range(own.size):
        longer = max(own[point], other[point])
        within |= parts[point] if longer < key else np.uint64(0)
        equal += np.uint32(longer == key)
    return within, equal
