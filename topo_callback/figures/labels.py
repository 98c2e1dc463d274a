"""What a measure is called in a picture, its unit, and how a step is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

FROM_ZERO = ("wasserstein", "survival", "time_survival", "rtd", "srtd_lite", "max_rtd_lite")  # what is drawn from 0 on
_MEDIANS = "median distances"
_QUANTILES = ".9 quantiles of the distances"
_SHARE = "share of loops, H1"


@dataclass(frozen=True)
class Label:
    """Words for one measure.

    Attributes:
        title: what it shows, as a heading.
        unit: what its numbers are in, as an axis label.
    """

    title: str
    unit: str


_LABELS = {
    "wasserstein_h0.previous": Label("Displacement since the previous sample, H0", f"2-Wasserstein, {_MEDIANS}"),
    "wasserstein_h0.first": Label("Displacement since the start, H0", f"2-Wasserstein, {_MEDIANS}"),
    "wasserstein_h1.previous": Label("Displacement since the previous sample, H1", f"2-Wasserstein, {_MEDIANS}"),
    "wasserstein_h1.first": Label("Displacement since the start, H1", f"2-Wasserstein, {_MEDIANS}"),
    "wasserstein_h1_per_bar.previous": Label("Mean move of a bar since the previous sample, H1", f"RMS, {_MEDIANS}"),
    "wasserstein_h1_per_bar.first": Label("Mean move of a bar since the start, H1", f"RMS, {_MEDIANS}"),
    "mutual_knn.previous": Label("Neighbours kept since the previous sample", "share of neighbours (mutual kNN)"),
    "mutual_knn.first": Label("Neighbours kept since the start", "share of neighbours (mutual kNN)"),
    "depth_similarity_h1": Label("Loops shared over depth", "mean persistence similarity, H1"),
    "inter_layer_persistence_h1": Label("Loops that also live in other layers", "mean share of the layer's loops"),
    "depth_births_h1": Label("Loops born at each layer", "share of all loops over depth"),
    "depth_correlation_length_h1": Label("Correlation length over depth", "layers read"),
    "survival_h1.previous": Label("Loops left of those in the previous sample", _SHARE),
    "survival_h1.first": Label("Loops left of those at the start", _SHARE),
    "survival_h1_gaussian.previous": Label("Loops left of the previous sample's, Gaussian clouds", _SHARE),
    "survival_h1_gaussian.first": Label("Loops left of those at the start, Gaussian clouds", _SHARE),
    "time_survival_h1": Label("Loops in every sample since the start", _SHARE),
    "time_births_h1": Label("Loops born since the previous sample", _SHARE),
    "time_similarity_h1": Label("Loops shared over time", "mean persistence similarity, H1"),
    "betti_h1": Label("Loops of the neighbour graph", "Betti number, H1"),
    "h1_bars": Label("Loops of the cloud", "H1 bars"),
    "h1_total_persistence_scaled": Label("Total persistence of the loops", f"H1, {_MEDIANS}"),
    "median_distance": Label("Size of the cloud", "median distance"),
    "dataset_entropy": Label("Entropy of the spectrum", "nats"),
    "effective_rank": Label("Effective rank", "directions"),
    "rankme": Label("RankMe, centred", "directions"),
    "participation_ratio": Label("Participation ratio", "directions"),
    "anisotropy": Label("Variance along the first direction", "share of the variance"),
    "spectral_decay": Label("Decay of the spectrum", "power-law exponent"),
    "two_nn": Label("TwoNN, regression", "dimension"),
    "two_nn_ml": Label("TwoNN, maximum likelihood", "dimension"),
    "gride_2": Label("GRIDE, neighbours 2 and 4", "dimension"),
    "gride_4": Label("GRIDE, neighbours 4 and 8", "dimension"),
    "gride_8": Label("GRIDE, neighbours 8 and 16", "dimension"),
    "gride_16": Label("GRIDE, neighbours 16 and 32", "dimension"),
    "centred_cosine": Label("Mean cosine at the centroid", "cosine"),
    "hubness": Label("Hubness", "skewness of the in-degree"),
    "overlap_below": Label("Neighbours shared with the layer below", "share of neighbours"),
    "prompt_entropy": Label("Entropy of a prompt's tokens", "share of its maximum"),
    "prompt_entropy_2": Label("Entropy of a prompt's tokens, order 2", "share of its maximum"),
    "prompt_entropy_bimodality": Label("Two groups of prompts by entropy", "Sarle's coefficient"),
    "curvature": Label("Curvature of token paths", "radians"),
    "token_norm": Label("Length of tokens", "activation units"),
    "token_cosine": Label("Anisotropy of a prompt's tokens", "mean cosine"),
    "token_two_nn": Label("Dimension of a prompt's tokens", "TwoNN"),
    "general_text_loss": Label("Loss on general text", "nats per token"),
    "overlap_depth": Label("Neighbours shared over depth", "mean share of neighbours"),
    "local_two_nn": Label("Local TwoNN", "dimension, mean over points"),
    "tokens.local_two_nn": Label("Local TwoNN of the token cloud", "dimension, mean over tokens"),
    "parameter_change": Label("Change of the parameters since the start", "norm of the followed weights' change"),
    "parameter_change_relative": Label("Relative change of the parameters", "share of the norm at the start"),
}
_SINCE = {"previous": "since the previous sample", "first": "since the start"}
_PAIRS = {
    "next_token_js": Label("Answers moved", "Jensen-Shannon divergence, nats"),
    "next_token_kl": Label("Answers moved", "KL(then || now), nats"),
    "next_token_kl_reverse": Label("Answers moved", "KL(now || then), nats"),
    "next_token_tv": Label("Answers moved", "total variation"),
    "general_text_kl": Label("Next tokens of general text moved", "KL(then || now), nats"),
    "general_text_tv": Label("Next tokens of general text moved", "total variation"),
    "general_text_loss_change": Label("Change of the loss on general text", "nats per token"),
    "cka": Label("Alignment", "debiased linear CKA"),
    "cka_biased": Label("Alignment", "linear CKA"),
    "centroid_drift": Label("Move of the centroid", _MEDIANS),
    "distance_change": Label("Change of distances", f"root mean square, {_MEDIANS}"),
    "bottleneck_h0": Label("Displacement, H0", f"bottleneck, {_MEDIANS}"),
    "bottleneck_h1": Label("Displacement, H1", f"bottleneck, {_MEDIANS}"),
    "sliced_wasserstein_h0": Label("Displacement, H0", f"sliced Wasserstein, {_MEDIANS}"),
    "sliced_wasserstein_h1": Label("Displacement, H1", f"sliced Wasserstein, {_MEDIANS}"),
    "rtd": Label("Topology divergence", f"RTD, {_QUANTILES}"),
    "rtd_lite": Label("Divergence of clusters", f"RTD-lite, {_QUANTILES}"),
    "srtd_lite": Label("Divergence of clusters, symmetric", f"SRTD-lite, {_QUANTILES}"),
    "max_rtd_lite": Label("Divergence of clusters, larger distances", f"Max-RTD-lite, {_QUANTILES}"),
    "nts_e": Label("Similarity of clusters, edges", "rank correlation (NTS-E)"),
    "nts_m": Label("Similarity of clusters, merges", "rank correlation (NTS-M)"),
}


_OF_GROUPS = {
    "separation": Label("Separation, held out", "standard deviations"),
    "separation_by_chance": Label("Separation of 95 % of random labels", "standard deviations"),
    "separation_p": Label("Separation against random labels", "p"),
    "h0_gap": Label("Clusters of their own", f"gap in H0, {_MEDIANS}"),
    "purity": Label("Neighbours of the own group", "share of neighbours"),
    "purity_by_chance": Label("Neighbours of the own group by chance", "share of neighbours"),
    "drift": Label("Move of the group's mean", _MEDIANS),
    "mutual_knn": Label("Neighbours kept", "share of neighbours (mutual kNN)"),
    **{name: _PAIRS[name] for name in ("next_token_kl", "next_token_tv")},
}


_OF_DIRECTIONS = {
    "projection": Label("Length along a direction", "activation units"),
    "projection_change": Label("Moved along a direction", "standard deviations of the earlier sample"),
    "drift_cosine": Label("Drift towards a direction", "cosine"),
    "drift_cosine_by_chance": Label("Drift towards 95 % of random directions", "cosine"),
}


def label(measure: str) -> Label:
    """The words for a measure; its own name where there are none."""
    of_directions = re.fullmatch(r"(\w+)\(([^)]+)\)(?:\[(.+)\])?(?:\.(\w+))?", measure)
    if of_directions and of_directions[1] in _OF_DIRECTIONS:
        words, since = _OF_DIRECTIONS[of_directions[1]], _SINCE.get(of_directions[4] or "", "")
        of = of_directions[2] + (f", {of_directions[3]}" if of_directions[3] else "")
        return Label(f"{words.title} {since}".strip() + f": {of}", words.unit)
    of_groups = re.fullmatch(r"(\w+)\[(.+)\](?:\.(\w+))?", measure)
    if of_groups and of_groups[1] in _OF_GROUPS:
        words, since = _OF_GROUPS[of_groups[1]], _SINCE.get(of_groups[3] or "", "")
        title = f"{words.title} {since}".strip()
        return Label(f"{title}: {of_groups[2].replace('|', ' and ')}", words.unit)
    name, _, since = measure.rpartition(".")
    if name in _PAIRS and since in _SINCE:
        return Label(f"{_PAIRS[name].title} {_SINCE[since]}", _PAIRS[name].unit)
    return _LABELS.get(measure, Label(measure, "value"))


def step_name(step: int) -> str:
    """A step or a count with its thousands apart."""
    return f"{step:,}".replace(",", " ")
