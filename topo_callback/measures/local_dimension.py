"""Local intrinsic dimension: TwoNN inside the neighbourhood of every point."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.distance import squareform

from topo_callback.measures.intrinsic_dimension import two_nn
from topo_callback.measures.missing import NOT_KEPT, Number, all_missing
from topo_callback.measures.registry import layer_measure
from topo_callback.measures.rounding import log_ratio, rounding_floors
from topo_callback.measures.squared_distances import chords
from topo_callback.measures.views import LayerView

NEIGHBOURHOOD = 128
NAMES = ("local_two_nn", "local_two_nn_std")


def local_two_nn(
    distances: Float[np.ndarray, "points points"],
    neighbourhood: int = NEIGHBOURHOOD,
    norms: Float[np.ndarray, " points"] | None = None,
) -> Float64[np.ndarray, " points"]:
    """TwoNN by regression of each point's `neighbourhood` nearest points, itself left out, among one another.

    The first and second neighbour of a point are looked for inside the neighbourhood, as in scikit-dimension's
    pointwise fit. See `intrinsic_dimension.two_nn` for the regression.

    Args:
        distances: square, symmetric, zero diagonal, Euclidean (see `squared_distances.chords`).
        neighbourhood: points in each, at least 3, at most points - 1; ties go to the lower index.
        norms: of the points, by which rounding is judged; see `rounding.rounding_floors`.

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
        return all_missing(NAMES, NOT_KEPT)
    if points < NEIGHBOURHOOD + 2:
        return all_missing(
            NAMES, f"neighbourhoods of {NEIGHBOURHOOD} need {NEIGHBOURHOOD + 2} points, here are {points}"
        )
    local = local_two_nn(squareform(chords(view.distances, view.metric)), norms=view.norms)
    local = local[np.isfinite(local)]
    if local.size == 0:
        return all_missing(
            NAMES, "no neighbourhood has 3 points with neighbours at distances that differ by more than rounding"
        )
    return {"local_two_nn": float(local.mean()), "local_two_nn_std": float(local.std())}
