"""How far a layer moved between two samples, by its distances."""

from __future__ import annotations

import math

import numpy as np

from topo_callback.measures.missing import NOT_KEPT, Missing, Number
from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView


@pair_measure("distance_change")
def distance_change(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """Root mean square over pairs of prompts of the change of their distance, each divided by the median of its sample.

    `distance_change` = sqrt(mean_ij (d_ij / median(d) - e_ij / median(e))^2), in median distances: 0 for clouds that
    differ by rotation, shift and scale. Unlike barcodes, it knows which prompts are which. Missing where the earlier
    distances are no longer kept. Cost: points^2 operations.
    """
    if now.distances is None or earlier.distances is None:
        return {"distance_change": Missing(NOT_KEPT)}
    change = now.distances.astype(np.float64) / now.median - earlier.distances.astype(np.float64) / earlier.median
    return {"distance_change": math.sqrt(float(np.mean(change**2)))}
