"""Clouds to distances and neighbours, in torch, on the device where the cloud is.

Distances come from a centred Gram matrix in float64: |x|^2 + |y|^2 - 2<x, y>. In float64 the cancellation costs
nothing that float32 can show, except for pairs that are very near for their norms; those are computed again from their
differences. Products in float64 are never TF32 and never autocast, so no global flag is touched. Work is cut into
tiles of one fixed size: the memory budget decides whether the float64 copy is kept, never how a number is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from topo_callback.devices import has_float64, widest
from topo_callback.errors import ConfigurationError
from topo_callback.tiles import COLUMNS, TILE, Rows, centred_rows, slices, uncentred_rows

METRICS = ("euclidean", "cosine", "correlation")
PAIRS = 512  # near pairs computed at once
ROWS = 32  # of a strip, whose places among the pairs are computed at once
# Pairs nearer than this times their squared norms are computed from differences. The error of the Gram form is some
# 10 units of 1e-16 of the squared norms, so above it a squared distance is right to 1e-8, a sixth of float32's unit.
NEAR = 1e-7
_MARK = -1.0  # in the place of the distance of such a pair, until it is computed


def condensed_distances(
    cloud: Num[Tensor, "points width"],
    *,
    metric: str = "euclidean",
    device_bytes: int = 1 << 30,
    one_point: bool | None = None,
) -> Float[Tensor, " pairs"]:
    """All pairwise distances, in the condensed order of scipy's `pdist`: (0,1), (0,2), ..., (1,2), ...

    Args:
        cloud: points in any floating type, on any device. An accelerator is waited for once, and once more for every
            256 points where there are pairs that are very near.
        metric: "euclidean"; "cosine" is 1 - <u, v>/(|u||v|), "correlation" the same of rows less their mean.
        device_bytes: memory that may be used beside the cloud and the result; at least `least_bytes`.
        one_point: whether all points are equal and finite, from `looked_at`; None: the device is asked.

    Returns:
        float32 on the cloud's device, within one float32 rounding of float64 (without float64 on the device, MPS:
        within 1e-5 relative), for near-duplicates too; exactly 0 between equal rows; the same bits for every
        `device_bytes`. NaN where a point is one that `invalid_points` counts (for Euclidean, everywhere).

    Raises:
        ConfigurationError: unknown metric, or a budget below `least_bytes`.
    """
    one_point = bool(_one_point(cloud)) if metric == "euclidean" and one_point is None else bool(one_point)
    return next(layer_distances([cloud], metric=metric, device_bytes=device_bytes, one_point=[one_point]))


def layer_distances(
    clouds: Sequence[Num[Tensor, "points width"]] | Num[Tensor, "layers points width"],
    *,
    metric: str,
    device_bytes: int,
    one_point: Sequence[bool],
) -> Iterator[Float[Tensor, " pairs"]]:
    """`condensed_distances` of each of some clouds of one shape, in their order.

    An accelerator is waited for once for as many clouds as an eighth of `device_bytes` has room for their distances,
    which is memory beside that budget, and once more for every 256 points of one where pairs are very near.
    """
    if metric not in METRICS:
        raise ConfigurationError(f"unknown metric {metric!r}; accepted: {', '.join(METRICS)}")
    points, width = clouds[0].shape
    least = least_bytes(points, width)
    if device_bytes < least:
        raise ConfigurationError(
            f"device_bytes={device_bytes}: {points} points of width {width} need at least {least}; raise device_bytes"
        )
    together = max(1, device_bytes // (8 * 4 * max(1, points * (points - 1) // 2)))
    halved = metric != "euclidean"
    for some in slices(len(clouds), together):
        with torch.no_grad():
            group = [
                _Distances(clouds[place].detach(), metric, device_bytes, one_point=one_point[place] and not halved)
                for place in range(some.start, some.stop)
            ]
            marked = torch.stack([each.marked for each in group]).tolist()
            for each, count in zip(group, marked, strict=True):
                if count:
                    _fill_marked(each.condensed, each.apart, halved=halved)
            found = [each.condensed for each in group]
            del group, each
        while found:
            yield found.pop(0)


class _Distances:
    """The distances of a cloud, pairs that are very near still marked.

    Attributes:
        condensed: the distances.
        marked: how many of them are marks, on the device.
        apart: the points, without a centre.
    """

    def __init__(self, cloud: Tensor, metric: str, device_bytes: int, *, one_point: bool) -> None:
        points, width = cloud.shape
        self.condensed = condensed = torch.zeros(points * (points - 1) // 2, dtype=torch.float32, device=cloud.device)
        self.marked = torch.zeros((), dtype=torch.int64, device=cloud.device)
        exact = has_float64(cloud.device)
        rows = centred_rows(cloud, metric, torch.float64 if exact else torch.float32)
        # the centre, which one far point can carry away from all others, is no part of a difference
        self.apart = replace(rows, centre=None)
        if one_point:
            return  # the embedding under last-token pooling; every pair would be computed twice
        if exact and least_bytes(points, width) + 8 * points * width <= device_bytes:
            rows = rows.kept()
        filled = 0
        for block in slices(points, TILE):
            strip = _strip(rows, block, exact=exact, halved=metric != "euclidean")
            for values in _beyond_diagonal(strip, block.start):
                condensed[filled : filled + len(values)] = values
                filled += len(values)
                self.marked += (values < 0).sum()


def least_bytes(points: int, width: int) -> int:
    """The smallest `device_bytes` that `condensed_distances` accepts: a fixed part, one strip, and some vectors."""
    return (24 << 20) + (10 * TILE + 40 * ROWS) * points + 8 * (3 * points + 2 * width)


def nearest_neighbours(distances: Float[Tensor, " ..."], k: int) -> Int[Tensor, "points {k}"]:
    """The k nearest other points of each point, nearest first; equal distances in the order of their indices.

    Args:
        distances: condensed [pairs] or square [points, points], float32, not negative. NaN counts as infinite.
        k: number of neighbours.

    Returns:
        int32 on the device of `distances`. Beside the result, some 40 x 256 x points bytes are used.

    Raises:
        ConfigurationError: k outside 1..points-1.
    """
    square = distances.ndim == 2
    points = distances.shape[0] if square else (1 + math.isqrt(1 + 8 * distances.shape[0])) // 2
    if not 1 <= k < points:
        raise ConfigurationError(f"k={k} neighbours of {points} points; accepted: 1 to {points - 1}")
    other = torch.arange(points, device=distances.device)
    neighbours = torch.empty((points, k), dtype=torch.int32, device=distances.device)
    for start in range(0, points, TILE):
        own = other[start : start + TILE, None]
        if square:
            values = distances[start : start + TILE]
        else:
            low, high = torch.minimum(own, other), torch.maximum(own, other)
            place = low * (2 * points - low - 1) // 2 + high - low - 1
            values = distances[place.clamp_(0, len(distances) - 1)]
        # the bits of a non-negative float32 order as the number does, so one integer holds distance, then index
        bits = values.float().abs().nan_to_num(nan=math.inf).contiguous().view(torch.int32).long()
        keys = (bits << 32) | other
        keys.masked_fill_(own == other, torch.iinfo(torch.int64).max)
        nearest = keys.topk(k, dim=1, largest=False, sorted=True).values
        neighbours[start : start + TILE] = (nearest & 0xFFFFFFFF).int()
    return neighbours


def invalid_points(cloud: Num[Tensor, "points width"], *, metric: str = "euclidean") -> int:
    """How many points have no distance: a NaN or infinite coordinate; for cosine also a zero row, for correlation a
    constant one."""
    return int(_bad_points(cloud, metric))


def _bad_points(cloud: Tensor, metric: str) -> Tensor:
    bad = ~torch.isfinite(cloud).all(dim=1)
    if metric == "cosine":
        bad |= (cloud == 0).all(dim=1)
    elif metric == "correlation":
        bad |= (cloud == cloud[:, :1]).all(dim=1)
    return bad.sum()


def looked_at(clouds: Num[Tensor, "layers points width"], *, metric: str = "euclidean") -> list[tuple[int, bool]]:
    """Of each cloud its `invalid_points`, and whether all its points are equal and finite. The device is waited for
    once."""
    seen = torch.stack([torch.stack((_bad_points(each, metric), _one_point(each).long())) for each in clouds])
    return [(bad, bool(one)) for bad, one in seen.tolist()]


def point_norms(cloud: Num[Tensor, "points width"], *, metric: str = "euclidean") -> Float[Tensor, " points"]:
    """The size of each point against which its coordinates are rounded, in the unit of its Euclidean distances.

    Euclidean: its norm |x|. The metrics "cosine" and "correlation" look at points of norm 1, which are x / |x|, and x
    less its mean m over the norm of that: 1 and |x| / |x - m|. Float32, on the device of the cloud.
    """
    with torch.no_grad():
        cloud = cloud.detach()
        dtype = widest(cloud.device)
        if metric == "cosine":
            return torch.ones(len(cloud), dtype=torch.float32, device=cloud.device)
        norms: Tensor = torch.linalg.vector_norm(cloud, dim=1, dtype=dtype)
        if metric == "correlation":
            scale = uncentred_rows(cloud, metric, dtype).scale
            assert scale is not None
            norms = norms / scale[:, 0]
        return norms.float()


def leading_coordinate(cloud: Num[Tensor, "points width"], *, metric: str = "euclidean") -> Tensor:
    """The coordinate that carries the largest share of the total variance, counted from 0, and its share, 0 to 1: [2],
    on the device of the cloud, which is not waited for.

    Of the points that the metric sees: normalised ones for "cosine" and "correlation". Both are NaN where all points
    are equal or one is not finite. In float64 (float32 where the device has none), some 1,000 coordinates at a time.
    """
    with torch.no_grad():
        cloud = cloud.detach()
        rows = uncentred_rows(cloud, metric, widest(cloud.device))
        points, width = cloud.shape
        sums = torch.zeros(width, dtype=rows.dtype, device=cloud.device)
        for columns in slices(width, COLUMNS):
            part = rows.tile(slice(0, points), columns)
            part = part - part[:1]  # exactly 0 where all points are equal
            sums[columns] = (part - part.mean(0)).square_().sum(0)
        total = sums.sum()
        found = torch.stack((sums.argmax().to(sums.dtype), sums.max() / total))
        return torch.where((total > 0) & (total < math.inf), found, math.nan)


def _strip(rows: Rows, block: slice, *, exact: bool, halved: bool) -> Tensor:
    """Distances from the points of `block` to the points from its first one on: float32 [block, points].

    Pairs that are very near are marked where distances are `exact`, by products in float64.
    """
    points = rows.cloud.shape[0]
    size = len(range(points)[block])
    strip = torch.zeros((size, points), dtype=torch.float32, device=rows.cloud.device)
    for other in slices(points, TILE, start=block.start):
        squares, near = _squares(rows, block, other) if exact else (_differences_squared(rows, block, other), None)
        distances = (squares.mul_(0.5) if halved else squares.sqrt_()).float()
        strip[:, other] = distances if near is None else distances.masked_fill_(near, _MARK)
    return strip


def _beyond_diagonal(strip: Tensor, start: int) -> Iterator[Tensor]:
    """The distances of a strip in the condensed order, part by part; its first row is that of the point `start`."""
    size, points = strip.shape
    if strip.device.type == "cpu":
        own = torch.arange(start, start + size)[:, None]
        yield strip.masked_select(torch.arange(points) > own)
        return
    # how many there are is known here, and an accelerator need not be asked
    for rows in slices(size, ROWS):
        first = start + rows.start
        own = torch.arange(rows.stop - rows.start, device=strip.device)
        lengths = points - 1 - first - own
        count = (rows.stop - rows.start) * (2 * (points - 1 - first) - (rows.stop - rows.start) + 1) // 2
        row = torch.repeat_interleave(own, lengths, output_size=count)
        begin = lengths.cumsum(0) - lengths
        column = torch.arange(count, device=strip.device).sub_(begin[row]).add_(row).add_(1)
        yield strip[rows, first:].reshape(-1)[row.mul_(points - first).add_(column)]


def _squares(rows: Rows, block: slice, other: slice) -> tuple[Tensor, Tensor]:
    """(Squared distances between two blocks of points, by products in float64; which pairs are too near for that.)"""
    device = rows.cloud.device
    own_norm = torch.zeros(block.stop - block.start, dtype=rows.dtype, device=device)
    other_norm = torch.zeros(other.stop - other.start, dtype=rows.dtype, device=device)
    products = torch.zeros((len(own_norm), len(other_norm)), dtype=rows.dtype, device=device)
    for columns in slices(rows.cloud.shape[1], COLUMNS):
        left, right = rows.tile(block, columns), rows.tile(other, columns)
        products.addmm_(left, right.T)
        own_norm += left.square().sum(1)
        other_norm += right.square().sum(1)
    norms = own_norm[:, None] + other_norm[None, :]
    squares = norms - products.mul_(2)
    return squares, squares <= norms.mul_(NEAR)


def _fill_marked(condensed: Tensor, rows: Rows, *, halved: bool) -> None:
    """Put the distances of the marked pairs in their places, from differences of the rows, which have no centre."""
    points = len(rows.cloud)
    number = torch.arange(points, device=condensed.device)
    starts = number * (2 * points - number - 1) // 2  # the place of the pair of a point and the next
    for block in slices(points, TILE):
        begin, end = (each * (2 * points - each - 1) // 2 for each in (block.start, block.stop))
        marked = (condensed[begin:end] < 0).nonzero()[:, 0].add_(begin)
        for places in marked.split(PAIRS):  # type: ignore[no-untyped-call]
            first = torch.searchsorted(starts, places, right=True) - 1
            second = places - starts[first] + first + 1
            squares = _pair_squares(rows, first, second)
            condensed[places] = (squares.mul_(0.5) if halved else squares.sqrt_()).float()


def _pair_squares(rows: Rows, first: Tensor, second: Tensor) -> Tensor:
    total = torch.zeros(len(first), dtype=rows.dtype, device=first.device)
    for columns in slices(rows.cloud.shape[1], COLUMNS):
        total += (rows.tile(first, columns) - rows.tile(second, columns)).square_().sum(1)
    return total


def _differences_squared(rows: Rows, block: slice, other: slice) -> Tensor:
    """Squared distances between two blocks of points from differences, for devices without float64."""
    few = 8  # rows at once: 8 x 256 x 1024 differences are 8 MiB
    parts = []
    for start in range(block.start, block.stop, few):
        own = slice(start, min(start + few, block.stop))
        total = torch.zeros(
            (own.stop - own.start, other.stop - other.start), dtype=rows.dtype, device=rows.cloud.device
        )
        for columns in slices(rows.cloud.shape[1], COLUMNS):
            left, right = rows.tile(own, columns), rows.tile(other, columns)
            total += (left[:, None, :] - right[None, :, :]).square_().sum(2)
        parts.append(total)
    return torch.cat(parts)


def _one_point(cloud: Tensor) -> Tensor:
    return ((cloud == cloud[:1]) & torch.isfinite(cloud[:1])).all()
