"""The spectrum of a cloud: in how many directions it extends, and how evenly.

The eigenvalues are those of the Gram matrix of the centred points, which follow from the distances alone; divided by
the number of points they are the variances along the principal components. Centring matters: uncentred activations
have one large eigenvalue for their mean, which hides the rest. Published numbers of uncentred clouds are other numbers.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import eigvalsh
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.measures.gram import gram_matrix
from topo_callback.measures.missing import NOT_KEPT, Number, all_missing, or_missing
from topo_callback.measures.registry import layer_measure
from topo_callback.measures.squared_distances import row_means, squared_distances
from topo_callback.measures.views import LayerView

MOST_POINTS = 4000  # 128 MB for each matrix of doubles, and some seconds for its eigenvalues
DECAY_RANGE = (11, 100)  # indices of the power-law fit, from 1, both included
LEAST_DECAY_POINTS = 10
NAMES = ("dataset_entropy", "effective_rank", "rankme", "participation_ratio", "anisotropy", "spectral_decay")


def spectrum(distances: Float[np.ndarray, " pairs"], metric: str = "euclidean") -> Float64[np.ndarray, " rank"]:
    """Eigenvalues of the Gram matrix that are above the rounding of the distances, descending.

    Eigenvalues, never entries, are clipped: those up to the edge of what rounding to float32 can make of a zero are
    left out. Rounding moves an entry of the Gram matrix by at most 2^-24 of the squared distance; the norm of a
    symmetric matrix of such errors is about the largest norm of a row, so the edge is 2^-23 times the largest row norm
    of the squared distances (1e-8 of the sum of the eigenvalues at 1,000 points).

    Args:
        distances: condensed, finite. Of more than `MOST_POINTS` points, that many are taken, evenly spaced by index:
            the same ones at every step.
        metric: "euclidean", "cosine" or "correlation".

    Returns:
        Empty when all points are equal. At most min(points - 1, width) values.
    """
    distances = _at_most(distances, MOST_POINTS)
    fourth_powers = squared_distances(distances, metric) ** 2
    edge = float(np.finfo(np.float32).eps) * math.sqrt(num_obs_y(distances) * float(row_means(fourth_powers).max()))
    gram = gram_matrix(distances, metric)
    eigenvalues = eigvalsh(gram, overwrite_a=True, check_finite=False)[::-1]
    kept: Float64[np.ndarray, " rank"] = eigenvalues[eigenvalues > edge]
    return kept


def _at_most(distances: Float[np.ndarray, " pairs"], most: int) -> Float[np.ndarray, " fewer"]:
    points = num_obs_y(distances)
    if points <= most:
        return distances
    chosen = np.linspace(0, points - 1, most).astype(np.int64)
    part: Float[np.ndarray, " fewer"] = squareform(squareform(distances)[np.ix_(chosen, chosen)], checks=False)
    return part


def matrix_entropy(eigenvalues: Float64[np.ndarray, " rank"], alpha: float = 1.0) -> float:
    """Matrix-based Renyi entropy in nats, log(sum_i p_i^alpha) / (1 - alpha) with p_i = eigenvalue / their sum.

    Skean et al., arXiv 2412.09563 and 2502.02013; alpha -> 1 is the von Neumann entropy -sum p log p, alpha = inf is
    -log max p. Between 0 and log(number of eigenvalues), and not rising with alpha. The papers divide by
    log min(points, width), a constant of the run.

    Args:
        eigenvalues: positive, at least one.
        alpha: order, at least 0.

    Raises:
        ValueError: a negative order, no eigenvalue, or one that is not positive.
    """
    if not alpha >= 0:
        raise ValueError(f"the order of an entropy is at least 0; got alpha={alpha}")
    if eigenvalues.size == 0 or not (eigenvalues > 0).all():
        raise ValueError(f"positive eigenvalues are needed, at least one; got {eigenvalues.size} values")
    share = eigenvalues / eigenvalues.sum()
    if alpha == 1:
        entropy = -float(np.sum(share * np.log(share)))
    elif math.isinf(alpha):
        entropy = -math.log(float(share.max()))
    else:
        entropy = math.log(float(np.sum(share**alpha))) / (1 - alpha)
    return max(0.0, entropy)


def spectral_decay(eigenvalues: Float64[np.ndarray, " rank"]) -> float | None:
    """Exponent of the power law eigenvalue_i ~ i^-decay.

    Least squares of log eigenvalue on log i, each i weighted by 1/i so that every stretch of the logarithmic axis has
    the same weight (Stringer et al., Nature 571, 2019; Agrawal et al., alpha-ReQ, NeurIPS 2022). Fitted for i from 11
    to 100, but not beyond half of the rank, where a finite sample always bends down.

    Args:
        eigenvalues: positive, descending.

    Returns:
        None where fewer than 10 indices are left to fit, that is at a rank below 40.
    """
    first, last = DECAY_RANGE[0], min(DECAY_RANGE[1], eigenvalues.size // 2)
    if last - first + 1 < LEAST_DECAY_POINTS:
        return None
    index = np.arange(first, last + 1)
    x, y, weight = np.log(index), np.log(eigenvalues[first - 1 : last]), 1 / index
    x = x - np.average(x, weights=weight)
    return -float(np.sum(weight * x * y) / np.sum(weight * x * x))


@layer_measure("spectrum")
def layer_spectrum(view: LayerView) -> dict[str, Number]:
    """What the eigenvalues of the centred Gram matrix say, p being their shares; none depends on scale or rotation.

    - `dataset_entropy`: -sum p log p, in nats (arXiv 2412.09563; there divided by log min(points, width)).
    - `effective_rank`: its exponential; `participation_ratio`: 1 / sum p^2, the exponential of the entropy of order 2;
      both count directions, participation_ratio <= effective_rank <= rankme <= min(points - 1, width).
    - `rankme`: the exponential of the entropy of the shares of the singular values, which are the roots of the
      eigenvalues (Garrido et al., arXiv 2210.02885; there uncentred).
    - `anisotropy`: the largest share, of the first principal component (Razzhigaev et al., arXiv 2311.05928).
    - `spectral_decay`: see `spectral_decay` (compared across alignment objectives in arXiv 2509.23024).

    Cost: the eigenvalues, 4/3 points^3 operations; memory five matrices of points^2 doubles, for one layer at a time.
    Missing where all points are equal, or the distances are no longer kept.
    """
    if view.distances is None:
        return all_missing(NAMES, NOT_KEPT)
    eigenvalues = spectrum(view.distances, view.metric)
    if eigenvalues.size == 0:
        return all_missing(NAMES, "all points are equal up to rounding")
    entropy = matrix_entropy(eigenvalues)
    least = 2 * (DECAY_RANGE[0] + LEAST_DECAY_POINTS - 1)
    few = f"a power law needs a rank of {least}, this cloud has {eigenvalues.size}"
    return {
        "dataset_entropy": entropy,
        "effective_rank": math.exp(entropy),
        "rankme": math.exp(matrix_entropy(np.sqrt(eigenvalues))),
        "participation_ratio": math.exp(matrix_entropy(eigenvalues, 2.0)),
        "anisotropy": float(eigenvalues[0] / eigenvalues.sum()),
        "spectral_decay": or_missing(spectral_decay(eigenvalues), few),
    }
