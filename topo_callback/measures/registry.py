"""The register of measures: plain functions under a name, of one of four kinds, and the views that they are given.

A measure sees views, torch-free and read-only, and returns named numbers. In place of a number that is not defined it
returns `Missing` with the reason: never zero or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int32, Int64

from topo_callback.homology.barcode import Barcode
from topo_callback.measures.missing import Number

_Function = TypeVar("_Function")
Numbers = Mapping[str, Number]


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
            `distances.chords`; None in older records. See `Sample.norms`.
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


LayerMeasure = Callable[[LayerView], Numbers]
PairMeasure = Callable[[LayerView, LayerView], Numbers]
DepthMeasure = Callable[[DepthView], Mapping[str, Mapping[int | None, Number]]]
TimeMeasure = Callable[[TimeView], Numbers]

layer_measures: dict[str, LayerMeasure] = {}
pair_measures: dict[str, PairMeasure] = {}
depth_measures: dict[str, DepthMeasure] = {}
time_measures: dict[str, TimeMeasure] = {}

needed_packages: dict[str, str] = {}  # of measures that need one which does not come with this one


def layer_measure(name: str) -> Callable[[LayerMeasure], LayerMeasure]:
    """Register a function of one layer at one step, returning {number's name: value}."""
    return _register(layer_measures, name)


def pair_measure(name: str, *, needs: str | None = None) -> Callable[[PairMeasure], PairMeasure]:
    """Register a function of one layer at two steps (now, earlier), returning {number's name: value}.

    It is applied against the previous sample and against the first one; the numbers are recorded as `<name>.previous`
    and `<name>.first`. `needs` is a package that does not come with this one.
    """
    if needs is not None:
        needed_packages[name] = needs
    return _register(pair_measures, name)


def depth_measure(name: str) -> Callable[[DepthMeasure], DepthMeasure]:
    """Register a function of all layers of one step, returning {number's name: {layer, None for all: value}}."""
    return _register(depth_measures, name)


def time_measure(name: str) -> Callable[[TimeMeasure], TimeMeasure]:
    """Register a function of one layer over the samples so far, returning {number's name: value} for the newest."""
    return _register(time_measures, name)


def measure_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted([*layer_measures, *pair_measures, *depth_measures, *time_measures]))


def installed_measures() -> tuple[str, ...]:
    """The registered names without those whose package is not installed here: what "all" stands for."""
    return tuple(name for name in measure_names() if name not in needed_packages or find_spec(needed_packages[name]))


def _register(table: dict[str, _Function], name: str) -> Callable[[_Function], _Function]:
    def keep(function: _Function) -> _Function:
        if name in measure_names():
            raise ValueError(f"a measure named {name!r} is already registered")
        table[name] = function
        return function

    return keep
