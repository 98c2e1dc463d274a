# mypy: disable-error-code="no-untyped-def"
"""Reducing the boundary columns of the cone of a complex, dimension by dimension. Kernels for numba: no annotations.

Rows are numbered from the last of the filtration to the first, so that the pivot of a column is its smallest entry:
first the cones over the cells two dimensions lower, then the cells one dimension lower. Columns live in a pool: column
c is pool[column_starts[c] : column_starts[c] + column_lengths[c]].

Edges are paired along a spanning forest. The cone over an edge closes a cycle of edges that are coned no later. Any
such cycle may start its column, since they differ by earlier columns. The best one runs along the forest that is
spanned by the edges coned so far and made of those that enter first: without triangles its last edge is its partner at
once (the exchange of a matroid basis; for graphs alone, Dey and Hou, "Computing zigzag persistence on graphs in
near-linear time", arXiv 2103.07353). Triangles are reduced away as everywhere else.
"""

import numpy as np

from topo_callback.homology.bit_tree_kernels import ONE, SHIFT, SIX_BITS, new_bit_tree, smallest, take_all, toggle
from topo_callback.homology.jit_kernels import grown, kernel, trailing_zeros


@kernel
def pair_in_cone(
    starts,
    entries,
    ascending_order,
    lower_starts,
    lower_entries,
    coned_order,
    ascending_row,
    coned_row,
    is_cleared,
    marked,
):
    """Reduce the columns of one dimension of the cone: (owner, pool, column_starts, column_lengths, mark_ends).

    Columns are the cells of this dimension in ascending order, then the cones over the cells one dimension lower in
    theirs. The boundary of a cone is its base plus the cones over the base's boundary. Cleared columns are those known
    to be rows of pairs one dimension up. owner[row] is the column paired with the row, or -1.

    For the first `marked` cones the cycle of cells that is coned is kept too: behind the column, up to its mark_ends,
    are the rows of that cycle's cells, each plus the number of rows.
    """
    cells = ascending_order.size
    columns = cells + coned_order.size
    rows = ascending_row.size + coned_row.size
    owner = np.full(rows, -1, np.int32)
    column_starts = np.zeros(columns, np.int64)
    column_lengths = np.zeros(columns, np.int64)
    words, offsets = new_bit_tree(2 * rows if marked else rows)
    pool, used = reduce_ascending(
        starts,
        entries,
        ascending_order,
        ascending_row,
        is_cleared,
        owner,
        column_starts,
        column_lengths,
        words,
        offsets,
    )
    mark_ends = np.zeros(cells + marked, np.int64)
    for column in range(cells, columns):
        if column == cells + marked:
            cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows)
        if is_cleared[column]:
            continue
        begin = used
        cell = coned_order[column - cells]
        pool = with_space(pool, used, lower_starts[cell + 1] - lower_starts[cell] + 1)
        for place in range(lower_starts[cell], lower_starts[cell + 1]):
            pool[used] = coned_row[lower_entries[place]]
            used += 1
        pool[used] = ascending_row[cell]
        used += 1
        if column < cells + marked:
            pool, used = with_marks(pool, used - 1, used, rows)
        pool, used = reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets)
    if columns == cells + marked:
        cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows)
    return owner, pool, column_starts, column_lengths, mark_ends


@kernel
def with_marks(pool, begin, used, rows):
    """Append the marks of the entries pool[begin:used]: (pool, used)."""
    pool = with_space(pool, used, used - begin)
    end = used
    for place in range(begin, end):
        pool[used] = pool[place] + rows
        used += 1
    return pool, used


@kernel
def cut_marks(pool, column_starts, column_lengths, mark_ends, cells, rows):
    """Shorten the marked columns by their marks, which come last."""
    for column in range(cells, mark_ends.size):
        begin = column_starts[column]
        length = column_lengths[column]
        mark_ends[column] = begin + length
        while length > 0 and pool[begin + length - 1] >= rows:
            length -= 1
        column_lengths[column] = length


