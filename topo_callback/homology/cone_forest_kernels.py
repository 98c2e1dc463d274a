# mypy: disable-error-code="no-untyped-def"
"""Pairing edges with cones over edges along a spanning forest. Kernels for numba, hence without annotations.

The cone over an edge closes a cycle of edges that are coned no later. Any such cycle may start its column, since they
differ by earlier columns. The best one runs along the forest that is spanned by the edges coned so far and made of
those that enter first: without triangles its last edge is its partner at once (the exchange of a matroid basis; for
graphs alone, Dey and Hou, "Computing zigzag persistence on graphs in near-linear time", arXiv 2103.07353). Triangles
are reduced away as everywhere else.
"""

import numpy as np

from topo_callback.homology.bit_tree_kernels import new_bit_tree
from topo_callback.homology.cone_pairing_kernels import (
    cut_marks,
    reduce_ascending,
    reduce_column,
    with_marks,
    with_space,
)
from topo_callback.homology.jit_kernels import kernel


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
