# mypy: disable-error-code="no-untyped-def"
"""Components of the lunes of edges taken in order. Kernels for numba.

`adjacency` is uint64 [points, words]: bit v of row u says that the edge (u, v) is there already; each point has its own
bit too, so that a point's row covers the point itself.
"""

import numpy as np

from topo_callback.homology.jit_kernels import kernel, trailing_zeros


@kernel
def empty_adjacency(points):
    """The rows of a graph without edges, padded to whole vector registers."""
    adjacency = np.zeros((points, (points + 255) // 256 * 4), np.uint64)
    for point in range(points):
        adjacency[point, point >> 6] = np.uint64(1) << np.uint64(point & 63)
    return adjacency


@kernel
def add_edges(adjacency, codes, start, end):
    """Put in the edges codes[start:end]."""
    for place in range(start, end):
        first = np.int64(codes[place] >> 16)
        second = np.int64(codes[place] & 0xFFFF)
        adjacency[first, second >> 6] |= np.uint64(1) << np.uint64(second & 63)
        adjacency[second, first >> 6] |= np.uint64(1) << np.uint64(first & 63)


@kernel
def lune_relations(keys, adjacency, nearest, codes, start, end):
    """Put in the edges codes[start:end] one by one; where a lune falls apart, emit its relations.

    `nearest` int32 [points, count] lists points near each point, nearest first. Returns int32 [relations, 5], rows
    (place of the edge, its ends a and b, points v and w): v and w lie in different components of the lune, so the edge
    fills the cycle a v b w. A lune of c components gives c - 1 rows.
    """
    words = adjacency.shape[1]
    lune = np.empty(words, np.uint64)
    left = np.empty(words, np.uint64)
    relations = np.empty((256, 5), np.int32)
    count = 0
    for place in range(start, end):
        first = np.int64(codes[place] >> 16)
        second = np.int64(codes[place] & 0xFFFF)
        word = 0
        while word < words and adjacency[first, word] & adjacency[second, word] == 0:
            word += 1
        if word < words:
            # points are numbered from the centre outwards: the first ones of the lune see most of the others
            common = adjacency[first, word] & adjacency[second, word]
            seed = (word << 6) + trailing_zeros(common)
            second_seed, third_seed, fourth_seed = _central_seeds(common & adjacency[seed, word], word, seed)
            some = np.uint64(0)
            for word in range(words):
                some |= (
                    adjacency[first, word]
                    & adjacency[second, word]
                    & ~(
                        adjacency[seed, word]
                        | adjacency[second_seed, word]
                        | adjacency[third_seed, word]
                        | adjacency[fourth_seed, word]
                    )
                )
            if some != 0:
                # the points of the lune next to its two ends see nearly all the rest
                near_first = _near_seed(adjacency, nearest, first, second, seed)
                near_second = _near_seed(adjacency, nearest, second, first, seed)
                some = np.uint64(0)
                for word in range(words):
                    common = adjacency[first, word] & adjacency[second, word]
                    lune[word] = common
                    common &= ~(adjacency[seed, word] | adjacency[near_first, word] | adjacency[near_second, word])
                    left[word] = common
                    some |= common
                if some != 0 and not _joins(adjacency, lune, left):
                    relations, count = emit_relations(
                        keys, adjacency, lune, left, place, first, second, relations, count
                    )
        adjacency[first, second >> 6] |= np.uint64(1) << np.uint64(second & 63)
        adjacency[second, first >> 6] |= np.uint64(1) << np.uint64(first & 63)
    return relations[:count]


@kernel
def _central_seeds(close, word, seed):
    """Three more points, from those of the seed's word of the lune that see the seed; the seed where there are none."""
    second_seed = third_seed = fourth_seed = seed
    close &= close - np.uint64(1)
    if close != 0:
        second_seed = (word << 6) + trailing_zeros(close)
        close &= close - np.uint64(1)
    if close != 0:
        third_seed = (word << 6) + trailing_zeros(close)
        close &= close - np.uint64(1)
    if close != 0:
        fourth_seed = (word << 6) + trailing_zeros(close)
    return second_seed, third_seed, fourth_seed


@kernel
def _near_seed(adjacency, nearest, end, other_end, seed):
    """The nearest point to one end that lies in the lune and sees the seed; the seed itself where none is known."""
    for near in range(nearest.shape[1]):
        point = np.int64(nearest[end, near])
        word, bit = point >> 6, np.uint64(point & 63)
        if (adjacency[other_end, word] & adjacency[end, word] & adjacency[seed, word]) >> bit & np.uint64(1):
            return point
    return seed


@kernel
def _joins(adjacency, lune, left):
    """Grow the visited part, lune without left, by points of `left` that see it; whether all are visited in the end."""
    words = lune.size
    progress = True
    while progress:
        progress = False
        remaining = False
        for word in range(words):
            bits = left[word]
            while bits != 0:
                point = (word << 6) + trailing_zeros(bits)
                bits &= bits - np.uint64(1)
                seen = False
                for other in range(words):
                    if adjacency[point, other] & lune[other] & ~left[other]:
                        seen = True
                        break
                if seen:
                    # whatever this point sees is visited too, the point itself among it
                    for other in range(words):
                        left[other] &= ~adjacency[point, other]
                    bits &= left[word]
                    progress = True
                else:
                    remaining = True
        if not remaining:
            # a point set aside earlier may have been reached since by a later one
            return True
    return False


@kernel
def emit_relations(keys, adjacency, lune, left, place, first, second, relations, count):
    """One relation for each component beyond the first; `left` holds all points outside the first component."""
    words = lune.size
    part = np.empty(words, np.uint64)
    for word in range(words):
        part[word] = lune[word] & ~left[word]
    anchor = _nearest_of(keys, part, first, second)
    while True:
        word = 0
        while word < words and left[word] == 0:
            word += 1
        if word == words:
            return relations, count
        point = (word << 6) + trailing_zeros(left[word])
        for word in range(words):
            part[word] = left[word]
            left[word] &= ~adjacency[point, word]
        # `part` plays the lune: what the growing leaves in `left` are the components still to come
        _joins(adjacency, part, left)
        for word in range(words):
            part[word] &= ~left[word]
        if count == relations.shape[0]:
            larger = np.empty((2 * count, 5), np.int32)
            larger[:count] = relations
            relations = larger
        relations[count, 0] = place
        relations[count, 1] = first
        relations[count, 2] = second
        relations[count, 3] = anchor
        relations[count, 4] = _nearest_of(keys, part, first, second)
        count += 1


@kernel
def _nearest_of(keys, part, first, second):
    """The point of a set of points whose longer edge to the two ends is shortest: the least to expand later."""
    best = np.uint32(0xFFFFFFFF)
    nearest = -1
    for word in range(part.size):
        bits = part[word]
        while bits != 0:
            point = (word << 6) + trailing_zeros(bits)
            bits &= bits - np.uint64(1)
            longer = max(keys[first, point], keys[second, point])
            if nearest < 0 or longer < best:
                best = longer
                nearest = point
    return nearest
