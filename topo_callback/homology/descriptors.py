"""Numbers that describe one barcode: 41 features of a Vietoris-Rips barcode, and what a zigzag's says about its stages.

Stages are the graphs of a zigzag, such as layers (depth) or samples (time). All functions are pure: a barcode, and for
zigzags the number of stages, go in, numbers come out, always the same for the same barcode. A zigzag's bars are those
of `zigzag_persistence`: complex 2s is stage s, complex 2s+1 its intersection with the next stage, and what never dies
has death 2*stages-1.

Source: Malhotra et al., arXiv 2606.19542 (the 41 features). Gardinazzi et al., arXiv 2410.11042: version 1 (persistence
similarity, the pruning rule) and the ICML 2025 version (effective persistence image, inter-layer persistence, births'
relative frequency).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int, Real

from topo_callback.homology.barcode import Barcode

STATISTICS = ("mean", "min", "q1", "median", "q3", "max", "std")
QUANTITIES = ("h0_death", "h1_birth", "h1_death", "h1_persistence", "h1_birth_death_ratio")
TOTALS = ("total_persistence", "bars", "entropy")
FEATURES = tuple(
    [f"{quantity}_{statistic}" for quantity in QUANTITIES for statistic in STATISTICS]
    + [f"h{dimension}_{total}" for dimension in (0, 1) for total in TOTALS]
)
_SCALE_FREE = ("ratio", "bars", "entropy")
Normalisation = Literal["other", "own"]


def barcode_features(barcode: Barcode) -> dict[str, float]:
    """The 41 features of one barcode over its finite bars, in the units of the barcode.

    Statistics of an empty set of bars are left out; totals and counts of an empty set are 0, its entropy is left out.
    The standard deviation has divisor n; quartiles are linearly interpolated. Persistent entropy is -sum p ln p with
    p = lifetime / total persistence, in nats.

    Args:
        barcode: of a Vietoris-Rips filtration; dimensions 0 and 1 are described.

    Returns:
        The features by name, those of `FEATURES` that are defined.

    Source: Malhotra et al., arXiv 2606.19542.
    """
    finite = np.isfinite(barcode.death)
    h0, h1 = (_rows(barcode, finite & (barcode.dimension == dimension)) for dimension in (0, 1))
    quantities = {
        "h0_death": h0[:, 1],
        "h1_birth": h1[:, 0],
        "h1_death": h1[:, 1],
        "h1_persistence": h1[:, 1] - h1[:, 0],
        "h1_birth_death_ratio": h1[:, 0] / h1[:, 1],
    }
    features: dict[str, float] = {}
    for name, values in quantities.items():
        features.update({f"{name}_{statistic}": value for statistic, value in _statistics(values).items()})
    for dimension, bars in ((0, h0), (1, h1)):
        features.update({f"h{dimension}_{total}": value for total, value in _totals(bars).items()})
    return features


def _rows(barcode: Barcode, chosen: np.ndarray) -> Float64[np.ndarray, "bars 2"]:
    return np.stack([barcode.birth[chosen], barcode.death[chosen]], axis=1)


def _statistics(values: Float64[np.ndarray, " bars"]) -> dict[str, float]:
    if values.size == 0:
        return {}
    low, first, middle, third, high = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    numbers = (values.mean(), low, first, middle, third, high, values.std())
    return {statistic: float(number) for statistic, number in zip(STATISTICS, numbers, strict=True)}


def _totals(bars: Float64[np.ndarray, "bars 2"]) -> dict[str, float]:
    lifetimes = bars[:, 1] - bars[:, 0]
    total = float(lifetimes.sum())
    numbers = {"total_persistence": total, "bars": float(len(bars))}
    if total > 0:
        share = lifetimes / total
        numbers["entropy"] = float(max(0.0, -np.sum(share * np.log(share))))
    return numbers


def is_scale_free(feature: str) -> bool:
    """Whether a feature keeps its value when all distances are multiplied by one factor."""
    return any(word in feature for word in _SCALE_FREE)


def effective_persistence_image(
    barcode: Barcode, stages: int, dimension: int = 1
) -> Int[np.ndarray, "stages stages_and_never"]:
    """How many bars are born at each stage and die at each stage, intersections counted as the stage after them.

    Births and deaths are mapped by ceil(index / 2); bars whose two ends fall together (they live in one intersection
    only) are left out.

    Args:
        barcode: of a zigzag.
        stages: how many stages it has, at least 1.
        dimension: homological dimension of the bars that count.

    Returns:
        int64 [stages, stages + 1]: rows are births 0..stages-1, columns are deaths 0..stages, the last one "never".

    Raises:
        ValueError: bars that cannot come from so many stages, or no stage.

    Source: arXiv 2410.11042, the effective persistence image ÊPI.
    """
    _check_bars(barcode, stages)
    ends = np.ceil(barcode.of(dimension) / 2).astype(np.int64)
    lasting = ends[ends[:, 0] < ends[:, 1]]
    flat = np.bincount(lasting[:, 0] * (stages + 1) + lasting[:, 1], minlength=stages * (stages + 1))
    image: Int[np.ndarray, "stages stages_and_never"] = flat.reshape(stages, stages + 1)
    return image


def shared_features(barcode: Barcode, stages: int, dimension: int = 1) -> Int[np.ndarray, "stages stages"]:
    """S(i, j): the bars that live through all of the stages from min(i, j) to max(i, j).

    That is the rank of the zigzag module between the two stages, so it depends on no choice of representatives. The
    diagonal S(i, i) is the Betti number of stage i.

    Arguments and errors are those of `effective_persistence_image`.

    Returns:
        int64 [stages, stages], symmetric.
    """
    image = effective_persistence_image(barcode, stages, dimension)
    born_by = np.cumsum(image, axis=0)
    # alive[i, j]: born at i or before, dead after j
    alive = born_by[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    shared: Int[np.ndarray, "stages stages"] = np.triu(alive) + np.triu(alive, 1).T
    return shared


def persistence_similarity(
    barcode: Barcode, stages: int, dimension: int = 1, normalisation: Normalisation = "other"
) -> Float[np.ndarray, "stages stages"]:
    """S(i, j) as a share, between 0 and 1: row i, column j. NaN where the Betti number divided by is 0.

    Args:
        barcode: the bars of a zigzag.
        stages: how many stages it has.
        dimension: homological dimension.
        normalisation: "other" divides by the Betti number of stage j (version 1 of the paper and its released code);
            "own" divides by that of stage i (the ICML version, equation 7).

    Returns:
        float64 [stages, stages].

    Raises:
        ValueError: another normalisation, or bars that cannot come from so many stages.
    """
    if normalisation not in ("other", "own"):
        raise ValueError(f'unknown normalisation "{normalisation}"; accepted: "other", "own"')
    shared = shared_features(barcode, stages, dimension)
    betti = np.diagonal(shared)
    divisor = np.broadcast_to(betti if normalisation == "other" else betti[:, None], shared.shape)
    similarity = np.full(shared.shape, np.nan)
    np.divide(shared, divisor, out=similarity, where=divisor > 0)
    return similarity


def mean_similarity(
    barcode: Barcode, stages: int, dimension: int = 1, normalisation: Normalisation = "other"
) -> Float[np.ndarray, " stages"]:
    """r(i): the mean of row i of the persistence similarity, j = i included and missing entries left out.

    The published score for pruning is the one of normalisation "other". Arguments and errors are those of
    `persistence_similarity`.

    Returns:
        float64 [stages], NaN where a whole row is missing.
    """
    similarity = persistence_similarity(barcode, stages, dimension, normalisation)
    present = ~np.isnan(similarity)
    return _quotient(np.where(present, similarity, 0).sum(axis=1), present.sum(axis=1))


def inter_layer_persistence(
    barcode: Barcode, stages: int, dimension: int = 1, alpha: float | int = 0
) -> Float[np.ndarray, " stages"]:
    """Z(l): the share of the features of stage l that is also alive in other stages, averaged over them.

    Z(l, l') = S(l, l') / Betti number of l, and 0 where that is 0; the mean over l' has weights |l - l'|^alpha. For
    negative alpha l' = l is left out, otherwise it counts with weight 0^alpha (1 for alpha = 0).

    Args:
        barcode: of a zigzag.
        stages: how many stages it has, at least 1.
        dimension: homological dimension of the bars that count.
        alpha: how much distant stages count.

    Returns:
        float64 [stages], NaN where no weight is left, which happens with a single stage only.

    Raises:
        ValueError: bars that cannot come from so many stages, or no stage.

    Source: arXiv 2410.11042 (ICML version), inter-layer persistence; alpha in {-1, 0, 0.5, 1, 2} there.
    """
    share = np.nan_to_num(persistence_similarity(barcode, stages, dimension, "own"), nan=0.0)
    weights = _distance_weights(np.abs(np.subtract.outer(np.arange(stages), np.arange(stages))), alpha)
    return _quotient((weights * share).sum(axis=1), weights.sum(axis=1))


def births_relative_frequency(
    barcode: Barcode, stages: int, dimension: int = 1, alpha: float | int = 0
) -> Float[np.ndarray, " stages"]:
    """B(l): the births at stage l, weighted by lifetime^alpha, as a share of all births; sums to 1.

    Lifetimes are differences of effective stages, and a feature that never dies has effective death `stages`.

    Args:
        barcode: of a zigzag.
        stages: how many stages it has, at least 1.
        dimension: homological dimension of the bars that count.
        alpha: how much long lives count.

    Returns:
        float64 [stages], NaN everywhere when nothing is born.

    Raises:
        ValueError: bars that cannot come from so many stages, or no stage.

    Source: arXiv 2410.11042 (ICML version), births' relative frequency. Departure: the printed normaliser reads as a
    misprint; here it is the sum over all stages, so that the values are frequencies.
    """
    image = effective_persistence_image(barcode, stages, dimension)
    lifetimes = np.subtract.outer(np.arange(stages), np.arange(stages + 1))
    weighted = (_distance_weights(np.abs(lifetimes), alpha) * image).sum(axis=1)
    return _quotient(weighted, np.full(stages, weighted.sum()))


def betti_curve(barcode: Barcode, stages: int, dimension: int = 1) -> Int[np.ndarray, " complexes"]:
    """The Betti number of every complex of a zigzag.

    Arguments and errors are those of `effective_persistence_image`.

    Returns:
        int64 [2 * stages - 1]: stage s at 2s, its intersection with the next stage at 2s + 1.
    """
    _check_bars(barcode, stages)
    bars = barcode.of(dimension).astype(np.int64)
    complexes = 2 * stages
    births = np.bincount(bars[:, 0], minlength=complexes)
    deaths = np.bincount(bars[:, 1], minlength=complexes)
    curve: Int[np.ndarray, " complexes"] = np.cumsum(births - deaths)[: complexes - 1].astype(np.int64)
    return curve


def similarity_by_distance(barcode: Barcode, stages: int, dimension: int = 1) -> Float[np.ndarray, " stages"]:
    """The mean of S(i, j) / Betti number of i over ordered pairs of stages at each distance |i - j|.

    Arguments and errors are those of `effective_persistence_image`.

    Returns:
        float64 [stages], by distance from 0 on; NaN where no pair at that distance has a value.
    """
    similarity = persistence_similarity(barcode, stages, dimension, "own")
    distance = np.abs(np.subtract.outer(np.arange(stages), np.arange(stages)))
    present = ~np.isnan(similarity)
    total = np.bincount(distance[present], weights=similarity[present], minlength=stages)
    return _quotient(total, np.bincount(distance[present], minlength=stages))


def correlation_length(barcode: Barcode, stages: int, dimension: int = 1) -> float:
    """The distance, in stages, at which `similarity_by_distance` has first fallen to 1/e, between stages by line.

    Arguments and errors are those of `similarity_by_distance`.

    Returns:
        The distance in stages; NaN where it never falls so far, or where a distance before that has no value.
    """
    curve = similarity_by_distance(barcode, stages, dimension)
    level = float(np.exp(-1))
    for distance in range(1, stages):
        before, here = float(curve[distance - 1]), float(curve[distance])
        if np.isnan(before) or np.isnan(here):
            break
        if here <= level:
            return distance - 1 + (before - level) / (before - here)
    return float("nan")


def stage_survival(barcode: Barcode, stages: int, dimension: int = 1) -> Float[np.ndarray, " stages"]:
    """S(0, t) / Betti number of stage 0, for every t: the share of the first stage's features alive through stage t.

    With two stages the second entry is the two-stage survival, which compares a sample with the first one directly
    and so does not depend on how densely the time between them was sampled.

    Arguments and errors are those of `effective_persistence_image`.

    Returns:
        float64 [stages], NaN where stage 0 has no features.
    """
    survival: Float[np.ndarray, " stages"] = persistence_similarity(barcode, stages, dimension, "own")[0]
    return survival


def _check_bars(barcode: Barcode, stages: int) -> None:
    if stages < 1:
        raise ValueError(f"stages is {stages}; a zigzag has at least one stage")
    if len(barcode) and not (barcode.birth.min() >= 0 and barcode.death.max() <= 2 * stages - 1):
        raise ValueError(
            f"the barcode spans complexes {barcode.birth.min():g} to {barcode.death.max():g}; a zigzag of {stages} "
            f"stages has bars between 0 and {2 * stages - 1} (published files count from 1: read_published_barcode)"
        )


def _distance_weights(
    distance: Int[np.ndarray, "rows columns"], alpha: float | int
) -> Float[np.ndarray, "rows columns"]:
    """distance^alpha, with 0 for distance 0 when alpha is negative."""
    weights = np.zeros(distance.shape)
    np.power(distance, alpha, out=weights, where=(distance > 0) | (alpha >= 0), dtype=np.float64)
    return weights


def _quotient(
    numerator: Real[np.ndarray, " entries"], denominator: Real[np.ndarray, " entries"]
) -> Float[np.ndarray, " entries"]:
    """The quotient, NaN where the denominator is 0."""
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