@kernel
def reduce_ascending(
    starts, entries, ascending_order, ascending_row, is_cleared, owner, column_starts, column_lengths, words, offsets
):
    """Reduce the columns of the cells themselves, in ascending order: (pool, its used length)."""
    pool = np.empty(4096, np.int32)
    used = 0
    for column in range(ascending_order.size):
        if is_cleared[column]:
            continue
        begin = used
        cell = ascending_order[column]
        pool = with_space(pool, used, starts[cell + 1] - starts[cell])
        for place in range(starts[cell], starts[cell + 1]):
            pool[used] = ascending_row[entries[place]]
            used += 1
        pool, used = reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets)
    return pool, used


@kernel
def reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets):
    """Reduce the column pool[begin:used] and keep it at its pivot, or forget it when it becomes 0: (pool, used)."""
    if begin == used:
        return pool, used
    pivot = np.int64(pool[begin])
    for place in range(begin + 1, used):
        pivot = min(pivot, np.int64(pool[place]))
    if owner[pivot] >= 0:
        for place in range(begin, used):
            toggle(words, offsets, pool[place])
        leaves = offsets[1]
        entries = 0
        while pivot >= 0 and owner[pivot] >= 0 and entries < 4 * leaves:
            added = owner[pivot]
            for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
                toggle(words, offsets, pool[place])
            entries += column_lengths[added]
            pivot = smallest(words, offsets)
        if pivot >= 0 and owner[pivot] >= 0:
            # Many entries: from here on looking through the leaves costs less than keeping up the tree.
            words[leaves:] = 0
            pivot = add_owners(pivot, pool, owner, column_starts, column_lengths, words[:leaves])
            pool, used = take_rest(words[:leaves], pivot, pool, begin)
        else:
            pool, used = take_all(words, offsets, pool, begin)
    if used > begin:
        owner[pivot] = column
        column_starts[column] = begin
        column_lengths[column] = used - begin
    return pool, used


@kernel
def add_owners(pivot, pool, owner, column_starts, column_lengths, words):
    """Add columns to the set, a bit per row, until its pivot has no owner; returns the pivot, -1 for an empty set."""
    while pivot >= 0 and owner[pivot] >= 0:
        added = owner[pivot]
        for place in range(column_starts[added], column_starts[added] + column_lengths[added]):
            flip(words, pool[place])
        pivot = next_in(words, pivot >> 6)
    return pivot


@kernel
def flip(words, number):
    """Put the number into the set when it is out, take it out when it is in."""
    place = np.uint64(number)
    words[np.int64(place >> SHIFT)] ^= ONE << (place & SIX_BITS)


@kernel
def next_in(words, word):
    """The smallest number in the set from a word on, -1 when there is none."""
    while word < words.size:
        if words[word]:
            return word * 64 + trailing_zeros(words[word])
        word += 1
    return -1


@kernel
def take_rest(words, number, pool, used):
    """Move the set, of which `number` is the smallest, to the end of the pool: (pool, its used length)."""
    if number < 0:
        return pool, used
    for word in range(number >> 6, words.size):
        bits = words[word]
        words[word] = 0
        while bits:
            pool = with_space(pool, used, 1)
            pool[used] = word * 64 + trailing_zeros(bits)
            used += 1
            bits &= bits - ONE
    return pool, used


@kernel
def with_space(pool, used, more):
    """The pool, larger when fewer than `more` entries are free."""
    if used + more <= pool.size:
        return pool
    return grown(pool, used, 2 * (used + more))


