# mypy: disable-error-code="no-untyped-def"
"""Reduction of relations over the relative neighbourhood graph, over Z/2, and its cycles. Kernels for numba.

Every edge is homologous, through a triangle of earlier edges, to a path of two earlier edges unless it belongs to the
graph; so every cycle is homologous to a cycle of the graph. Such a cycle is determined by its edges outside the
spanning forest, the classes: a column of bits with one row for each class, in the order of their births.
"""

import numpy as np

from topo_callback.homology.jit_kernels import kernel, leading_zeros
from topo_callback.homology.rips_graph_kernels import precedes

UNKNOWN = 0
TREE = -1


@kernel
def edge_lookup(codes, closes):
    """A hash table of the graph's edges: (codes, what each edge is replaced by, how many there are).

    The second entry is TREE, -2 - class, or, for an edge outside the graph, a point of its lune plus one.
    """
    capacity = 1024
    while capacity < 4 * codes.size:
        capacity *= 2
    table_codes = np.zeros(capacity, np.uint32)
    replacement = np.zeros(capacity, np.int32)
    classes = 0
    for place in range(codes.size):
        slot = _slot(table_codes, replacement, codes[place])
        table_codes[slot] = codes[place]
        if closes[place]:
            replacement[slot] = -2 - classes
            classes += 1
        else:
            replacement[slot] = TREE
    return table_codes, replacement, codes.size


@kernel
def _slot(table_codes, replacement, code):
    mask = np.uint64(table_codes.size - 1)
    slot = ((np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while replacement[slot] != UNKNOWN and table_codes[slot] != code:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def _grown_lookup(table_codes, replacement):
    """The same table with twice the room."""
    larger_codes = np.zeros(2 * table_codes.size, np.uint32)
    larger = np.zeros(2 * table_codes.size, np.int32)
    for place in range(table_codes.size):
        if replacement[place] != UNKNOWN:
            slot = _slot(larger_codes, larger, table_codes[place])
            larger_codes[slot] = table_codes[place]
            larger[slot] = replacement[place]
    return larger_codes, larger


@kernel
def _lune_point(keys, first, second, code):
    """The point of an edge's lune whose longer edge is shortest: the edge is replaced by the path through it."""
    key = keys[first, second]
    best = _best_path(keys[first], keys[second])
    if best >> np.uint64(32) < key:
        return np.int64(best & np.uint64(0xFFFFFFFF))
    # only ties, so the total order decides; the two ends themselves are among them
    for point in range(keys.shape[0]):
        if (
            point != first
            and point != second
            and precedes(keys, first, point, key, code)
            and precedes(keys, second, point, key, code)
        ):
            return point
    return -1


@kernel
def _best_path(first, second):
    """The longer edge of the best path of two edges and its middle point, packed as edge << 32 | point."""
    best = np.uint64(0xFFFFFFFFFFFFFFFF)
    for point in range(first.size):
        best = min(best, (np.uint64(max(first[point], second[point])) << np.uint64(32)) | np.uint64(point))
    return best


@kernel
def reduce_relations(keys, codes, relations, table, column_pool, pool_starts, death_keys, killed):
    """Reduce relations in order; each one that is independent of those before kills the youngest class in it.

    Args:
        keys, codes: the distances and the edges in order.
        relations: int32 [relations, 5] of `lune_relations`.
        table: (codes, replacement, entries) of the edges met so far.
        column_pool: the words of the reduced columns, one after the other.
        pool_starts: int64 [classes], where the column with that pivot starts, -1 where there is none.
        death_keys: uint32 [classes], written for each class that is killed.
        killed: how many classes are dead, and how many words of the pool are in use: int64 [2], changed in place.

    Returns:
        The table and the pool, which may have been replaced by larger ones.
    """
    table_codes, replacement, entries = table
    classes = pool_starts.size
    column = np.zeros((classes + 63) >> 6, np.uint64)
    heap = np.empty(1024, np.uint64)
    for relation in range(relations.shape[0]):
        if killed[0] == classes:
            break
        first, second = np.int64(relations[relation, 1]), np.int64(relations[relation, 2])
        # an edge waits here until no later one is left, so that what comes twice cancels before it is expanded
        count = 0
        for which in range(3, 5):
            point = np.int64(relations[relation, which])
            for end in (first, second):
                count = _push(keys, table_codes, replacement, column, heap, count, end, point)
        while count > 0:
            edge = heap[0]
            count = _pop(heap, count)
            odd = True
            while count > 0 and heap[0] == edge:
                count = _pop(heap, count)
                odd = not odd
            if not odd:
                continue
            code = np.uint32(edge & np.uint64(0xFFFFFFFF))
            low, high = np.int64(code >> 16), np.int64(code & 0xFFFF)
            slot = _slot(table_codes, replacement, code)
            if replacement[slot] == UNKNOWN:
                if 4 * entries > 3 * table_codes.size:
                    table_codes, replacement = _grown_lookup(table_codes, replacement)
                    slot = _slot(table_codes, replacement, code)
                table_codes[slot] = code
                replacement[slot] = _lune_point(keys, low, high, code) + 1
                entries += 1
            point = np.int64(replacement[slot] - 1)
            if count + 2 > heap.size:
                larger = np.empty(2 * heap.size, np.uint64)
                larger[:count] = heap[:count]
                heap = larger
            count = _push(keys, table_codes, replacement, column, heap, count, low, point)
            count = _push(keys, table_codes, replacement, column, heap, count, high, point)
        word = column.size - 1
        while word >= 0:
            if column[word] == 0:
                word -= 1
                continue
            pivot = (word << 6) + 63 - leading_zeros(column[word])
            start = pool_starts[pivot]
            if start >= 0:
                for place in range(word + 1):
                    column[place] ^= column_pool[start + place]
                continue
            start = killed[1]
            if start + word + 1 > column_pool.size:
                larger_pool = np.empty(2 * (start + word + 1), np.uint64)
                larger_pool[:start] = column_pool[:start]
                column_pool = larger_pool
            column_pool[start : start + word + 1] = column[: word + 1]
            pool_starts[pivot] = start
            code = codes[relations[relation, 0]]
            death_keys[pivot] = keys[code >> 16, code & 0xFFFF]
            killed[0] += 1
            killed[1] += word + 1
            column[: word + 1] = 0
            break
    return (table_codes, replacement, entries), column_pool


@kernel
def _push(keys, table_codes, replacement, column, heap, count, first, second):
    """Add an edge of the graph to the column, any other edge to the heap; returns the size of the heap."""
    low, high = min(first, second), max(first, second)
    code = np.uint32((low << 16) | high)
    what = replacement[_slot(table_codes, replacement, code)]
    if what == TREE:
        return count
    if what < TREE:
        number = np.int64(-2 - what)
        column[number >> 6] ^= np.uint64(1) << np.uint64(number & 63)
        return count
    edge = (np.uint64(keys[low, high]) << np.uint64(32)) | np.uint64(code)
    place = count
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent] >= edge:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = edge
    return count + 1


@kernel
def _pop(heap, count):
    """Take the latest edge off the heap; returns the size of the rest."""
    count -= 1
    edge = heap[count]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= edge:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = edge
    return count


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
