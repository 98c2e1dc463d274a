"""Views: what a measure may know of a layer, of all layers of a step, or of a layer over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int32, Int64

from topo_callback.homology.barcode import Barcode


@dataclass(frozen=True)
class LayerView:
    """What a measure may know of one layer at one step.

    Attributes:
        layer: number of the layer, 0 for the embedding.
        barcode: Vietoris-Rips barcode of the whole cloud, in units of the metric.
        neighbours: int32 [points, k], nearest first, the point itself excluded.
        median: median of all pairwise distances, greater than 0.
        metric: "euclidean", "cosine" or "correlation".
        distances: float32 [pairs], condensed; None for an earlier sample whose distances are no longer kept.
        norms: float32 [points], the size of each point against which its coordinates are rounded, in the unit of
            `squared_distances.chords`; None in older records. See `Sample.norms`.
        gaussian_neighbours: int32 [points, draws * k], of the Gaussian clouds of equal covariance that the seed draws,
            k columns for each; None where no measure asked for it.
        subsamples: int64 [count, size], the same at every step; None when sub-sampling is off.
        subsample_barcodes: one barcode for each row of `subsamples`.
    """

    layer: int
    barcode: Barcode
    neighbours: Int32[np.ndarray, "points k"]
    median: float
    metric: str = "euclidean"
    distances: Float32[np.ndarray, " pairs"] | None = None
    norms: Float32[np.ndarray, " points"] | None = None
    gaussian_neighbours: Int32[np.ndarray, "points draws_times_k"] | None = None
    subsamples: Int64[np.ndarray, "count size"] | None = None
    subsample_barcodes: tuple[Barcode, ...] = ()

    @cached_property
    def scaled_barcode(self) -> Barcode:
        """The barcode in units of the median distance."""
        return Barcode(self.barcode.dimension, self.barcode.birth / self.median, self.barcode.death / self.median)


@dataclass(frozen=True)
class DepthView:
    """What a measure may know of all layers at one step.

    Attributes:
        layers: numbers of the layers that are ok, ascending.
        views: their views, by number.
        zigzag: barcode of the zigzag over them, the i-th layer being complex 2i; None when not computed.
    """

    layers: tuple[int, ...]
    views: Mapping[int, LayerView] = field(default_factory=dict)
    zigzag: Barcode | None = None


@dataclass(frozen=True)
class TimeView:
    """What a measure may know of one layer over the samples so far.

    Attributes:
        layer: number of the layer.
        steps: the samples in the zigzag, ascending; the newest is the one that is being measured.
        zigzag: barcode of the zigzag over them, the i-th sample being complex 2i.
    """

    layer: int
    steps: tuple[int, ...]
    zigzag: Barcode
