"""Persistence along depth: how long a layer's features live among the layers around it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topo_callback.measures.missing import Number, or_missing
from topo_callback.measures.registry import depth_measure
from topo_callback.measures.views import DepthView


@depth_measure("depth_persistence")
def depth_persistence(view: DepthView) -> Mapping[str, Mapping[int | None, Number]]:
    """Persistence similarity of every layer and Betti numbers of its neighbour graph, H1.

    `depth_similarity_h1` of layer i is r(i) = mean over j of S(i, j) / beta(j), j = i included, the normalisation of
    the code released with arXiv 2410.11042; quotients with beta(j) = 0 are missing and left out of the mean. It is the
    share of each layer's features that also live in layer i. `betti_h1` counts independent loops.
    """
    from topo_callback.measures.persistence_similarity import mean_similarity, shared_features

    if view.zigzag is None:
        return {}
    stages = len(view.layers)
    similarity = mean_similarity(view.zigzag, stages, dimension=1)
    loops = np.diag(shared_features(view.zigzag, stages, dimension=1))
    numbers: dict[str, dict[int | None, Number]] = {"depth_similarity_h1": {}, "betti_h1": {}}
    for layer, mean, count in zip(view.layers, similarity.tolist(), loops.tolist(), strict=True):
        numbers["betti_h1"][layer] = float(count)
        numbers["depth_similarity_h1"][layer] = or_missing(mean, "no layer has loops")
    return numbers
