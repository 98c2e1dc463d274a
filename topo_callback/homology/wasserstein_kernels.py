# mypy: disable-error-code="no-untyped-def"
"""Exact matching of two barcodes. Kernels for numba, hence without annotations.

A bar of midpoint m and lifetime p lies at squared distance p*p/2 from the diagonal, and two bars lie at squared
distance 2*(m - m')**2 + (p - p')**2/2 from each other. So matching the two instead of sending both to the diagonal
saves p*p' - 2*(m - m')**2, which is positive only where the midpoints are close: with bars in order of their midpoints
the partners of a bar lie in a window. Savings are computed anew each time, which is cheaper than to look them up.
"""

import numpy as np

from topo_callback.homology.jit_kernels import kernel

_COARSEST = 40  # bars


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
def greatest_savings(first_middle, first_lifetime, second_middle, second_lifetime, most_steps):
    """A matching of greatest total saving: (partner of each row or -1, duals of rows, of columns, whether finished).

    Rows are the bars of the first, columns those of the second, both sorted by midpoint; each may also stay alone at no
    saving. The duals prove that the matching is the best: both are at least 0, together at least the saving of each
    pair, equal to it on matched pairs, and 0 on whatever stays alone.

    Every 2**k-th bar of either side is matched first. The duals are a function of midpoint and lifetime that the bars
    between hardly change, so those of half as many bars, and the least that cover the others, are nearly right for all
    (Merigot, 2011, for transport in the plane), and what is left takes short paths. After looking at pairs `most_steps`
    times nothing more is matched, but the duals still cover all pairs: bars that stay alone have some above 0, so that
    the two sums differ.
    """
    step = 1
    while min(first_middle.size, second_middle.size) > _COARSEST * step:
        step *= 2
    row_dual, column_dual = np.empty(0), np.empty(0)
    row_partner, column_partner = np.empty(0, np.int64), np.empty(0, np.int64)
    steps = 0
    finished = False
    while step > 0:
        rows = first_middle[::step].copy(), first_lifetime[::step].copy()
        columns = second_middle[::step].copy(), second_lifetime[::step].copy()
        row_starts, row_ends = _windows(rows, columns)
        column_starts, column_ends = _windows(columns, rows)
        coarse = row_dual.size
        row_dual, row_partner = _spread(row_dual, row_partner, rows[0].size)
        column_dual, column_partner = _spread(column_dual, column_partner, columns[0].size)
        if coarse:
            _cover(rows, row_dual, row_starts, row_ends, 2, columns, column_dual)
        _cover(columns, column_dual, column_starts, column_ends, 1, rows, row_dual)
        _match_tight(rows, row_dual, row_partner, row_starts, row_ends, columns, column_dual, column_partner)
        steps, all_rows = _match_rows(
            rows, row_dual, row_partner, row_starts, row_ends, columns, column_dual, column_partner, steps, most_steps
        )
        # the same from the other side, for columns that stay alone with a dual above 0
        steps, all_columns = _match_rows(
            columns, column_dual, column_partner, column_starts, column_ends, rows, row_dual, row_partner, steps,
            most_steps,
        )  # fmt: skip
        finished = all_rows and all_columns
        step //= 2
    return row_partner, row_dual, column_dual, finished


@kernel
def _windows(rows, columns):
    """Where the columns begin and end, for each row, whose matching with it may save something."""
    middles, lifetimes = rows
    others = columns[0]
    starts, ends = np.zeros(middles.size, np.int64), np.zeros(middles.size, np.int64)
    longest = 0.0
    for lifetime in columns[1]:
        longest = max(longest, lifetime)
    for row in range(middles.size):
        reach = np.sqrt(lifetimes[row] * longest / 2)
        starts[row] = _first_beyond(others, middles[row] - reach)
        ends[row] = _first_beyond(others, middles[row] + reach)
    return starts, ends


@kernel
def _first_beyond(rising, value):
    """As numpy's searchsorted on the right side, which compiles for a second."""
    low, high = 0, rising.size
    while low < high:
        place = (low + high) // 2
        if rising[place] <= value:
            low = place + 1
        else:
            high = place
    return low


@kernel
def _spread(dual, partner, size):
    """Duals and partners of every second bar as those of all, with 0 and -1 between."""
    all_duals, all_partners = np.zeros(size), np.full(size, -1)
    for place in range(dual.size):
        all_duals[2 * place] = dual[place]
        if partner[place] >= 0:
            all_partners[2 * place] = 2 * partner[place]
    return all_duals, all_partners


