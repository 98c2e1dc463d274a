"""Measures: numbers for a layer, for a layer at two steps, for all layers of one step, or for a layer over time.

Importing this package registers every measure and loads no engine; engines are loaded where a measure runs.
"""

from topo_callback.measures import agreement, barcodes, depth, displacement, scale, survival, time
from topo_callback.measures.registry import (
    depth_measures,
    layer_measures,
    measure_names,
    pair_measures,
    time_measures,
)
from topo_callback.measures.views import DepthView, LayerView, TimeView

__all__ = [
    "DepthView",
    "LayerView",
    "TimeView",
    "agreement",
    "barcodes",
    "depth",
    "depth_measures",
    "displacement",
    "layer_measures",
    "measure_names",
    "pair_measures",
    "scale",
    "survival",
    "time",
    "time_measures",
]
