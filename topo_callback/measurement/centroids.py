"""How far the middle of a layer's cloud moved between two samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topo_callback.measures.missing import NOT_KEPT, Missing, Number
from topo_callback.records.sample import Sample

_OTHER_METRIC = (
    "the centroids are those of the activations, whose distances this run does not measure (metric={metric!r})"
)


def centroid_drift(
    layer: int, now: Sample, earlier: Sample | None, medians: Mapping[int | None, float], metric: str = "euclidean"
) -> Number:
    """Euclidean distance between the means of a layer's points at two samples, in median distances of the earlier one.

    What distances inside of a cloud cannot see: a shift of all prompts alike. No unit.

    Args:
        layer: number of a layer that is ok now.
        now, earlier: the samples, `now` with centroids; None for an earlier one whose distances are no longer kept.
        medians: median distance of each layer that was ok then.
        metric: of the medians; missing for another one than "euclidean".
    """
    if metric != "euclidean":
        return Missing(_OTHER_METRIC.format(metric=metric))
    if layer not in medians:
        return Missing("the layer has no shape in the earlier sample")
    if earlier is None or earlier.centroids is None or now.centroids is None:
        return Missing(NOT_KEPT)
    first = earlier.centroids[earlier.layers.index(layer)].astype(np.float64)
    later = now.centroids[now.layers.index(layer)].astype(np.float64)
    return float(np.linalg.norm(later - first)) / medians[layer]
