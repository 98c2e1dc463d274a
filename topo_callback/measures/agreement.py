"""Agreement of neighbourhoods: which prompts stay neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView


def mutual_knn(first: Int32[np.ndarray, "points k"], second: Int32[np.ndarray, "points k"]) -> float:
    """Mean share of common nearest neighbours, mean_i |N_A(i) ∩ N_B(i)| / k, in [0, 1].

    Wolfram and Schein, arXiv 2504.08775; by chance k / (points - 1). The order of neighbours does not matter.

    Raises:
        ValueError: the two arrays differ in points or k.
    """
    if first.shape != second.shape:
        raise ValueError(f"neighbours of equal points and k are needed; got shapes {first.shape} and {second.shape}")
    points, k = first.shape
    stride = int(max(first.max(), second.max())) + 1
    rows = np.arange(points, dtype=np.int64)[:, None] * stride
    common = np.intersect1d(rows + first, rows + second, assume_unique=True)
    return float(common.size / (points * k))


@pair_measure("mutual_knn")
def layer_mutual_knn(now: LayerView, earlier: LayerView) -> dict[str, float]:
    """Mutual kNN of one layer between two samples."""
    return {"mutual_knn": mutual_knn(now.neighbours, earlier.neighbours)}
