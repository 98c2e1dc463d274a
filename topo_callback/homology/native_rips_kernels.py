# mypy: disable-error-code="no-untyped-def"
"""Whole clouds on one thread: checking a distance matrix, one cloud from keys to bars, many clouds in a row.

Kernels for numba, hence without annotations.
"""

import numpy as np

from topo_callback.homology.annotation_kernels import class_deaths
from topo_callback.homology.jit_kernels import grown, kernel
from topo_callback.homology.relative_neighbour_kernels import near_rows, neighbourhood_edges, row_maxima
from topo_callback.homology.rips_graph_kernels import (
    BINS,
    neighbour_count,
    sort_bucket,
    spanning_forest,
)
from topo_callback.homology.triangle_kernels import greatest_key

STRIP = 32  # rows


@kernel
def is_distance_matrix(distances, first_row, last_row):
    """Whether rows [first_row, last_row) hold a zero diagonal and, from the diagonal on, equal non-negative pairs."""
    points = distances.shape[0]
    # strips, because one of the two walks jumps a whole row per entry; a little wider, lest rows share cache lines
    mirrored = np.empty((STRIP, points + 16), distances.dtype)
    for start in range(first_row, last_row, STRIP):
        end = min(start + STRIP, last_row)
        for column in range(start, points):
            below = distances[column, start:end]
            for row in range(below.size):
                mirrored[row, column] = below[row]
        for row in range(start, end):
            if distances[row, row] != 0:
                return False
            if not _are_equal_lengths(distances[row, row:], mirrored[row - start, row:points]):
                return False
    return True


@kernel
def _are_equal_lengths(lengths, others):
    good = True
    for place in range(lengths.size):
        good &= (lengths[place] >= 0) & (lengths[place] == others[place])
    return good


@kernel
def first_bad_entry(distances):
    """(row, column) of the first entry, row by row, that no distance matrix has; (-1, -1) where all is well."""
    points = distances.shape[0]
    for row in range(points):
        for column in range(points):
            value = distances[row, column]
            if not (value >= 0) or value != distances[column, row] or (row == column and value != 0):
                return row, column
    return -1, -1


@kernel
def central_order(totals):
    """The points in order of their rows' sums, smallest first, ties by index: a stable radix sort."""
    lowest, highest = totals.min(), totals.max()
    order = np.arange(totals.size)
    target = np.empty_like(order)
    counts = np.empty(256, np.int64)
    shift = np.uint64(0)
    while shift < 64 and (highest - lowest) >> shift > 0:
        counts[:] = 0
        for point in order:
            counts[((totals[point] - lowest) >> shift) & np.uint64(255)] += 1
        total = 0
        for digit in range(256):
            total, counts[digit] = total + counts[digit], total
        for point in order:
            digit = ((totals[point] - lowest) >> shift) & np.uint64(255)
            target[counts[digit]] = point
            counts[digit] += 1
        order, target = target, order
        shift += np.uint64(8)
    return order


@kernel
def bucket_layout(counts, target):
    """Split bins into buckets of about `target` edges: (bucket of each bin, first edge of each bucket and the end)."""
    bucket_of_bin = np.empty(counts.size, np.int32)
    starts = np.zeros(counts.size + 1, np.int64)
    buckets = 0
    filled = 0
    total = 0
    for place in range(counts.size):
        if filled > 0 and filled + counts[place] > target:
            buckets += 1
            starts[buckets] = total
            filled = 0
        bucket_of_bin[place] = buckets
        filled += counts[place]
        total += counts[place]
    starts[buckets + 1] = total
    return bucket_of_bin, starts[: buckets + 2]


