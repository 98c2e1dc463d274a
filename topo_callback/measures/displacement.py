"""How far a layer moved between two samples: by its barcodes, by its distances, and by its topology prompt by prompt.

Barcodes of two samples are compared without knowing which prompts make a bar; RTD, its light forms and the similarity
of trees know it. The functions behind all of them are imported where they are used, so that importing the measures
loads no engine.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from topo_callback.measures.missing import NOT_KEPT, UNEQUAL_ENDLESS, Missing, Number, all_missing, or_missing
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


MOST_STEPS = 20_000_000_000  # of a matching, some 10 s


@pair_measure("wasserstein")
def wasserstein(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """2-Wasserstein distances of the H0 and H1 barcodes, median-scaled and raw.

    Order 2 with Euclidean ground distance (Malhotra et al., arXiv 2606.19542). Raw distances are largely a scale
    meter: a pure rescaling moves them as much as a change of shape, so the scaled ones are the headline. Missing
    where the barcodes have different numbers of bars that never die, or where matching thousands of noisy bars would
    take longer than some 10 s: the reason then says between which bounds the distance lies.

    The distance is a root of a sum over bars and grows as the root of their number: with twice as many prompts
    `wasserstein_h1` of real clouds is 1.41 times as large. `wasserstein_h1_per_bar` is it over the root of the mean
    number of H1 bars of the two, the root mean square move of a bar; missing where neither has one.
    """
    numbers: dict[str, Number] = {}
    for suffix, first, second in (
        ("", now.scaled_barcode, earlier.scaled_barcode),
        ("_raw", now.barcode, earlier.barcode),
    ):
        for dimension in (0, 1):
            numbers[f"wasserstein_h{dimension}{suffix}"] = _distance(first.of(dimension), second.of(dimension))
    bars = (len(now.barcode.of(1)) + len(earlier.barcode.of(1))) / 2
    whole = numbers["wasserstein_h1"]
    if isinstance(whole, float):
        whole = whole / math.sqrt(bars) if bars else Missing("neither sample has a bar in H1")
    numbers["wasserstein_h1_per_bar"] = whole
    return numbers


def loop_displacement(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`wasserstein_h1` alone, the headline of `wasserstein`."""
    return {"wasserstein_h1": _distance(now.scaled_barcode.of(1), earlier.scaled_barcode.of(1))}


def _distance(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> Number:
    """Missing, with the bounds reached, where the matching takes longer than a sample may."""
    from topo_callback.homology.barcode_distances import UnfinishedMatchingError, wasserstein_distance

    try:
        return or_missing(wasserstein_distance(first, second, most_steps=MOST_STEPS), UNEQUAL_ENDLESS)
    except UnfinishedMatchingError as given_up:
        return Missing(str(given_up))


@pair_measure("sliced_wasserstein")
def sliced_wasserstein(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`sliced_wasserstein_h0` and `_h1`: of the finite bars of the median-scaled barcodes, in median distances.

    Missing where the barcodes have different numbers of bars that never die. Cost: 150 to 12,150 sorts of all bars,
    mostly 450.
    """
    from topo_callback.homology.barcode_distances import sliced_wasserstein_distance

    found: dict[str, Number] = {}
    for dimension in (0, 1):
        bars, endless = [], []
        for view in (now, earlier):
            all_bars = view.scaled_barcode.of(dimension)
            finite = np.isfinite(all_bars[:, 1])
            bars.append(all_bars[finite])
            endless.append(int((~finite).sum()))
        name = f"sliced_wasserstein_h{dimension}"
        if endless[0] == endless[1]:
            found[name] = sliced_wasserstein_distance(bars[0], bars[1])
        else:
            found[name] = Missing(UNEQUAL_ENDLESS)
    return found


@pair_measure("bottleneck", needs="gudhi")
def bottleneck(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`bottleneck_h0` and `bottleneck_h1`: bottleneck distances of the median-scaled barcodes, in median distances.

    Missing where the barcodes have different numbers of bars that never die. Cost: near linear in the bars on real
    barcodes (Hopcroft and Karp in a k-d tree).
    """
    from topo_callback.homology.barcode_distances import bottleneck_distance

    first, second = now.scaled_barcode, earlier.scaled_barcode
    found: dict[str, Number] = {}
    for dimension in (0, 1):
        value = bottleneck_distance(first.of(dimension), second.of(dimension))
        found[f"bottleneck_h{dimension}"] = value if math.isfinite(value) else Missing(UNEQUAL_ENDLESS)
    return found


@pair_measure("distance_change")
def distance_change(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """Root mean square over pairs of prompts of the change of their distance, each divided by the median of its sample.

    `distance_change` = sqrt(mean_ij (d_ij / median(d) - e_ij / median(e))^2), in median distances: 0 for clouds that
    differ by rotation, shift and scale. Unlike barcodes, it knows which prompts are which. Missing where the earlier
    distances are no longer kept. Cost: points^2 operations.
    """
    if now.distances is None or earlier.distances is None:
        return {"distance_change": Missing(NOT_KEPT)}
    change = now.distances.astype(np.float64) / now.median - earlier.distances.astype(np.float64) / earlier.median
    return {"distance_change": math.sqrt(float(np.mean(change**2)))}
