"""Intrinsic dimension by ratios of neighbour distances: TwoNN, of the cloud and around each point, and GRIDE.

Estimates of one cloud differ by estimator and scale, and all are too low where the dimension is high and points few:
report "TwoNN", never "the dimension".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.distance import squareform

from topo_callback.measures.distances import chords, log_ratio, rounding_floors
from topo_callback.measures.missing import NOT_KEPT, Missing, Number, all_missing, or_missing
from topo_callback.measures.registry import LayerView, layer_measure

GRIDE_SCALES = (2, 4, 8, 16)
KEPT_SHARE = 0.9
NEIGHBOURHOOD = 128  # points, in which a local dimension is taken
_FEW = "fewer than 3 points with neighbours at distances that differ by more than rounding"
LOCAL_NAMES = ("local_two_nn", "local_two_nn_std")


def log_ratios(
    distances: Float[np.ndarray, " pairs"],
    orders: tuple[tuple[int, int], ...],
    metric: str = "euclidean",
    norms: Float[np.ndarray, " points"] | None = None,
) -> list[Float64[np.ndarray, " _"]]:
    """For every (near, far) of `orders`: log(r_far / r_near) of the points, r_j the distance to neighbour number j.

    Points that are equal to their near neighbour up to rounding are left out: their ratio is undefined; and where both
    neighbours are equally far up to rounding, the ratio is 1. See `distances.log_ratio` for the rule.

    Args:
        distances: condensed, finite.
        orders: numbers of neighbours, from 1; each far one at most points - 1.
        metric: of cosine and correlation distances, which go with the square of the chord between normalised points,
            the ratios are those of the chords.
        norms: of the points, by which rounding is judged; see `distances.rounding_floors`.
    """
    square = squareform(chords(distances, metric))
    floors = rounding_floors(square, norms)
    furthest = max(far for _, far in orders)
    # the smallest entry of a row is the point itself, at 0
    square.partition(furthest, axis=1)
    nearest = np.sort(square[:, : furthest + 1], axis=1)[:, 1:]
    return [log_ratio(nearest[:, near - 1], nearest[:, far - 1], floors) for near, far in orders]


def two_nn(ratios: Float64[np.ndarray, " points"]) -> float | None:
    """TwoNN by regression: the slope of -log(1 - F) on log(r_2 / r_1), a line through 0 without the top 10 percent.

    Facco et al., Scientific Reports 7, 12140 (2017). F of the i-th smallest of N ratios is i / N.

    Returns:
        None where fewer than 3 points have a ratio, or all ratios that are kept are 1.
    """
    count = ratios.size
    kept = int(KEPT_SHARE * count)
    if count < 3:
        return None
    x = np.sort(ratios)[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / count)
    moment = float(x @ x)
    return float(x @ y) / moment if moment > 0 else None


def two_nn_ml(ratios: Float64[np.ndarray, " points"]) -> float | None:
    """TwoNN by maximum likelihood, (N - 1) / sum log(r_2 / r_1), unbiased (Denti et al., 2022).

    Returns:
        None where fewer than 3 points have a ratio, or all ratios are 1.
    """
    total = float(ratios.sum())
    return (ratios.size - 1) / total if ratios.size >= 3 and total > 0 else None


def gride(ratios: Float64[np.ndarray, " points"], near: int, far: int) -> float | None:
    """GRIDE: maximum likelihood of the dimension d from mu = r_far / r_near.

    Denti et al., Scientific Reports 12, 20005 (2022): the density of mu is proportional to
    d (mu^d - 1)^(far - near - 1) / mu^((far - 1) d + 1). Its score falls in d and has one root. N - 1 stands for N, as
    in the authors' DADApy, so that (1, 2) is `two_nn_ml`; ratios of 1, at which the density vanishes, are left out.

    Args:
        ratios: log mu, at least 0.
        near, far: the numbers of the two neighbours, near < far.

    Returns:
        None where fewer than 3 ratios are above 1.
    """
    from scipy.optimize import brentq

    logs = ratios[ratios > 0]
    if logs.size < 3:
        return None
    between = far - near - 1
    total = float(logs.sum())

    def score(dimension: float) -> float:
        # mu^d / (mu^d - 1) = 1 / (1 - exp(-d log mu))
        bent = float(np.sum(logs / -np.expm1(-dimension * logs)))
        return (logs.size - 1) / dimension + between * bent - (far - 1) * total

    # 1 / d <= log mu / (1 - exp(-d log mu)) <= 1 / d + log mu brackets the root; the factors are for rounding
    weight = logs.size - 1 + between * logs.size
    low, high = weight / ((far - 1) * total), weight / (near * total)
    return float(brentq(score, low * (1 - 1e-9), high * (1 + 1e-9), rtol=1e-12))


@layer_measure("intrinsic_dimension")
def intrinsic_dimension(view: LayerView) -> dict[str, Number]:
    """TwoNN and GRIDE; dimensions, without a unit; they depend on neither scale nor rotation.

    `two_nn` by regression and `two_nn_ml` by maximum likelihood look at the nearest two neighbours, `gride_<j>` at
    neighbours j and 2j, a larger scale. A scale with 2j >= points is missing, and so is what the functions leave out.
    Cost: a partial sort of every row of the distance matrix, points^2 operations; memory two matrices of doubles.
    """
    points = len(view.neighbours)
    names = ("two_nn", "two_nn_ml", *(f"gride_{scale}" for scale in GRIDE_SCALES))
    if view.distances is None or points < 3:
        return all_missing(names, NOT_KEPT if view.distances is None else "fewer than 3 points")
    scales = [scale for scale in GRIDE_SCALES if 2 * scale < points]
    orders = ((1, 2), *((scale, 2 * scale) for scale in scales))
    nearest, *wider = log_ratios(view.distances, orders, view.metric, view.norms)
    found = {"two_nn": or_missing(two_nn(nearest), _FEW), "two_nn_ml": or_missing(two_nn_ml(nearest), _FEW)}
    for scale in GRIDE_SCALES:
        found[f"gride_{scale}"] = Missing(f"{points} points have no neighbour number {2 * scale}")
    for scale, ratios in zip(scales, wider, strict=True):
        found[f"gride_{scale}"] = or_missing(gride(ratios, scale, 2 * scale), _FEW)
    return found


def nearest_two(view: LayerView) -> dict[str, Number]:
    """`two_nn` and `two_nn_ml` alone, of `intrinsic_dimension`; the view has distances."""
    assert view.distances is not None
    (ratios,) = log_ratios(view.distances, ((1, 2),), view.metric, view.norms)
    return {"two_nn": or_missing(two_nn(ratios), _FEW), "two_nn_ml": or_missing(two_nn_ml(ratios), _FEW)}


def local_two_nn(
    distances: Float[np.ndarray, "points points"],
    neighbourhood: int = NEIGHBOURHOOD,
    norms: Float[np.ndarray, " points"] | None = None,
) -> Float64[np.ndarray, " points"]:
    """TwoNN by regression of each point's `neighbourhood` nearest points, itself left out, among one another.

    The first and second neighbour of a point are looked for inside the neighbourhood, as in scikit-dimension's
    pointwise fit. See `two_nn` for the regression.

    Args:
        distances: square, symmetric, zero diagonal, Euclidean (see `distances.chords`).
        neighbourhood: points in each, at least 3, at most points - 1; ties go to the lower index.
        norms: of the points, by which rounding is judged; see `distances.rounding_floors`.

    Returns:
        One dimension for each point, NaN where fewer than 3 of its neighbours differ from theirs by more than rounding,
        or all ratios that are kept are 1. Cost: points * neighbourhood^2 operations; memory 4 * neighbourhood^2 bytes.
    """
    points = len(distances)
    found = np.full(points, np.nan)
    floors = rounding_floors(distances, norms)
    for point in range(points):
        order = np.argsort(distances[point], kind="stable")
        near = order[order != point][:neighbourhood]
        inside = np.partition(distances[np.ix_(near, near)], 2, axis=1)[:, :3]
        first, second = np.sort(inside, axis=1)[:, 1:].T.astype(np.float64)
        value = two_nn(log_ratio(first, second, floors[near]))
        if value is not None:
            found[point] = value
    return found


@layer_measure("local_intrinsic_dimension")
def local_intrinsic_dimension(view: LayerView) -> dict[str, Number]:
    """`local_two_nn` and `local_two_nn_std`: mean and deviation over points of the local TwoNN with 128 neighbours.

    Of token clouds the mean is the closest published training monitor: drops precede gains, a plateau marks
    exhaustion, a rise overfitting (Ruppik et al., arXiv 2506.01034). No unit. Missing with fewer than 130 points, or
    where it is defined at no point.
    """
    points = len(view.neighbours)
    if view.distances is None:
        return all_missing(LOCAL_NAMES, NOT_KEPT)
    if points < NEIGHBOURHOOD + 2:
        return all_missing(
            LOCAL_NAMES, f"neighbourhoods of {NEIGHBOURHOOD} need {NEIGHBOURHOOD + 2} points, here are {points}"
        )
    local = local_two_nn(squareform(chords(view.distances, view.metric)), norms=view.norms)
    local = local[np.isfinite(local)]
    if local.size == 0:
        return all_missing(
            LOCAL_NAMES, "no neighbourhood has 3 points with neighbours at distances that differ by more than rounding"
        )
    return {"local_two_nn": float(local.mean()), "local_two_nn_std": float(local.std())}