@kernel
def pair_edges_in_cone(
    starts, entries, ascending_order, edge_starts, edge_ends, coned_order, ascending_row, coned_row, is_cleared, marked
):
    """As `pair_in_cone`, for triangles (starts, entries) and cones over edges (edge_starts, edge_ends).

    Pairs are the same; columns and marked cycles may differ by earlier ones. Every vertex must be in all stages, as all
    vertices of a zigzag of graphs on one vertex set are.
    """
    triangles = ascending_order.size
    columns = triangles + coned_order.size
    rows = ascending_row.size + coned_row.size
    owner = np.full(rows, -1, np.int32)
    column_starts = np.zeros(columns, np.int64)
    column_lengths = np.zeros(columns, np.int64)
    words, offsets = new_bit_tree(2 * rows if marked else rows)
    pool, used = reduce_ascending(
        starts,
        entries,
        ascending_order,
        ascending_row,
        is_cleared,
        owner,
        column_starts,
        column_lengths,
        words,
        offsets,
    )
    vertices = coned_row.size
    parent = np.full(vertices, -1, np.int32)
    parent_row = np.full(vertices, -1, np.int32)  # the row of the edge to the parent
    visits = np.zeros(vertices, np.int64)
    trees = np.arange(vertices).astype(np.int32)
    tree_sizes = np.ones(vertices, np.int32)
    first_coned = coned_row.copy()  # by root of `trees`: the row of its vertex that is coned first
    mark_ends = np.zeros(triangles + marked, np.int64)
    for column in range(triangles, columns):
        if column == triangles + marked:
            cut_marks(pool, column_starts, column_lengths, mark_ends, triangles, rows)
        edge = coned_order[column - triangles]
        row = ascending_row[edge]
        begin = used
        # An edge whose ends were merged by cancellation has no boundary: it is a cycle by itself.
        if edge_starts[edge + 1] - edge_starts[edge] == 2:
            one, other = edge_ends[edge_starts[edge]], edge_ends[edge_starts[edge] + 1]
            tree, other_tree = root_of(trees, one), root_of(trees, other)
            if tree != other_tree:
                if tree_sizes[tree] > tree_sizes[other_tree]:
                    one, other, tree, other_tree = other, one, other_tree, tree
                hang(parent, parent_row, one, -1, other, row)
                owner[min(first_coned[tree], first_coned[other_tree])] = column
                first_coned[other_tree] = max(first_coned[tree], first_coned[other_tree])
                tree_sizes[other_tree] += tree_sizes[tree]
                trees[tree] = other_tree
                continue
            top = meeting_vertex(parent, visits, column + 1, one, other)
            pool, used, last_in, one_side = take_path(parent, parent_row, one, top, pool, used, row, -1)
            pool, used, last_in, other_side = take_path(parent, parent_row, other, top, pool, used, last_in, -1)
            if other_side >= 0:
                hang(parent, parent_row, other, other_side, one, row)
            elif one_side >= 0:
                hang(parent, parent_row, one, one_side, other, row)
        if is_cleared[column]:
            used = begin
            continue
        pool = with_space(pool, used, 1)
        pool[used] = row
        used += 1
        if column < triangles + marked:
            pool, used = with_marks(pool, begin, used, rows)
        pool, used = reduce_column(column, pool, begin, used, owner, column_starts, column_lengths, words, offsets)
    if columns == triangles + marked:
        cut_marks(pool, column_starts, column_lengths, mark_ends, triangles, rows)
    return owner, pool, column_starts, column_lengths, mark_ends


@kernel
def root_of(trees, vertex):
    """The vertex that stands for the tree of `vertex`; halves the way to it for the next call."""
    while trees[vertex] != vertex:
        trees[vertex] = trees[trees[vertex]]
        vertex = trees[vertex]
    return vertex


@kernel
def meeting_vertex(parent, visits, visit, one, other):
    """Where the ways from two vertices of one tree to its root meet; takes time by the length of the path between."""
    visits[one] = visit
    waiting, walking = one, other
    while visits[walking] != visit:
        visits[walking] = visit
        # The two ways take turns, so that neither runs on to a distant root.
        if parent[waiting] >= 0:
            waiting, walking = walking, parent[waiting]
        else:
            walking = parent[walking]
    return walking


@kernel
def take_path(parent, parent_row, vertex, top, pool, used, last_in, side):
    """Append the edges from `vertex` up to `top` to the pool: (pool, used, last_in, side).

    last_in is the row of the edge that enters last, of these and of the given row; side the vertex below that edge
    when it is one of these.
    """
    while vertex != top:
        row = parent_row[vertex]
        pool = with_space(pool, used, 1)
        pool[used] = row
        used += 1
        if row < last_in:
            last_in = row
            side = vertex
        vertex = parent[vertex]
    return pool, used, last_in, side


@kernel
def hang(parent, parent_row, vertex, end, above, row):
    """Hang `vertex` below `above` by the edge `row`, turning the way from it up to `end` (or the root) upside down.

    The edge between `end` and its parent is dropped.
    """
    while vertex >= 0:
        next_vertex, next_row = parent[vertex], parent_row[vertex]
        parent[vertex], parent_row[vertex] = above, row
        if vertex == end:
            return
        above, row, vertex = vertex, next_row, next_vertex
