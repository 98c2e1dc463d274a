"""Persistence along time: how long a layer's loops live from sample to sample."""

from __future__ import annotations

from topo_callback.measures.missing import Number, or_missing
from topo_callback.measures.registry import time_measure
from topo_callback.measures.views import TimeView


@time_measure("time_persistence")
def time_persistence(view: TimeView) -> dict[str, Number]:
    """What the time zigzag of one layer says of its newest sample, H1.

    `time_survival_h1` is S(0, t) / beta(0): the share of the loops of the earliest sample that lived through every
    sample since; it depends on how densely time is sampled, unlike two-stage survival. `time_births_h1` is the share of
    the loops of the newest sample that were not in the one before. `time_similarity_h1` is the mean over samples j of
    S(j, t) / beta(j), t itself included, as `depth_similarity_h1` is over layers.
    """
    from topo_callback.homology.descriptors import mean_similarity, persistence_similarity

    stages = len(view.steps)
    own = persistence_similarity(view.zigzag, stages, dimension=1, normalisation="own")
    similarity = float(mean_similarity(view.zigzag, stages, dimension=1)[-1])
    return {
        "time_survival_h1": or_missing(float(own[0, -1]), "the earliest sample has no loops"),
        "time_births_h1": or_missing(1 - float(own[-1, -2]), "the newest sample has no loops"),
        "time_similarity_h1": or_missing(similarity, "no sample has loops"),
    }
