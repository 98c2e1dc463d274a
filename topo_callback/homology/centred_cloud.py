"""A cloud about its mean, and products of its rows with a bound on their rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from topo_callback.homology.neighbour_kernels import column_sums, scale_rows, subtract

SCALES = (2.0**-50, 2.0**50)  # of clouds whose squares neither overflow nor vanish in float32


@dataclass(frozen=True)
class CentredCloud:
    """A cloud about its mean, the largest coordinate between 1/2 and 1, and what is known of the rounding.

    Attributes:
        rows: the points, in the type that products are to have.
        squares: |x|² of each point.
        bounds: see `_limit` in the kernels.
    """

    rows: Float[np.ndarray, "points width"]
    squares: Float[np.ndarray, " points"]
    bounds: tuple[float, float, float]

    @classmethod
    def of(cls, cloud: Float[np.ndarray, "points width"], dtype: type[np.floating]) -> CentredCloud | None:
        """None where the scale is extreme, or the rows too long for products of this type."""
        width = cloud.shape[1]
        unit = float(np.finfo(dtype).eps) / 2
        if width * unit > 0.01:
            return None
        sums = np.empty(width)
        column_sums(cloud, sums)
        # Any centre serves, so it is one that can be subtracted with a single rounding.
        centre = (sums / max(1, len(cloud))).astype(np.float64 if dtype == np.float64 else cloud.dtype)
        rows, squares = np.empty(cloud.shape, dtype), np.empty(len(cloud), dtype)
        scale = float(subtract(cloud, centre, rows).max(initial=0.0))
        if not SCALES[0] < scale < SCALES[1]:
            return None
        scale_rows(rows, dtype(2.0 ** -math.frexp(scale)[1]), squares)
        # A sum of `width` products in any order, the rounding of coordinates, squares and differences.
        error = width * unit / (1 - width * unit) + 10 * unit
        slack = 8 * float(np.finfo(cloud.dtype).eps) + 4 * (width + 8) * 2.0**-53
        return cls(rows, squares, (error, slack, 2.0**-100))

    def products(
        self, own: Int[np.ndarray, " rows"], memory: Float[np.ndarray, "most_rows points"]
    ) -> Float[np.ndarray, "rows points"]:
        """Of the points `own` with all points, written into the memory."""
        block = memory[: own.size]
        chosen = self.rows[own[0] : own[-1] + 1] if own[-1] - own[0] + 1 == own.size else self.rows[own]
        np.matmul(chosen, self.rows.T, out=block)
        return block

    def products_from_diagonal(self, first: int, block: Float[np.ndarray, "rows right"]) -> None:
        """Of the points from `first` on with themselves and all later ones, written into the block."""
        np.matmul(self.rows[first : first + len(block)], self.rows[first:].T, out=block)
