"""Clouds to distances and neighbours, in torch, on the device where the cloud is.

Distances come from a centred Gram matrix in float64: |x|^2 + |y|^2 - 2<x, y>. In float64 the cancellation costs
nothing that float32 can show, except for pairs that are very near for their norms; those are computed again from their
differences. Products in float64 are never TF32 and never autocast, so no global flag is touched. Work is cut into
tiles of one fixed size: the memory budget decides whether the float64 copy is kept, never how a number is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from topo_callback.errors import ConfigurationError

METRICS = ("euclidean", "cosine", "correlation")
TILE = 256  # points on each side of a tile
COLUMNS = 1024  # coordinates in one product
PAIRS = 512  # near pairs computed at once
# Pairs nearer than this times their squared norms are computed from differences. The error of the Gram form is some
# 10 units of 1e-16 of the squared norms, so above it a squared distance is right to 1e-8, a sixth of float32's unit.
NEAR = 1e-7


def condensed_distances(
    cloud: Num[Tensor, "points width"], *, metric: str = "euclidean", device_bytes: int = 1 << 30
) -> Float[Tensor, " pairs"]:
    """All pairwise distances, in the condensed order of scipy's `pdist`: (0,1), (0,2), ..., (1,2), ...

    Args:
        cloud: points in any floating type, on any device.
        metric: "euclidean"; "cosine" is 1 - <u, v>/(|u||v|), "correlation" the same of rows less their mean.
        device_bytes: memory that may be used beside the cloud and the result; at least `least_bytes`.

    Returns:
        float32 on the cloud's device, within one float32 rounding of float64 (without float64 on the device, MPS:
        within 1e-5 relative), for near-duplicates too; exactly 0 between equal rows; the same bits for every
        `device_bytes`. NaN where a point is one that `invalid_points` counts (for Euclidean, everywhere).

    Raises:
        ConfigurationError: unknown metric, or a budget below `least_bytes`.
    """
    if metric not in METRICS:
        raise ConfigurationError(f"unknown metric {metric!r}; accepted: {', '.join(METRICS)}")
    points, width = cloud.shape
    least = least_bytes(points, width)
    if device_bytes < least:
        raise ConfigurationError(
            f"device_bytes={device_bytes}: {points} points of width {width} need at least {least}; raise device_bytes"
        )
    with torch.no_grad():
        cloud = cloud.detach()
        condensed = torch.zeros(points * (points - 1) // 2, dtype=torch.float32, device=cloud.device)
        if metric == "euclidean" and _one_point(cloud):
            return condensed  # the embedding under last-token pooling; every pair would be computed twice below
        exact = _has_float64(cloud.device)
        rows = _rows(cloud, metric, torch.float64 if exact else torch.float32)
        # the centre, which one far point can carry away from all others, is no part of a difference
        apart = replace(rows, centre=None)
        if exact and least + 8 * points * width <= device_bytes:
            rows = rows.kept()
        filled = 0
        for block in _slices(points, TILE):
            strip = _strip(rows, apart, block, exact=exact, halved=metric != "euclidean")
            first = torch.arange(points, device=cloud.device)[block, None]
            values = strip.masked_select(torch.arange(points, device=cloud.device) > first)
            condensed[filled : filled + len(values)] = values
            filled += len(values)
        return condensed


def least_bytes(points: int, width: int) -> int:
    """The smallest `device_bytes` that `condensed_distances` accepts: a fixed part, one strip, and some vectors."""
    return (24 << 20) + 10 * TILE * points + 8 * (3 * points + 2 * width)


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
    bad = ~torch.isfinite(cloud).all(dim=1)
    if metric == "cosine":
        bad |= (cloud == 0).all(dim=1)
    elif metric == "correlation":
        bad |= (cloud == cloud[:, :1]).all(dim=1)
    return int(bad.sum())


def point_norms(cloud: Num[Tensor, "points width"], *, metric: str = "euclidean") -> Float[Tensor, " points"]:
    """The size of each point against which its coordinates are rounded, in the unit of its Euclidean distances.

    Euclidean: its norm |x|. The metrics "cosine" and "correlation" look at points of norm 1, which are x / |x|, and x
    less its mean m over the norm of that: 1 and |x| / |x - m|. Float32, on the device of the cloud.
    """
    with torch.no_grad():
        cloud = cloud.detach()
        dtype = torch.float64 if _has_float64(cloud.device) else torch.float32
        if metric == "cosine":
            return torch.ones(len(cloud), dtype=torch.float32, device=cloud.device)
        norms: Tensor = torch.linalg.vector_norm(cloud, dim=1, dtype=dtype)
        if metric == "correlation":
            scale = _uncentred(cloud, metric, dtype).scale
            assert scale is not None
            norms = norms / scale[:, 0]
        return norms.float()


def largest_coordinate(cloud: Num[Tensor, "points width"], *, metric: str = "euclidean") -> tuple[int, float] | None:
    """The coordinate that carries the largest share of the total variance, counted from 0, and its share, 0 to 1.

    Of the points that the metric sees: normalised ones for "cosine" and "correlation". None where all points are equal
    or one is not finite. In float64 (float32 where the device has none), some 1,000 coordinates at a time.
    """
    with torch.no_grad():
        cloud = cloud.detach()
        rows = _uncentred(cloud, metric, torch.float64 if _has_float64(cloud.device) else torch.float32)
        points, width = cloud.shape
        sums = torch.zeros(width, dtype=rows.dtype, device=cloud.device)
        for columns in _slices(width, COLUMNS):
            part = rows.tile(slice(0, points), columns)
            part = part - part[:1]  # exactly 0 where all points are equal
            sums[columns] = (part - part.mean(0)).square_().sum(0)
        total = float(sums.sum())
        if not 0 < total < math.inf:
            return None
        index = int(sums.argmax())
        return index, float(sums[index]) / total


@dataclass(frozen=True)
class _Rows:
    """The points whose Euclidean distances are wanted, (cloud - shifts) / scale - centre, computed tile by tile."""

    cloud: Tensor  # [points, width]
    dtype: torch.dtype
    shifts: tuple[Tensor, ...] = ()  # [points, 1] each
    scale: Tensor | None = None  # [points, 1]
    centre: Tensor | None = None  # [width]

    def tile(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Contiguous, and perhaps the memory of the cloud itself: not to be written to."""
        tile = self.cloud[rows, columns].to(self.dtype)
        for shift in self.shifts:
            tile = tile - shift[rows]
        if self.scale is not None:
            tile = tile / self.scale[rows]
        if self.centre is not None:
            tile = tile - self.centre[columns]
        return tile.contiguous()

    def kept(self) -> _Rows:
        """The same numbers, computed once and for all."""
        points, width = self.cloud.shape
        whole = torch.empty((points, width), dtype=self.dtype, device=self.cloud.device)
        for rows in _slices(points, TILE):
            for columns in _slices(width, COLUMNS):
                whole[rows, columns] = self.tile(rows, columns)
        return _Rows(whole, self.dtype)

    def row_sums(self, *, squared: bool) -> Tensor:
        """Sum of the coordinates of each point, or of their squares: [points]."""
        points, width = self.cloud.shape
        sums = torch.zeros(points, dtype=self.dtype, device=self.cloud.device)
        for rows in _slices(points, TILE):
            for columns in _slices(width, COLUMNS):
                tile = self.tile(rows, columns)
                sums[rows] += (tile.square() if squared else tile).sum(1)
        return sums

    def mean(self) -> Tensor:
        """Mean over the points: [width]."""
        points, width = self.cloud.shape
        sums = torch.zeros(width, dtype=self.dtype, device=self.cloud.device)
        for rows in _slices(points, TILE):
            for columns in _slices(width, COLUMNS):
                sums[columns] += self.tile(rows, columns).sum(0)
        return sums / points


