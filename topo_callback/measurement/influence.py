"""The shares of the total variance that the most influential prompt and coordinate of a layer carry."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topo_callback.dynamics.dominance import COORDINATE, PROMPT
from topo_callback.measures import LayerView
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.squared_distances import centroid_distances, squared_distances
from topo_callback.records.sample import Sample


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
