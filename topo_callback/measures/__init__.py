"""Measures: numbers for a layer, for a layer at two steps, for all layers of one step, or for a layer over time.

Importing this package registers every measure and loads no engine; engines are loaded where a measure runs.
"""

from topo_callback.measures import (
    barcodes,
    cka,
    displacement,
    intrinsic_dimension,
    neighbours,
    shape,
    spectrum,
    zigzags,
)
from topo_callback.measures.registry import (
    DepthView,
    LayerView,
    TimeView,
    depth_measures,
    installed_measures,
    layer_measures,
    measure_names,
    needed_packages,
    pair_measures,
    time_measures,
)

__all__ = [
    "DepthView",
    "LayerView",
    "TimeView",
    "barcodes",
    "cka",
    "depth_measures",
    "displacement",
    "installed_measures",
    "intrinsic_dimension",
    "layer_measures",
    "measure_names",
    "needed_packages",
    "neighbours",
    "pair_measures",
    "shape",
    "spectrum",
    "time_measures",
    "zigzags",
]