def _rows(cloud: Tensor, metric: str, dtype: torch.dtype) -> _Rows:
    rows = _uncentred(cloud, metric, dtype)
    # direct differences, the way without float64, are better off without a rounded centre
    return replace(rows, centre=rows.mean()) if dtype == torch.float64 else rows


def _uncentred(cloud: Tensor, metric: str, dtype: torch.dtype) -> _Rows:
    rows = _Rows(cloud, dtype)
    if metric == "correlation":
        # a second mean takes away what the rounding of the first one leaves of a row far from zero
        for _ in range(2):
            mean = rows.row_sums(squared=False) / cloud.shape[1]
            rows = replace(rows, shifts=(*rows.shifts, mean[:, None]))
        constant = (cloud == cloud[:, :1]).all(dim=1)  # there the remainder must not count as a direction
        rows.shifts[-1].masked_fill_(constant[:, None], math.nan)
    if metric != "euclidean":
        rows = replace(rows, scale=rows.row_sums(squared=True).sqrt_()[:, None])  # a zero row gives 0 / 0
    return rows


def _strip(rows: _Rows, apart: _Rows, block: slice, *, exact: bool, halved: bool) -> Tensor:
    """Distances from the points of `block` to the points from its first one on: float32 [block, points].

    `apart` are the rows without their centre, for differences.
    """
    points = rows.cloud.shape[0]
    size = len(range(points)[block])
    strip = torch.zeros((size, points), dtype=torch.float32, device=rows.cloud.device)
    for other in _slices(points, TILE, start=block.start):
        squares = _squares(rows, apart, block, other) if exact else _differences_squared(apart, block, other)
        strip[:, other] = (squares.mul_(0.5) if halved else squares.sqrt_()).float()
    return strip