@kernel
def _cover(rows, row_dual, starts, ends, stride, columns, column_dual):
    """Raise the duals of columns to what they must be beside every `stride`-th row."""
    for row in range(0, starts.size, stride):
        start, end = starts[row], ends[row]
        _raise(
            rows[0][row], rows[1][row], row_dual[row],
            columns[0][start:end], columns[1][start:end], column_dual[start:end],
        )  # fmt: skip


@kernel
def _raise(middle, lifetime, dual, middles, lifetimes, duals):
    for place in range(middles.size):
        apart = middle - middles[place]
        least = lifetime * lifetimes[place] - 2 * apart * apart - dual
        duals[place] = least if least > duals[place] else duals[place]


@kernel
def _match_tight(rows, row_dual, row_partner, starts, ends, columns, column_dual, column_partner):
    """Match rows with free columns where the two duals are just the saving."""
    for row in range(starts.size):
        if row_partner[row] >= 0 or row_dual[row] <= 0:
            continue
        for column in range(starts[row], ends[row]):
            apart = rows[0][row] - columns[0][column]
            most = rows[1][row] * columns[1][column] - 2 * apart * apart - column_dual[column]
            if most >= row_dual[row] and column_partner[column] < 0:
                row_partner[row] = column
                column_partner[column] = row
                break


@kernel
def _match_rows(
    rows, row_dual, row_partner, starts, ends, columns, column_dual, column_partner, steps, most_steps
):  # fmt: skip
    """Match each row whose dual is above 0, or bring it to 0: (`steps` and the pairs looked at, whether all are done).

    By shortest augmenting paths (Jonker and Volgenant, 1987): to a free column, or to a row that stays alone instead.
    """
    prices = column_dual.copy()  # infinite where the column is passed, as its distance
    distance = np.full(prices.size, np.inf)
    bits = distance.view(np.int64)  # ordered as the distances, which are not negative, and numba compares in registers
    predecessor = np.full(prices.size, -1)
    passed, passed_at = np.empty(prices.size, np.int64), np.empty(prices.size)
    for root in range(starts.size):
        if row_partner[root] >= 0 or row_dual[root] <= 0:
            continue
        if steps > most_steps:
            return steps, False
        count = 0
        reached = 0.0
        row = root
        alone_at = np.inf
        alone_row = -1
        sink = -1
        first, last = starts[root], ends[root]
        while True:
            length = reached + row_dual[row]
            if length < alone_at:
                alone_at = length
                alone_row = row
            start, end = starts[row], ends[row]
            steps += end - start
            _look_from(
                row, rows[0][row], rows[1][row], length, reached, columns[0][start:end], columns[1][start:end],
                prices[start:end], distance[start:end], predecessor[start:end],
            )  # fmt: skip
            first, last = min(first, start), max(last, end)
            column = first + _least(bits[first:last])
            if column == last or distance[column] >= alone_at:
                reached = alone_at
                break
            reached = distance[column]
            if column_partner[column] < 0:
                sink = column
                break
            passed[count] = column
            passed_at[count] = reached
            count += 1
            prices[column] = np.inf
            distance[column] = np.inf
            row = column_partner[column]
        row_dual[root] -= reached
        for place in range(count):
            column = passed[place]
            row_dual[column_partner[column]] -= reached - passed_at[place]
            column_dual[column] += reached - passed_at[place]
            prices[column] = column_dual[column]
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
        for column in range(first, last):
            distance[column] = np.inf
    return steps, True


@kernel
def _look_from(row, middle, lifetime, length, reached, middles, lifetimes, prices, distance, predecessor):
    """Shorten the paths to columns that are nearer over `row`, whose dual added to the path there is `length`."""
    for place in range(middles.size):
        apart = middle - middles[place]
        there = length + prices[place] - (lifetime * lifetimes[place] - 2 * apart * apart)
        there = there if there > reached else reached
        nearer = there < distance[place]
        distance[place] = there if nearer else distance[place]
        predecessor[place] = row if nearer else predecessor[place]


@kernel
def _least(bits):
    """The first place of the least, or 0 of none."""
    if bits.size == 0:
        return 0
    least = bits[0]
    for place in range(bits.size):
        least = bits[place] if bits[place] < least else least
    for place in range(bits.size):
        if bits[place] == least:
            return place
    return 0
