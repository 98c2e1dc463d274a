"""Persistence along depth: how long a layer's features live among the layers around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from topo_callback.homology.barcode import Barcode
from topo_callback.measures.registry import depth_measure


@depth_measure("depth_persistence")
def depth_persistence(zigzag: Barcode, layers: Sequence[int]) -> Mapping[str, Mapping[int | None, float]]:
    """Persistence similarity of every layer and Betti numbers of its neighbour graph, H1.

    `depth_similarity_h1` of layer i is r(i) = mean over j of S(i, j) / beta(j), j = i included, the normalisation of
    the code released with arXiv 2410.11042; quotients with beta(j) = 0 are missing and left out of the mean. It is the
    share of each layer's features that also live in layer i. `betti_h1` counts independent loops.
    """
    from topo_callback.measures.persistence_similarity import persistence_similarity

    similarity = persistence_similarity(zigzag, dimension=1, stages=len(layers))
    betti = np.diag(similarity).astype(np.float64)
    shares = np.divide(similarity, betti[None, :], out=np.full(similarity.shape, np.nan), where=betti[None, :] > 0)
    means = {layer: float(np.nanmean(row)) for layer, row in zip(layers, shares, strict=True) if np.isfinite(row).any()}
    loops: dict[int | None, float] = {layer: float(number) for layer, number in zip(layers, betti, strict=True)}
    return {"depth_similarity_h1": means, "betti_h1": loops}
