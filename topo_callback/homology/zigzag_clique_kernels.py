# mypy: disable-error-code="no-untyped-def"
"""Cliques of all stages in one enumeration, and their maximal runs of stages. Kernels for numba: no annotations.

A clique is in stage s exactly when all its edges are, so one bit mask over stages per edge, AND-ed along a clique,
gives every stage of the clique at once. Cliques of each size are kept in the order of a prefix tree: those that share
all vertices but the last lie next to each other, sorted by the last one.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, grown_table, kernel, trailing_zeros

WORD = 64


@kernel
def positions_by_key(keys, key_count):
    """The position of every entry after a stable counting sort by keys 0..key_count-1, and where each key begins."""
    starts = np.zeros(key_count + 1, np.int64)
    for entry in range(keys.size):
        starts[keys[entry] + 1] += 1
    for key in range(key_count):
        starts[key + 1] += starts[key]
    fill = starts[:-1].copy()
    positions = np.empty(keys.size, np.int64)
    for entry in range(keys.size):
        positions[entry] = fill[keys[entry]]
        fill[keys[entry]] += 1
    return positions, starts


@kernel
def ranks_by_listings(first_end, second_end, points):
    """Every point's place when sorted by how often it is listed: the busiest last, so that few come after them."""
    listings = np.zeros(points, np.int64)
    for listing in range(first_end.size):
        listings[first_end[listing]] += 1
        listings[second_end[listing]] += 1
    most = 0
    for point in range(points):
        most = max(most, listings[point])
    return positions_by_key(listings, most + 1)[0]


@kernel
def union_edges(first_end, second_end, offsets, ranks):
    """The edges of all stages, each once: (starts, upper, masks).

    Edges are sorted by (lower rank, upper rank); starts[v]:starts[v + 1] are those whose lower end has rank v. Bit s of
    masks[edge] (word s // 64) says whether the edge is in stage s.
    """
    points = ranks.size
    one, other, one_way = _listed_edges(*_by_first_end(first_end, second_end, offsets, points), offsets, points)
    for edge in range(one.size):
        first, second = ranks[one[edge]], ranks[other[edge]]
        one[edge], other[edge] = min(first, second), max(first, second)
    positions, starts = positions_by_key(one, points)
    by_lower = np.empty(one.size, np.int64)
    for edge in range(one.size):
        by_lower[positions[edge]] = edge
    words = one_way.shape[1]
    lower_of, upper_of = np.empty(one.size, np.int32), np.empty(one.size, np.int32)
    masks = np.zeros((one.size, words), np.uint64)
    known = np.full(points, -1, np.int64)  # by upper end: its edge with the current lower end
    edges = 0
    for lower in range(points):
        begin = edges
        for place in range(starts[lower], starts[lower + 1]):
            given = by_lower[place]
            edge = known[other[given]]
            if edge < begin:
                edge = edges
                known[other[given]] = edge
                lower_of[edge], upper_of[edge] = lower, other[given]
                edges += 1
            for word in range(words):
                masks[edge, word] |= one_way[given, word]
    by_upper = positions_by_key(upper_of[:edges], points)[0]
    lower_by_upper = np.empty(edges, np.int32)
    for edge in range(edges):
        lower_by_upper[by_upper[edge]] = lower_of[edge]
    by_both, starts = positions_by_key(lower_by_upper, points)
    sorted_upper = np.empty(edges, np.int32)
    sorted_masks = np.empty((edges, words), np.uint64)
    for edge in range(edges):
        place = by_both[by_upper[edge]]
        sorted_upper[place] = upper_of[edge]
        for word in range(words):  # entry by entry, as for `grown`
            sorted_masks[place, word] = masks[edge, word]
    return starts, sorted_upper, sorted_masks


