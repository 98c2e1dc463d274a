"""Graphs for zigzags: of the neighbours of a stage (union, mutual, limited in distance), and of all stages, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int32, Int64, Integer

LARGEST_POINT_COUNT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class StageGraphs:
    """One undirected graph per stage, all on the vertices 0..points-1.

    An edge may be listed several times and in either direction; engines join the listings by union.

    Attributes:
        points: number of vertices.
        first_end, second_end: int32 [listed], the two different ends of every listed edge, stage after stage.
        offsets: int64 [stages + 1]; stage s owns the listings offsets[s]:offsets[s + 1].
    """

    points: int
    first_end: Int32[np.ndarray, " listed"]
    second_end: Int32[np.ndarray, " listed"]
    offsets: Int64[np.ndarray, " boundaries"]

    @property
    def stages(self) -> int:
        """Number of stages."""
        return int(self.offsets.size) - 1

    @classmethod
    def from_neighbours(cls, neighbours: Any) -> StageGraphs:
        """Graphs in which two points are joined when either lists the other.

        Args:
            neighbours: integers [stages, points, k], or one [points, k] array per stage; `neighbours[s, i]` are the
                k neighbours of point i in stage s.

        Raises:
            ValueError: no stage, ragged stages, k of zero, a neighbour out of range, or a point that lists itself;
                the message names stage and point.
        """
        table = _neighbour_table(neighbours)
        stages, points, k = table.shape
        if points and not k:
            raise ValueError("stage 0, point 0 lists no neighbours (k is 0); give at least one neighbour per point")
        own = np.arange(points, dtype=np.int64)[:, None]
        _refuse_first(
            (table < 0) | (table >= points), table, f"is out of range; neighbours are points from 0 to {points - 1}"
        )
        _refuse_first(table == own, table, "is the point itself; leave the point out of its own neighbours")
        second_end = table.astype(np.int32).reshape(-1)
        first_end = np.broadcast_to(own.astype(np.int32), table.shape).reshape(-1)
        return cls(points, first_end, second_end, np.arange(stages + 1, dtype=np.int64) * (points * k))

    @classmethod
    def from_edges(cls, stages: Sequence[Any], points: Any) -> StageGraphs:
        """Graphs given by their edges.

        Args:
            stages: one integer array [edges, 2] per stage; an empty stage is an array without rows.
            points: number of vertices.

        Raises:
            ValueError: no stage, a stage that is not an integer array [edges, 2], an end out of range, or an edge
                from a point to itself; the message names stage and point.
        """
        whole = isinstance(points, (int, np.integer)) and not isinstance(points, bool)
        if not whole or not 0 <= points <= LARGEST_POINT_COUNT:
            raise ValueError(f"points is {points}; give the number of vertices, from 0 to {LARGEST_POINT_COUNT}")
        if len(stages) == 0:
            raise ValueError("no stages were given; a zigzag needs at least one")
        arrays = [_checked_edges(stage, edges, points) for stage, edges in enumerate(stages)]
        joined = np.concatenate(arrays)
        offsets = np.concatenate([[0], np.cumsum([len(edges) for edges in arrays])]).astype(np.int64)
        return cls(points, np.ascontiguousarray(joined[:, 0]), np.ascontiguousarray(joined[:, 1]), offsets)


def union_graph(neighbours: Integer[np.ndarray, "points k"]) -> Int[np.ndarray, "edges 2"]:
    """The graph that joins two points of which at least one lists the other (Gardinazzi et al., arXiv 2410.11042).

    Args:
        neighbours: integers [points, k], such as `nearest_neighbours` gives; not checked.

    Returns:
        int64 [edges, 2], rows (low, high) of indices of points, sorted: a stage of `zigzag_persistence`.
    """
    return _edges(neighbours, listings=1)


def mutual_graph(neighbours: Integer[np.ndarray, "points k"]) -> Int[np.ndarray, "edges 2"]:
    """The graph that joins two points that list each other: a control for the choice of `union_graph`.

    Argument and result are as in `union_graph`.
    """
    return _edges(neighbours, listings=2)


def limited_graph(
    neighbours: Integer[np.ndarray, "points k"], distances: Float[np.ndarray, "points points"], limit: float
) -> Int[np.ndarray, "edges 2"]:
    """The union graph without its longest edges.

    Args:
        neighbours: integers [points, k], as in `union_graph`.
        distances: float [points, points].
        limit: the longest edge that stays, in the unit of the distances.

    Returns:
        int64 [edges, 2], as in `union_graph`.
    """
    edges = union_graph(neighbours)
    short: Int[np.ndarray, "edges 2"] = edges[distances[edges[:, 0], edges[:, 1]] <= limit]
    return short


def _edges(neighbours: Integer[np.ndarray, "points k"], listings: int) -> Int[np.ndarray, "edges 2"]:
    points, k = neighbours.shape
    own = np.repeat(np.arange(points, dtype=np.int64), k)
    # A neighbour listed twice by the same point still is one listing.
    directed = np.unique(own * points + neighbours.reshape(-1))
    own, other = np.divmod(directed, points)
    keys, counts = np.unique(np.minimum(own, other) * points + np.maximum(own, other), return_counts=True)
    low, high = np.divmod(keys[counts >= listings], points)
    return np.stack([low, high], axis=1)


def _neighbour_table(neighbours: Any) -> Integer[np.ndarray, "stages points neighbours"]:
    """The stages as one integer array; the first irregular stage or point is refused by name."""
    if len(neighbours) == 0:
        raise ValueError("no stages were given; a zigzag needs at least one")
    if not isinstance(neighbours, np.ndarray) or neighbours.dtype == object:
        neighbours = np.stack(_equal_stages(list(neighbours)))
    if neighbours.ndim != 3:
        raise ValueError(
            f"neighbours have shape {list(neighbours.shape)}; expected [stages, points, k] "
            "(for lists of edges, say how many points there are with points=n)"
        )
    if not np.issubdtype(neighbours.dtype, np.integer):
        raise ValueError(f"neighbours are {neighbours.dtype}; expected integers (point indices from 0)")
    table: Integer[np.ndarray, "stages points neighbours"] = neighbours
    return table


def _equal_stages(stages: Sequence[Any]) -> list[np.ndarray]:
    """Every stage as an integer array [points, k] of the first stage's shape."""
    points, k = 0, 0
    arrays = []
    for stage, rows in enumerate(stages):
        lengths = [len(row) if isinstance(row, (Sequence, np.ndarray)) else -1 for row in _listed(rows, stage)]
        if -1 in lengths:
            point = lengths.index(-1)
            raise ValueError(f"stage {stage}, point {point} is {rows[point]!r}; expected a list of neighbours")
        if stage == 0:
            points, k = len(lengths), lengths[0] if lengths else 0
        for point, length in enumerate(lengths):
            if length != k and points:
                raise ValueError(
                    f"stage {stage}, point {point} lists {length} neighbours, stage 0, point 0 lists {k}; every point "
                    "of every stage needs equally many"
                )
        if len(lengths) != points:
            raise ValueError(
                f"stage {stage} has {len(lengths)} points, stage 0 has {points}; all stages need the same points"
            )
        plain = rows.tolist() if isinstance(rows, np.ndarray) and rows.dtype == object else rows
        array = np.asarray(plain) if points and k else np.empty((points, k), np.int64)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"stage {stage} holds {array.dtype} of shape {list(array.shape)}; expected integers [points, k]"
            )
        arrays.append(array)
    return arrays


