"""The size of a cloud, beside topology: raw barcodes are in these units."""

from __future__ import annotations

import numpy as np

from topo_callback.measures.registry import layer_measure
from topo_callback.measures.views import LayerView


@layer_measure("scale")
def scale(view: LayerView) -> dict[str, float]:
    """Median, mean and largest pairwise distance, and total variance.

    All in units of the metric (its square for the variance). For n points, total variance with divisor n is
    sum of squared distances over pairs / n^2 (of Euclidean clouds).
    """
    numbers = {"median_distance": view.median}
    if view.distances is not None:
        distances = view.distances.astype(np.float64)
        points = len(view.neighbours)
        numbers["mean_distance"] = float(distances.mean())
        numbers["diameter"] = float(distances.max())
        numbers["total_variance"] = float(np.sum(distances**2)) / points**2
    return numbers
