"""Numbers of the points themselves: how far their middle moved, and what the most influential one carries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from topo_callback.dynamics.dominance import COORDINATE, PROMPT
from topo_callback.measures import LayerView
from topo_callback.measures.distances import centroid_distances, squared_distances
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
    then = None if earlier is None or earlier.centroids is None else earlier.centroids[earlier.layers.index(layer)]
    mean = None if now.centroids is None else now.centroids[now.layers.index(layer)]
    return drift_of_mean(then, mean, medians.get(layer), metric)


def drift_of_mean(
    then: Float[np.ndarray, " width"] | None,
    now: Float[np.ndarray, " width"] | None,
    median: float | None,
    metric: str,
) -> Number:
    """How far a mean of points moved, in the median distance of the earlier cloud; see `centroid_drift`."""
    if metric != "euclidean":
        return Missing(_OTHER_METRIC.format(metric=metric))
    if median is None:
        return Missing("the layer has no shape in the earlier sample")
    if then is None or now is None:
        return Missing(NOT_KEPT)
    return float(np.linalg.norm(now.astype(np.float64) - then.astype(np.float64))) / median


def largest_shares(sample: Sample, view: LayerView) -> dict[str, Number]:
    """`largest_prompt_share` and `largest_coordinate_share` of a layer: shares of its total variance, 0 to 1.

    That of a prompt is its squared distance to the centroid over the sum of all; by chance some 1 / points. That of a
    coordinate is its variance over the sum of all; 1 / width where they are alike. With the metrics cosine and
    correlation both are of the normalised points. Part of the measure `scale`.
    """
    assert view.distances is not None
    squares = centroid_distances(squared_distances(view.distances, view.metric))
    none = "the sample does not say which coordinate varies most"
    known = None if sample.largest_coordinates is None else sample.largest_coordinates[sample.layers.index(view.layer)]
    share = Missing(none) if known is None or np.isnan(known[1]) else float(known[1])
    return {PROMPT: float(squares.max() / squares.sum()), COORDINATE: share}


def most_influential(sample: Sample, views: Mapping[int, LayerView]) -> dict[str, dict[str, int]]:
    """Which prompt and which coordinate these shares are of: measure -> layer, as text for JSON -> index from 0."""
    found: dict[str, dict[str, int]] = {PROMPT: {}, COORDINATE: {}}
    for layer, view in views.items():
        assert view.distances is not None
        squares = centroid_distances(squared_distances(view.distances, view.metric))
        found[PROMPT][str(layer)] = int(squares.argmax())
        if sample.largest_coordinates is not None:
            index = sample.largest_coordinates[sample.layers.index(layer), 0]
            if np.isfinite(index):
                found[COORDINATE][str(layer)] = int(index)
    return found