def _squares(rows: _Rows, apart: _Rows, block: slice, other: slice) -> Tensor:
    """Squared distances between two blocks of points in float64, by products and, for near pairs, by differences."""
    device = rows.cloud.device
    own_norm = torch.zeros(block.stop - block.start, dtype=rows.dtype, device=device)
    other_norm = torch.zeros(other.stop - other.start, dtype=rows.dtype, device=device)
    products = torch.zeros((len(own_norm), len(other_norm)), dtype=rows.dtype, device=device)
    for columns in _slices(rows.cloud.shape[1], COLUMNS):
        left, right = rows.tile(block, columns), rows.tile(other, columns)
        products.addmm_(left, right.T)
        own_norm += left.square().sum(1)
        other_norm += right.square().sum(1)
    norms = own_norm[:, None] + other_norm[None, :]
    squares = norms - products.mul_(2)
    near = squares <= norms.mul_(NEAR)
    if block == other:
        near.triu_(1)  # the rest of a tile on the diagonal is not read
        squares.triu_(1)
    first, second = near.nonzero(as_tuple=True)
    for pairs in _slices(len(first), PAIRS):
        squares[first[pairs], second[pairs]] = _pair_squares(
            apart, first[pairs] + block.start, second[pairs] + other.start
        )
    return squares


def _pair_squares(rows: _Rows, first: Tensor, second: Tensor) -> Tensor:
    total = torch.zeros(len(first), dtype=rows.dtype, device=first.device)
    for columns in _slices(rows.cloud.shape[1], COLUMNS):
        total += (rows.tile(first, columns) - rows.tile(second, columns)).square_().sum(1)
    return total


def _differences_squared(rows: _Rows, block: slice, other: slice) -> Tensor:
    """Squared distances between two blocks of points from differences, for devices without float64."""
    few = 8  # rows at once: 8 x 256 x 1024 differences are 8 MiB
    parts = []
    for start in range(block.start, block.stop, few):
        own = slice(start, min(start + few, block.stop))
        total = torch.zeros(
            (own.stop - own.start, other.stop - other.start), dtype=rows.dtype, device=rows.cloud.device
        )
        for columns in _slices(rows.cloud.shape[1], COLUMNS):
            left, right = rows.tile(own, columns), rows.tile(other, columns)
            total += (left[:, None, :] - right[None, :, :]).square_().sum(2)
        parts.append(total)
    return torch.cat(parts)


def _one_point(cloud: Tensor) -> bool:
    return bool(((cloud == cloud[:1]) & torch.isfinite(cloud[:1])).all())


def _slices(length: int, size: int, *, start: int = 0) -> Iterator[slice]:
    for first in range(start, length, size):
        yield slice(first, min(first + size, length))


def _has_float64(device: torch.device) -> bool:
    return device.type != "mps"
