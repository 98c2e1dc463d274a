"""Measures: numbers for a layer, for a layer at two steps, or for all layers of one step.

Importing this package registers every measure and loads no engine; engines are loaded where a measure runs.
"""

from topo_callback.measures import agreement, barcodes, depth, displacement, scale
from topo_callback.measures.registry import LayerView, depth_measures, layer_measures, pair_measures

__all__ = [
    "LayerView",
    "agreement",
    "barcodes",
    "depth",
    "depth_measures",
    "displacement",
    "layer_measures",
    "measure_names",
    "pair_measures",
    "scale",
]


def measure_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted([*layer_measures, *pair_measures, *depth_measures]))
