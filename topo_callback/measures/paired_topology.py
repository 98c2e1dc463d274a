"""How far the topology of a layer moved between two samples, prompt by prompt: RTD, its light forms, tree similarity.

Barcodes of two samples are compared without knowing which prompts make a bar; these measures know it. The functions
behind them are imported where they are used, so that importing the measures loads no engine.
"""

from __future__ import annotations

import dataclasses

from topo_callback.measures.missing import NOT_KEPT, Missing, Number, all_missing, or_missing
from topo_callback.measures.registry import LayerView, pair_measure

_ALL_EQUAL = "all points of a cloud are equal"
_DIVERGENCES = ("rtd_lite", "srtd_lite", "max_rtd_lite")


@pair_measure("rtd")
def rtd(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`rtd`, representation topology divergence (Barannikov et al., arXiv 2201.00058), of one layer at two samples.

    Half the sum of the lengths of the H1 bars of the filtration that compares both distances of every pair of prompts,
    in both orders; see `representation_topology_divergence`. 0 for equal shapes; it depends on neither scale nor
    rotation. Distances are in units of their .9 quantile. Missing where the earlier ones are no longer kept.
    Cost: two H1 barcodes of points + 1 vertices, 3 ms for 256 points.
    """
    from topo_callback.homology.paired_topology import representation_topology_divergence

    if now.distances is None or earlier.distances is None:
        return {"rtd": Missing(NOT_KEPT)}
    value = representation_topology_divergence(now.distances, earlier.distances, threads=1)
    return {"rtd": or_missing(value, _ALL_EQUAL)}


@pair_measure("rtd_lite")
def rtd_lite(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`rtd_lite`, `srtd_lite` and `max_rtd_lite`: the same of clusters alone, from lengths of minimum spanning trees.

    With distances a and b over their .9 quantile, of trees of a and b (mean), min(a, b) and max(a, b): mean - min, max
    - min, max - mean (arXiv 2503.11910, 2606.06342). 0 for equal shapes. Missing where the earlier distances are no
    longer kept. Cost: points^2 operations, 3 ms for 256 points.
    """
    from topo_callback.homology.paired_topology import tree_divergences

    if now.distances is None or earlier.distances is None:
        return all_missing(_DIVERGENCES, NOT_KEPT)
    found = tree_divergences(now.distances, earlier.distances)
    return all_missing(_DIVERGENCES, _ALL_EQUAL) if found is None else dataclasses.asdict(found)


@pair_measure("tree_similarity")
def tree_similarity(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`nts_e` and `nts_m`, normalised topological similarity (arXiv 2606.06342): does the layer cluster as before?

    Spearman's rank correlations over the edges of both minimum spanning trees: of their distances, and of the distances
    at which single linkage merges their ends. 1 for the same order. Unrelated clouds are near -0.7 and -0.1, not
    at 0: an edge is here because it is short in one of the two. Missing where the earlier distances are no longer kept.
    Cost: points^2 operations, 2 ms for 256 points.
    """
    from topo_callback.homology.paired_topology import tree_similarities

    if now.distances is None or earlier.distances is None:
        return all_missing(("nts_e", "nts_m"), NOT_KEPT)
    found = tree_similarities(now.distances, earlier.distances)
    reason = "fewer than 3 points, or a cloud whose distances along the trees are all equal"
    return {"nts_e": or_missing(found.edges, reason), "nts_m": or_missing(found.merges, reason)}
