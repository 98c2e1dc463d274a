"""Hubness: whether a few points are neighbours of very many."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from topo_callback.measures.missing import Number, or_missing
from topo_callback.measures.registry import layer_measure
from topo_callback.measures.views import LayerView


def in_degree_skewness(neighbours: Integer[np.ndarray, "points k"]) -> float | None:
    """Skewness of the in-degree of the k-nearest-neighbour graph, E(N - k)^3 / sd(N)^3 with divisor points.

    N_i is how many points list i among their k nearest, its mean is k. Radovanovic et al., JMLR 11 (2010), equation 1:
    above 0 there are hubs, which high dimension alone brings about.

    Returns:
        None where every point is listed equally often.
    """
    points, k = neighbours.shape
    deviation = np.bincount(neighbours.ravel(), minlength=points) - float(k)
    variance = float(np.mean(deviation**2))
    return float(np.mean(deviation**3)) / variance**1.5 if variance > 0 else None


@layer_measure("hubness")
def hubness(view: LayerView) -> dict[str, Number]:
    """`hubness`: skewness of the in-degree among the recorded neighbours, no unit; compare it at equal k only."""
    value = in_degree_skewness(view.neighbours)
    return {"hubness": or_missing(value, "every point is listed equally often")}
