"""Survival: which loops among prompts live on from one sample to another, beside what chance would keep."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Integer

from topo_callback.measures.missing import Missing, Number, all_missing, or_missing
from topo_callback.measures.registry import LayerView, pair_measure

_NO_LOOPS = "the earlier neighbour graph has no loops"


def two_stage_survival(
    first: Integer[np.ndarray, "points k"], later: Integer[np.ndarray, "points k"], dimension: int = 1
) -> float:
    """S(0, t) / Betti number of stage 0 of the zigzag of these two stages alone; NaN where stage 0 has no features.

    Independent of how densely the time between the stages was sampled, unlike survival in a zigzag over all samples.
    """
    from topo_callback.homology.descriptors import stage_survival
    from topo_callback.homology.zigzag import zigzag_persistence

    barcode = zigzag_persistence(np.stack([first, later]), max_dimension=dimension)
    return float(stage_survival(barcode, 2, dimension)[1])


@pair_measure("survival")
def survival(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """Two-stage survival: the share of the earlier neighbour graph's loops (H1) that are alive now, 0 to 1."""
    return {"survival_h1": or_missing(two_stage_survival(earlier.neighbours, now.neighbours), _NO_LOOPS)}


@pair_measure("survival_gaussian")
def survival_gaussian(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """The floor for `survival`: the same of two Gaussian clouds that have the covariance of the two samples jointly.

    A survival no higher than this is explained by how the cloud's covariance moved. `survival_h1_gaussian` is the mean
    over `gaussian.DRAWS` draws of the Gaussian clouds, the same draws for the whole run, and
    `survival_h1_gaussian_error` its standard error over them, s / sqrt(draws); missing with a single draw, which
    records of more than 1,000 points, or that an older version began, have.
    """
    names = ("survival_h1_gaussian", "survival_h1_gaussian_error")
    if now.gaussian_neighbours is None or earlier.gaussian_neighbours is None:
        return all_missing(names, "no Gaussian cloud of the earlier sample")
    k = now.neighbours.shape[1]
    draws = min(now.gaussian_neighbours.shape[1], earlier.gaussian_neighbours.shape[1]) // k
    columns = [slice(k * draw, k * (draw + 1)) for draw in range(draws)]
    each = [
        two_stage_survival(earlier.gaussian_neighbours[:, part], now.gaussian_neighbours[:, part]) for part in columns
    ]
    values = np.array(each)[~np.isnan(each)]
    if values.size == 0:
        return all_missing(names, _NO_LOOPS)
    error = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else Missing("a single Gaussian draw")
    return {names[0]: float(values.mean()), names[1]: error}
