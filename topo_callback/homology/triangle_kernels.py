# mypy: disable-error-code="no-untyped-def"
"""Which edge closes the next triangle on an edge, how large a lune is, and a heap of edges. Kernels for numba.

Rows of keys are looked through in blocks, in vector registers; a second time where ties need the total order.
"""

import numpy as np

from topo_callback.homology.jit_kernels import kernel

BLOCK = 256
NO_CODE = np.uint32(0xFFFFFFFF)


@kernel
def greatest_key(keys):
    """A key above all others of its type."""
    return keys.dtype.type(-1)


@kernel
def next_triangle(keys, first, second, key, code):
    """(key, code) of the edge after the given one that is next to be the later one from a point to both ends.

    The given edge is that of `first` and `second`, or a later one of such edges. The greatest key where there is none.
    """
    points = keys.shape[0]
    none = greatest_key(keys)
    own, other = keys[first], keys[second]
    best, where, equal = none, 0, np.uint32(0)
    several = False
    for start in range(0, points, BLOCK):
        stop = min(start + BLOCK, points)
        found, tied = _least_longer(own[start:stop], other[start:stop], key, none)
        equal += tied
        several = (several and found >= best) or found == best
        if found < best:
            best, where = found, start
    # the two ends are at the distance between them, and the given edge is one of those looked for unless it joins them
    known = 2 if own[second] == key else 0
    known += edge_code(first, second) != code
    if equal > known:
        among_ties = _first_code(own, other, np.uint32(first), np.uint32(second), key, np.uint32(code + 1))
        if among_ties < NO_CODE:
            return key, among_ties
    if best == none:
        return none, NO_CODE
    if not several:
        stop = min(where + BLOCK, points)
        count, sum_of_places = _places_of(own[where:stop], other[where:stop], best)
        if count == 1:
            point = where + np.int64(sum_of_places)
            one, two = edge_code(first, point), edge_code(second, point)
            longer, shorter = own[point], other[point]
            return best, one if longer > shorter or (longer == shorter and one > two) else two
    return best, _first_code(own, other, np.uint32(first), np.uint32(second), best, np.uint32(0))


@kernel
def edge_code(first, second):
    """The code of the edge of two points."""
    return np.uint32((min(first, second) << 16) | max(first, second))


@kernel
def _least_longer(own, other, key, none):
    """(The least of the longer keys beyond `key`, how many are equal to it)."""
    least = none
    equal = np.uint32(0)
    for point in range(own.size):
        longer = max(own[point], other[point])
        equal += np.uint32(longer == key)
        least = min(least, longer if longer > key else none)
    return least, equal


@kernel
def _places_of(own, other, key):
    """(How many of the longer keys are equal to `key`, the sum of their places)."""
    count, total = np.uint32(0), np.uint32(0)
    for point in range(own.size):
        found = max(own[point], other[point]) == key
        count += np.uint32(found)
        total += np.uint32(point) if found else np.uint32(0)
    return count, total


@kernel
def _first_code(own, other, first, second, key, least_code):
    """The least code from `least_code` on among the later edges with this key that join a point to both ends.

    Without a branch, so that vector registers take several points at once: whole numbers as distances tie everywhere.
    """
    least = NO_CODE
    for point in range(own.size):
        third = np.uint32(point)
        one = np.uint32((min(first, third) << np.uint32(16)) | max(first, third))
        two = np.uint32((min(second, third) << np.uint32(16)) | max(second, third))
        later = one if own[point] > other[point] else two
        later = max(one, two) if own[point] == other[point] else later
        fits = (max(own[point], other[point]) == key) & (third != first) & (third != second) & (later >= least_code)
        least = min(least, later if fits else NO_CODE)
    return least


@kernel
def lune_exceeds(keys, first, second, key, code, count):
    """Whether the lune of an edge has more than `count` points."""
    points = keys.shape[0]
    own, other = keys[first], keys[second]
    size, equal = np.int64(0), np.int64(0)
    for start in range(0, points, BLOCK):
        stop = min(start + BLOCK, points)
        within, tied = _within(own[start:stop], other[start:stop], key)
        size += within
        equal += tied
        if size > count:
            return True
    # the two ends are tied
    if equal > 2:
        size += _within_by_code(own, other, np.uint32(first), np.uint32(second), key, np.uint32(code))
    return size > count


@kernel
def _within(own, other, key):
    """(How many points both whose keys are less, how many the longer one of whose is equal)."""
    within, equal = np.uint32(0), np.uint32(0)
    for point in range(own.size):
        longer = max(own[point], other[point])
        within += np.uint32(longer < key)
        equal += np.uint32(longer == key)
    return within, equal


@kernel
def _within_by_code(own, other, first, second, key, code):
    """How many points of the lune have a longer edge of the same key."""
    count = np.uint32(0)
    for point in range(own.size):
        third = np.uint32(point)
        one = np.uint32((min(first, third) << np.uint32(16)) | max(first, third))
        two = np.uint32((min(second, third) << np.uint32(16)) | max(second, third))
        tied = (max(own[point], other[point]) == key) & (third != first) & (third != second)
        before = (own[point] < key) | (one < code)
        count += np.uint32(tied & before & ((other[point] < key) | (two < code)))
    return count


@kernel
def is_before(key, code, other_key, other_code):
    """Whether an edge comes before another one."""
    return key < other_key or (key == other_key and code < other_code)


@kernel
def push(heap_keys, heap_codes, count, key, code):
    """Put an edge on the heap, whose first one is the earliest; returns its size."""
    place = count
    while place > 0:
        parent = (place - 1) >> 1
        if not is_before(key, code, heap_keys[parent], heap_codes[parent]):
            break
        heap_keys[place], heap_codes[place] = heap_keys[parent], heap_codes[parent]
        place = parent
    heap_keys[place], heap_codes[place] = key, code
    return count + 1


@kernel
def pop(heap_keys, heap_codes, count):
    """Take the earliest edge off the heap; returns the size of the rest."""
    count -= 1
    key, code = heap_keys[count], heap_codes[count]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and is_before(
            heap_keys[child + 1], heap_codes[child + 1], heap_keys[child], heap_codes[child]
        ):
            child += 1
        if not is_before(heap_keys[child], heap_codes[child], key, code):
            break
        heap_keys[place], heap_codes[place] = heap_keys[child], heap_codes[child]
        place = child
    heap_keys[place], heap_codes[place] = key, code
    return count