@kernel
def _by_first_end(first_end, second_end, offsets, points):
    """The listings with those of every stage in the order of their first ends, as lists of neighbours are already."""
    is_sorted = True
    for stage in range(offsets.size - 1):
        for listing in range(offsets[stage] + 1, offsets[stage + 1]):
            is_sorted &= first_end[listing - 1] <= first_end[listing]
    if is_sorted:
        return first_end, second_end
    first, second = np.empty_like(first_end), np.empty_like(second_end)
    for stage in range(offsets.size - 1):
        begin = offsets[stage]
        positions = positions_by_key(first_end[begin : offsets[stage + 1]], points)[0]
        for listing in range(positions.size):
            first[begin + positions[listing]] = first_end[begin + listing]
            second[begin + positions[listing]] = second_end[begin + listing]
    return first, second


@kernel
def _listed_edges(first_end, second_end, offsets, points):
    """Every edge that is listed in this direction, in whatever stages: (first ends, second ends, masks).

    Listings are sorted by first end within each stage.
    """
    stages = offsets.size - 1
    nothing = np.empty(0, np.int32)
    count = _fill_listed_edges(first_end, second_end, offsets, points, nothing, nothing, np.empty((0, 1), np.uint64))
    first, second = np.empty(count, np.int32), np.empty(count, np.int32)
    masks = np.zeros((count, (stages + WORD - 1) // WORD), np.uint64)
    _fill_listed_edges(first_end, second_end, offsets, points, first, second, masks)
    return first, second, masks


@kernel
def _fill_listed_edges(first_end, second_end, offsets, points, first, second, masks):
    """Fill in what `_listed_edges` returns, unless it is empty; the number of edges."""
    known = np.full(points, -1, np.int64)  # by second end: its edge with the current first end
    next_listing = offsets[:-1].copy()
    filled, edges = first.size > 0, 0
    for point in range(points):
        begin = edges
        for stage in range(next_listing.size):
            word, bit = stage // WORD, np.uint64(1) << np.uint64(stage % WORD)
            listing, end = next_listing[stage], offsets[stage + 1]
            while listing < end and first_end[listing] == point:
                neighbour = second_end[listing]
                edge = known[neighbour]
                if edge < begin:
                    edge = edges
                    known[neighbour] = edge
                    edges += 1
                    if filled:
                        first[edge] = point
                        second[edge] = neighbour
                if filled:
                    masks[edge, word] |= bit
                listing += 1
            next_listing[stage] = listing
    return edges


@kernel
def edge_facets(starts, upper):
    """The two facets of every edge as points: without its lower end, without its upper end."""
    facets = np.empty((upper.size, 2), np.int32)
    for lower in range(starts.size - 1):
        for edge in range(starts[lower], starts[lower + 1]):
            facets[edge, 0] = upper[edge]
            facets[edge, 1] = lower
    return facets


@kernel
def next_cliques(points, starts, last, masks, facets):
    """Cliques with one vertex more: (starts, last, masks, facets).

    A clique is its prefix plus one last vertex; starts[p]:starts[p + 1] are the given cliques with prefix p. Column j
    of facets is the facet without the j-th vertex.
    """
    size = facets.shape[1]
    words = masks.shape[1]
    capacity = 2 * last.size + 16
    new_last = np.empty(capacity, np.int32)
    new_masks = np.empty((capacity, words), np.uint64)
    new_facets = np.empty((capacity, size + 1), np.int32)
    new_starts = np.zeros(last.size + 1, np.int64)
    sibling = np.full(points, -1, np.int64)  # by last vertex: the clique with the current prefix
    common = np.empty(words, np.uint64)
    count = 0
    for prefix in range(starts.size - 1):
        begin, end = starts[prefix], starts[prefix + 1]
        for clique in range(begin, end):
            sibling[last[clique]] = clique
        for clique in range(begin, end):
            new_starts[clique] = count
            suffix = facets[clique, 0]
            for shifted in range(starts[suffix], starts[suffix + 1]):
                vertex = last[shifted]
                other = sibling[vertex]
                if other < begin or other >= end:
                    continue
                lives = np.uint64(0)
                for word in range(words):
                    common[word] = masks[clique, word] & masks[other, word] & masks[shifted, word]
                    lives |= common[word]
                if lives == 0:
                    continue
                if count == capacity:
                    capacity *= 2
                    new_last = grown(new_last, new_last.size, capacity)
                    new_masks = grown_table(new_masks, capacity, words)
                    new_facets = grown_table(new_facets, capacity, size + 1)
                new_last[count] = vertex
                for word in range(words):
                    new_masks[count, word] = common[word]
                new_facets[count, 0] = shifted
                for place in range(1, size - 1):
                    new_facets[count, place] = _child(facets[clique, place], vertex, starts, last)
                new_facets[count, size - 1] = other
                new_facets[count, size] = clique
                count += 1
    new_starts[last.size] = count
    return new_starts, new_last[:count], new_masks[:count], new_facets[:count]


@kernel
def _child(prefix, vertex, starts, last):
    """The clique with this prefix and this last vertex, which exists."""
    low, high = starts[prefix], starts[prefix + 1] - 1
    while low < high:
        middle = (low + high) // 2
        if last[middle] < vertex:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def runs_of_masks(masks, stages):
    """The maximal runs of ones: (starts, first, last); starts[c]:starts[c + 1] are the runs of clique c, in order."""
    count = masks.shape[0]
    words = masks.shape[1]
    starts = np.empty(count + 1, np.int64)
    capacity = 2 * count + 16
    first = np.empty(capacity, np.int32)
    last = np.empty(capacity, np.int32)
    runs = 0
    for clique in range(count):
        starts[clique] = runs
        if runs + stages > capacity:
            capacity = 2 * capacity + stages
            first = grown(first, first.size, capacity)
            last = grown(last, last.size, capacity)
        open_run = False
        for word in range(words):
            bits = masks[clique, word]
            position = word * WORD
            if open_run and not bits & np.uint64(1):
                last[runs] = position - 1
                runs += 1
                open_run = False
            while bits:
                empty = trailing_zeros(bits)
                bits >>= np.uint64(empty)
                position += empty
                if not open_run:
                    first[runs] = position
                rest = ~bits
                # All 64 bits set: the run fills the word.
                length = WORD if rest == 0 else trailing_zeros(rest)
                position += length
                open_run = position == (word + 1) * WORD
                if open_run:
                    break
                last[runs] = position - 1
                runs += 1
                bits >>= np.uint64(length)
        if open_run:
            last[runs] = stages - 1
            runs += 1
    starts[count] = runs
    return starts, first[:runs], last[:runs]


@kernel
def sorted_cells(starts, first, last, facets, lower_starts, lower_first, lower_last, lower_positions, stages):
    """Cells, one per run, sorted by rising length of the run: (positions, first, last, facets).

    Equal lengths are in falling order of clique, so that of two facets with one run that without the lowest vertex
    comes first. positions maps runs in order of clique to cells; the given lower_* are of the cliques with one vertex
    less, and facets of cells are cells of theirs: every facet of a clique has one run that contains the clique's run.
    """
    count = first.size
    lengths = np.empty(count, np.int32)
    for run in range(count):
        lengths[run] = last[count - 1 - run] - first[count - 1 - run]
    reversed_positions = positions_by_key(lengths, stages)[0]
    positions = reversed_positions[::-1].copy()
    cell_first = np.empty(count, np.int32)
    cell_last = np.empty(count, np.int32)
    cell_facets = np.empty((count, facets.shape[1]), np.int32)
    for clique in range(facets.shape[0]):
        for run in range(starts[clique], starts[clique + 1]):
            cell = positions[run]
            cell_first[cell] = first[run]
            cell_last[cell] = last[run]
            for place in range(facets.shape[1]):
                lower = lower_starts[facets[clique, place]]
                while lower_last[lower] < first[run]:
                    lower += 1
                cell_facets[cell, place] = lower_positions[lower]
    return positions, cell_first, cell_last, cell_facets