@kernel
def binning(cut, graph_keys):
    """(floor, shift) of bins that spread the edges up to `cut` evenly; all edges below the floor share the first bin.

    A few very short edges, as between near-duplicates, would otherwise stretch the bins over empty octaves.
    """
    floor = min(graph_keys[graph_keys.size // 4], cut)
    shift = 0
    while (cut - floor) >> shift >= BINS:
        shift += 1
    return floor, shift


@kernel
def graph_classes(keys, graph):
    """(H0 deaths, H1 births, whether each edge closes a cycle) of the neighbourhood graph's edges in order, as keys."""
    closes = spanning_forest(graph, keys.shape[0])
    found = graph_keys(keys, graph)
    deaths, births = np.empty(graph.size, keys.dtype), np.empty(graph.size, keys.dtype)
    merges = 0
    for place in range(graph.size):
        births[place - merges] = found[place]
        deaths[merges] = found[place]
        merges += not closes[place]
    return deaths[:merges], births[: graph.size - merges], closes


@kernel
def cloud_bars(keys, limit, most_scans):
    """H0 and H1 of one cloud on one thread, by annotations.

    Args:
        keys: uint32 or uint64 [points, points], at least two points.
        limit: the greatest key that may enter.
        most_scans: give up after looking so often for the next triangle of an edge.

    Returns:
        (H0 deaths, H1 births, H1 deaths as keys, whether each H1 class dies, whether this was finished).
    """
    cut, graph = cloud_graph(keys, limit)
    deaths, births, closes = graph_classes(keys, graph)
    last, dies, finished = class_deaths(keys, keys, False, graph, closes, cut, most_scans)
    return deaths, births, last, dies, finished


@kernel
def cloud_graph(keys, limit):
    """(The greatest key that matters, the codes of the relative neighbourhood graph up to it in the total order)."""
    points = keys.shape[0]
    cut = enclosing_key(keys, limit)
    nearest = np.empty((points, neighbour_count(points)), np.int32)
    near_rows(keys, nearest, 0, points)
    graph = neighbourhood_edges(keys, nearest, cut, 0, 1)
    sort_bucket(keys, graph, 0, graph.size)
    return cut, graph


@kernel
def enclosing_key(keys, limit):
    """The least of the rows' greatest keys, beyond which nothing changes any more, and no more than `limit`."""
    longest = np.empty(keys.shape[0], keys.dtype)
    row_maxima(keys, longest, 0, longest.size)
    for key in longest:
        limit = min(limit, key)
    return limit


@kernel
def graph_keys(keys, graph):
    """The keys of edges given by code."""
    found = np.empty(graph.size, keys.dtype)
    for place in range(graph.size):
        found[place] = keys[graph[place] >> 16, graph[place] & 0xFFFF]
    return found


@kernel
def bars_of_clouds(distances, keys, limit, most_scans):
    """The bars of each cloud in canonical order: by dimension, birth and death, those of length 0 left out.

    Args:
        distances: float32 or float64 [clouds, points, points], at least two points.
        keys: their bit patterns without sign, uint32 or uint64.
        limit: the greatest key that may enter.
        most_scans: as for `cloud_bars`.

    Returns:
        (The first cloud that is not a distance matrix or -1, where the bars of each cloud start and the end, how many
        of a cloud's bars are components, -1 for a cloud that was given up, births and deaths as keys, the greatest one
        for never).
    """
    clouds, points = keys.shape[0], keys.shape[1]
    starts, components = np.zeros(clouds + 1, np.int64), np.zeros(clouds, np.int64)
    births, deaths = np.empty(2 * clouds * points, keys.dtype), np.empty(2 * clouds * points, keys.dtype)
    for cloud in range(clouds):
        if not is_distance_matrix(distances[cloud], 0, points):
            return cloud, starts, components, births, deaths
        found = cloud_bars(keys[cloud], limit, most_scans)
        births, deaths = add_bars(found, points, cloud, starts, components, births, deaths)
    return -1, starts, components, births[: starts[clouds]], deaths[: starts[clouds]]


@kernel
def add_bars(found, points, cloud, starts, components, births, deaths):
    """Write what `cloud_bars` found behind the bars of the clouds before; births and deaths, which may have grown."""
    merges, loops, ends, dies, finished = found
    count = starts[cloud]
    if not finished:
        components[cloud], starts[cloud + 1] = -1, count
        return births, deaths
    never = greatest_key(births)
    most = count + points + loops.size
    if most > births.size:
        births, deaths = grown(births, count, 2 * most), grown(deaths, count, 2 * most)
    for death in merges:
        if death > 0:
            births[count], deaths[count] = 0, death
            count += 1
    for _ in range(points - merges.size):
        births[count], deaths[count] = 0, never
        count += 1
    components[cloud] = count - starts[cloud]
    first = count
    for loop in range(loops.size):
        birth = loops[loop]
        death = ends[loop] if dies[loop] else never
        if death > birth:
            # births ascend already; those that are equal are put in order of their deaths
            place = count
            while place > first and births[place - 1] == birth and deaths[place - 1] > death:
                deaths[place] = deaths[place - 1]
                place -= 1
            births[count] = birth
            deaths[place] = death
            count += 1
    starts[cloud + 1] = count
    return births, deaths
