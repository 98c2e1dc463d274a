"""Overlap of neighbourhoods over depth, and with labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Integer, Shaped

from topo_callback.measures.affinity import affinity_matrix
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.registry import depth_measure
from topo_callback.measures.views import DepthView


@depth_measure("depth_overlap")
def depth_overlap(view: DepthView) -> Mapping[str, Mapping[int | None, Number]]:
    """Neighbourhood overlap between the layers of one step: shares of common nearest neighbours, 0 to 1.

    `overlap_below` of a layer is its overlap with the read layer before it (Valeriani et al., arXiv 2302.00294, there
    k = 30 and adjacent layers: fewer layers read overlap less); the first layer has none. `overlap_depth` is the mean
    of its overlap with each of the other layers. By chance k / (points - 1), k as recorded.
    Cost: layers^2 * points * k operations.
    """
    if len(view.layers) < 2:
        alone: dict[int | None, Number] = dict.fromkeys(view.layers, Missing("fewer than two layers have a shape"))
        return {"overlap_below": alone, "overlap_depth": alone} if alone else {}
    neighbours = np.stack([view.views[layer].neighbours for layer in view.layers])
    overlap = affinity_matrix(neighbours, neighbours)
    others = (overlap.sum(axis=1) - np.diagonal(overlap)) / (len(view.layers) - 1)
    below: dict[int | None, Number] = dict(zip(view.layers[1:], np.diagonal(overlap, 1).tolist(), strict=True))
    below[view.layers[0]] = Missing("no layer below it is read")
    return {"overlap_below": below, "overlap_depth": dict(zip(view.layers, others.tolist(), strict=True))}


def label_overlap(neighbours: Integer[np.ndarray, "points k"], labels: Shaped[np.ndarray, " points"]) -> float:
    """Mean share of a point's nearest neighbours that have its label, in [0, 1].

    The overlap with a ground truth of Doimo et al., arXiv 2007.03506; compare with `label_overlap_by_chance`.

    Args:
        labels: of any type that can be compared; one for each point.
    """
    return float(np.mean(labels[neighbours] == labels[:, None]))


def label_overlap_by_chance(labels: Shaped[np.ndarray, " points"]) -> float:
    """What random neighbours give: the share of ordered pairs of different points that have the same label.

    Raises:
        ValueError: fewer than two points.
    """
    points = len(labels)
    if points < 2:
        raise ValueError(f"labels of at least 2 points are needed; got {points}")
    counts = np.unique(labels, return_counts=True)[1]
    return float(np.sum(counts * (counts - 1)) / (points * (points - 1)))