def _listed(rows: Any, stage: int) -> Any:
    if not isinstance(rows, (Sequence, np.ndarray)) or (isinstance(rows, np.ndarray) and rows.ndim == 0):
        raise ValueError(f"stage {stage} is {rows!r}; expected the lists of neighbours of its points")
    return rows


def _refuse_first(wrong: np.ndarray, table: np.ndarray, why: str) -> None:
    if wrong.any():
        stage, point, place = (int(index[0]) for index in np.nonzero(wrong))
        raise ValueError(f"stage {stage}, point {point}: neighbour {int(table[stage, point, place])} {why}")


def _checked_edges(stage: int, edges: Any, points: int) -> Int32[np.ndarray, "edges 2"]:
    try:
        array = np.asarray(edges)
    except ValueError as error:
        raise ValueError(
            f"stage {stage} lists edges of different lengths; expected integer edges [edges, 2]"
        ) from error
    if array.size == 0 and (array.ndim < 2 or array.shape[1] == 2):
        return np.empty((0, 2), np.int32)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"stage {stage} is a {array.dtype} array of shape {list(array.shape)}; expected integer edges [edges, 2]"
        )
    wrong = np.argwhere((array < 0) | (array >= points))
    if wrong.size:
        edge, end = (int(index) for index in wrong[0])
        raise ValueError(
            f"stage {stage}, edge {edge} ends at point {int(array[edge, end])}; points run from 0 to {points - 1}"
        )
    loops = np.flatnonzero(array[:, 0] == array[:, 1])
    if loops.size:
        edge = int(loops[0])
        raise ValueError(f"stage {stage}, edge {edge} joins point {int(array[edge, 0])} to itself; leave it out")
    return array.astype(np.int32)
