"""The register of measures: plain functions under a name, of one of three kinds.

A measure sees `LayerView`s, torch-free and read-only, and returns named numbers. A number that is not defined for a
cloud is left out of the returned mapping: a missing value, never zero or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

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
        distances: float32 [pairs], condensed; None for an earlier sample whose distances are no longer kept.
        subsamples: int64 [count, size], the same at every step; None when sub-sampling is off.
        subsample_barcodes: one barcode for each row of `subsamples`.
    """

    layer: int
    barcode: Barcode
    neighbours: Int32[np.ndarray, "points k"]
    median: float
    distances: Float32[np.ndarray, " pairs"] | None = None
    subsamples: Int64[np.ndarray, "count size"] | None = None
    subsample_barcodes: tuple[Barcode, ...] = ()

    @cached_property
    def scaled_barcode(self) -> Barcode:
        """The barcode in units of the median distance."""
        return Barcode(self.barcode.dimension, self.barcode.birth / self.median, self.barcode.death / self.median)


_Function = TypeVar("_Function")
Numbers = Mapping[str, float]
LayerMeasure = Callable[[LayerView], Numbers]
PairMeasure = Callable[[LayerView, LayerView], Numbers]
DepthMeasure = Callable[[Barcode, Sequence[int]], Mapping[str, Mapping[int | None, float]]]

layer_measures: dict[str, LayerMeasure] = {}
pair_measures: dict[str, PairMeasure] = {}
depth_measures: dict[str, DepthMeasure] = {}


def layer_measure(name: str) -> Callable[[LayerMeasure], LayerMeasure]:
    """Register a function of one layer at one step, returning {number's name: value}."""
    return _register(layer_measures, name)


def pair_measure(name: str) -> Callable[[PairMeasure], PairMeasure]:
    """Register a function of one layer at two steps (now, earlier), returning {number's name: value}.

    It is applied against the previous sample and against step 0; the numbers are recorded as `<name>.previous` and
    `<name>.first`.
    """
    return _register(pair_measures, name)


def depth_measure(name: str) -> Callable[[DepthMeasure], DepthMeasure]:
    """Register a function of the depth zigzag and its layers, returning {number's name: {layer or None: value}}."""
    return _register(depth_measures, name)


def _register(table: dict[str, _Function], name: str) -> Callable[[_Function], _Function]:
    def keep(function: _Function) -> _Function:
        if name in layer_measures or name in pair_measures or name in depth_measures:
            raise ValueError(f"a measure named {name!r} is already registered")
        table[name] = function
        return function

    return keep
