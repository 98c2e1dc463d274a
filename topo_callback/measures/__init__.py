"""Measures: numbers for a layer, for a layer at two steps, for all layers of one step, or for a layer over time.

Importing this package registers every measure and loads no engine; engines are loaded where a measure runs.
"""

from topo_callback.measures import (
    agreement,
    angles,
    barcodes,
    cka,
    depth,
    displacement,
    distance_change,
    hubness,
    intrinsic_dimension,
    local_dimension,
    overlap,
    scale,
    spectrum,
    survival,
    time,
)
from topo_callback.measures.registry import (
    depth_measures,
    installed_measures,
    layer_measures,
    measure_names,
    needed_packages,
    pair_measures,
    time_measures,
)
from topo_callback.measures.views import DepthView, LayerView, TimeView

__all__ = [
    "DepthView",
    "LayerView",
    "TimeView",
    "agreement",
    "angles",
    "barcodes",
    "cka",
    "depth",
    "depth_measures",
    "displacement",
    "distance_change",
    "hubness",
    "installed_measures",
    "intrinsic_dimension",
    "layer_measures",
    "local_dimension",
    "measure_names",
    "needed_packages",
    "overlap",
    "pair_measures",
    "scale",
    "spectrum",
    "survival",
    "time",
    "time_measures",
]
