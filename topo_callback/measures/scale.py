"""The size of a cloud, beside topology: raw barcodes are in these units."""

from __future__ import annotations

import numpy as np

from topo_callback.measures.registry import layer_measure
from topo_callback.measures.squared_distances import squared_distances
from topo_callback.measures.views import LayerView


@layer_measure("scale")
def scale(view: LayerView) -> dict[str, float]:
    """Median, mean and largest pairwise distance, in units of the metric, and total variance.

    For n points, total variance with divisor n is the sum of squared Euclidean distances over pairs / n^2, in squared
    activation units. With the metrics cosine and correlation it is that of the normalised points, at most 1, without
    unit, as are the spectrum and every other number that is made from inner products.
    """
    numbers = {"median_distance": view.median}
    if view.distances is not None:
        distances = view.distances.astype(np.float64)
        points = len(view.neighbours)
        numbers["mean_distance"] = float(distances.mean())
        numbers["diameter"] = float(distances.max())
        numbers["total_variance"] = float(np.sum(squared_distances(distances, view.metric))) / points**2
    return numbers
