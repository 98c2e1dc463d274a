# mypy: disable-error-code="no-untyped-def"
"""Exact matching of two barcodes. Kernels for numba, hence without annotations.

A bar of midpoint m and lifetime p lies at squared distance p*p/2 from the diagonal, and two bars lie at squared
distance 2*(m - m')**2 + (p - p')**2/2 from each other. So matching the two instead of sending both to the diagonal
saves p*p' - 2*(m - m')**2, which is positive only for bars that are close: the graph of such pairs is sparse.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, kernel


@kernel
def alignment_cost(first, second):
    """The least sum of squares of matching sorted lifetimes of bars born together, the rest sent to the diagonal.

    Crossing pairs can be uncrossed at no cost, so an optimal matching keeps the order: an alignment, whose table is
    filled by anti-diagonals because the cells of one do not depend on each other.
    """
    rows, columns = first.size, second.size
    backwards = second[::-1].copy()
    before = np.full(rows + 1, np.inf)
    latest = np.full(rows + 1, np.inf)
    current = np.full(rows + 1, np.inf)
    latest[0] = 0.0
    for diagonal in range(1, rows + columns + 1):
        start = max(0, diagonal - columns)
        end = min(rows, diagonal)
        # cell (row, diagonal - row) needs second[diagonal - row - 1] = backwards[columns - diagonal + row]
        shift = columns - diagonal
        if start == 0:
            current[0] = latest[0] + backwards[shift] * backwards[shift] / 2
        if end == diagonal:
            current[end] = latest[end - 1] + first[end - 1] * first[end - 1] / 2
        for row in range(max(1, start), end if end == diagonal else end + 1):
            one = first[row - 1]
            other = backwards[shift + row]
            above = latest[row - 1] + one * one / 2
            left = latest[row] + other * other / 2
            across = before[row - 1] + (one - other) * (one - other)
            least = above if above < left else left
            current[row] = least if least < across else across
        before, latest, current = latest, current, before
    return latest[rows]


@kernel
def saving_pairs(first_middle, first_lifetime, second_middle, second_lifetime):
    """The pairs of bars whose matching saves something, row by row: (row starts, columns, savings).

    Both sides are sorted by midpoint.
    """
    rows, columns = first_middle.size, second_middle.size
    longest = second_lifetime.max() if columns else 0.0
    starts = np.zeros(rows + 1, np.int64)
    capacity = 8 * (rows + columns) + 64
    partners = np.empty(capacity, np.int32)
    savings = np.empty(capacity, np.float64)
    count = 0
    low = 0
    for row in range(rows):
        reach = np.sqrt(first_lifetime[row] * longest / 2)
        low = np.searchsorted(second_middle, first_middle[row] - reach)
        high = np.searchsorted(second_middle, first_middle[row] + reach, side="right")
        if count + high - low > capacity:
            capacity = 2 * capacity + high - low
            partners = grown(partners, count, capacity)
            savings = grown(savings, count, capacity)
        for column in range(low, high):
            apart = first_middle[row] - second_middle[column]
            saving = first_lifetime[row] * second_lifetime[column] - 2 * apart * apart
            # written always and kept by moving on: no branch to mispredict
            partners[count] = column
            savings[count] = saving
            count += saving > 0
        starts[row + 1] = count
    return starts, partners[:count], savings[:count]


@kernel
def greatest_savings(starts, partners, savings, columns, most_steps):
    """A matching of greatest total saving: (partner of each row or -1, duals of rows, of columns, whether finished).

    The Hungarian method by shortest augmenting paths on a sparse graph (Jonker and Volgenant, 1987), where each row
    may also stay alone at no saving. The duals prove that it is the best: both are at least 0, together at least the
    saving of each pair, equal to it on matched pairs, and 0 on whatever stays alone. After looking at pairs
    `most_steps` times, rows that have not had their turn stay alone with a dual above 0, so the two sums differ.
    """
    steps = 0
    rows = starts.size - 1
    row_dual = np.zeros(rows)
    column_dual = np.zeros(columns)
    row_partner = np.full(rows, -1, np.int32)
    column_partner = np.full(columns, -1, np.int32)
    distance = np.full(columns, np.inf)
    predecessor = np.full(columns, -1, np.int32)
    done = np.zeros(columns, np.bool_)
    touched = np.empty(columns, np.int32)
    heap_keys = np.empty(partners.size + 1)
    heap_items = np.empty(partners.size + 1, np.int32)
    for row in range(rows):
        for pair in range(starts[row], starts[row + 1]):
            row_dual[row] = max(row_dual[row], savings[pair])
    for root in range(rows):
        if starts[root] == starts[root + 1]:
            continue
        if steps > most_steps:
            return row_partner, row_dual, column_dual, False
        touched_count = 0
        heap_count = 0
        reached = 0.0
        row = root
        alone_at = np.inf
        alone_row = -1
        sink = -1
        while True:
            if reached + row_dual[row] < alone_at:
                alone_at = reached + row_dual[row]
                alone_row = row
            steps += starts[row + 1] - starts[row]
            for pair in range(starts[row], starts[row + 1]):
                column = partners[pair]
                if done[column]:
                    continue
                slack = row_dual[row] + column_dual[column] - savings[pair]
                length = reached + (slack if slack > 0 else 0.0)
                if length < distance[column] and length < alone_at:
                    if distance[column] == np.inf:
                        touched[touched_count] = column
                        touched_count += 1
                    distance[column] = length
                    predecessor[column] = row
                    heap_count = _heap_push(heap_keys, heap_items, heap_count, length, column)
            column = -1
            while heap_count > 0:
                column = heap_items[0]
                length = heap_keys[0]
                heap_count = _heap_pop(heap_keys, heap_items, heap_count)
                if not done[column] and length == distance[column]:
                    break
                column = -1
            if column < 0 or distance[column] >= alone_at:
                reached = alone_at
                break
            reached = distance[column]
            if column_partner[column] < 0:
                sink = column
                break
            done[column] = True
            row = column_partner[column]
        row_dual[root] -= reached
        for place in range(touched_count):
            column = touched[place]
            if done[column]:
                row_dual[column_partner[column]] -= reached - distance[column]
                column_dual[column] += reached - distance[column]
        if sink < 0:
            # the row at the end of the path gives up its column and stays alone for good
            sink = row_partner[alone_row]
            row_partner[alone_row] = -1
            row_dual[alone_row] = 0.0
        while sink >= 0:
            row = predecessor[sink]
            next_sink = row_partner[row] if row != root else -1
            row_partner[row] = sink
            column_partner[sink] = row
            sink = next_sink
        for place in range(touched_count):
            distance[touched[place]] = np.inf
            done[touched[place]] = False
    return row_partner, row_dual, column_dual, True


@kernel
def _heap_push(keys, items, count, key, item):
    place = count
    while place > 0:
        parent = (place - 1) // 2
        if keys[parent] <= key:
            break
        keys[place] = keys[parent]
        items[place] = items[parent]
        place = parent
    keys[place] = key
    items[place] = item
    return count + 1


@kernel
def _heap_pop(keys, items, count):
    count -= 1
    key, item = keys[count], items[count]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[place] = keys[child]
        items[place] = items[child]
        place = child
    keys[place] = key
    items[place] = item
    return count
