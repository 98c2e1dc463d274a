# mypy: disable-error-code="no-untyped-def"
"""Cycles of the neighbourhood graph from their edges outside the spanning forest. Kernels for numba."""

import numpy as np

from topo_callback.homology.jit_kernels import kernel


@kernel
def rooted_forest(tree, points):
    """(parent of each point or itself, points with every parent before its children) of a forest given by codes."""
    degree = np.zeros(points + 1, np.int64)
    for code in tree:
        degree[code >> 16] += 1
        degree[code & 0xFFFF] += 1
    starts = np.zeros(points + 1, np.int64)
    for point in range(points):
        starts[point + 1] = starts[point] + degree[point]
    places = starts.copy()
    others = np.empty(2 * tree.size, np.int64)
    for code in tree:
        first, second = np.int64(code >> 16), np.int64(code & 0xFFFF)
        others[places[first]] = second
        others[places[second]] = first
        places[first] += 1
        places[second] += 1
    parent = np.full(points, -1, np.int64)
    order = np.empty(points, np.int64)
    count = 0
    for root in range(points):
        if parent[root] >= 0:
            continue
        parent[root] = root
        order[count] = root
        reached = count
        count += 1
        while reached < count:
            point = order[reached]
            reached += 1
            for place in range(starts[point], starts[point + 1]):
                if parent[others[place]] < 0:
                    parent[others[place]] = point
                    order[count] = others[place]
                    count += 1
    return parent, order


@kernel
def closed_by_forest(outside, parent, order):
    """All edges [edges, 2] of the cycle whose edges outside the forest are those of the given codes."""
    odd = np.zeros(parent.size, np.bool_)
    for code in outside:
        odd[code >> 16] ^= True
        odd[code & 0xFFFF] ^= True
    edges = np.empty((outside.size + parent.size, 2), np.int64)
    count = 0
    for code in outside:
        edges[count, 0] = code >> 16
        edges[count, 1] = code & 0xFFFF
        count += 1
    # from the leaves up: a point with an odd number of edges so far needs the one to its parent
    for place in range(order.size - 1, -1, -1):
        point = order[place]
        if odd[point] and parent[point] != point:
            odd[parent[point]] ^= True
            edges[count, 0] = point
            edges[count, 1] = parent[point]
            count += 1
    return edges[:count]
