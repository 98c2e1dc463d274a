"""Points as the metrics see them, computed in tiles of one fixed size from the cloud where it is.

The points of "cosine" have norm 1; those of "correlation" lose their mean before. A common centre is taken away, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TILE = 256  # points on each side of a tile
COLUMNS = 1024  # coordinates in one product


@dataclass(frozen=True)
class Rows:
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

    def kept(self) -> Rows:
        """The same numbers, computed once and for all."""
        points, width = self.cloud.shape
        whole = torch.empty((points, width), dtype=self.dtype, device=self.cloud.device)
        for rows in slices(points, TILE):
            for columns in slices(width, COLUMNS):
                whole[rows, columns] = self.tile(rows, columns)
        return Rows(whole, self.dtype)

    def row_sums(self, *, squared: bool) -> Tensor:
        """Sum of the coordinates of each point, or of their squares: [points]."""
        points, width = self.cloud.shape
        sums = torch.zeros(points, dtype=self.dtype, device=self.cloud.device)
        for rows in slices(points, TILE):
            for columns in slices(width, COLUMNS):
                tile = self.tile(rows, columns)
                sums[rows] += (tile.square() if squared else tile).sum(1)
        return sums

    def mean(self) -> Tensor:
        """Mean over the points: [width]."""
        points, width = self.cloud.shape
        sums = torch.zeros(width, dtype=self.dtype, device=self.cloud.device)
        for rows in slices(points, TILE):
            for columns in slices(width, COLUMNS):
                sums[columns] += self.tile(rows, columns).sum(0)
        return sums / points


def centred_rows(cloud: Tensor, metric: str, dtype: torch.dtype) -> Rows:
    """The points of a metric about their centre in float64; without one in float32."""
    rows = uncentred_rows(cloud, metric, dtype)
    # direct differences, the way without float64, are better off without a rounded centre
    return replace(rows, centre=rows.mean()) if dtype == torch.float64 else rows


def uncentred_rows(cloud: Tensor, metric: str, dtype: torch.dtype) -> Rows:
    """The points of a metric where they are; NaN where a point has no direction that the metric asks for."""
    rows = Rows(cloud, dtype)
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


def slices(length: int, size: int, *, start: int = 0) -> Iterator[slice]:
    """Slices of one size, the last one perhaps shorter, from `start` to `length`."""
    for first in range(start, length, size):
        yield slice(first, min(first + size, length))
