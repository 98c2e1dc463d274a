"""The spectrum of a cloud: in how many directions it extends, and how evenly.

The eigenvalues are those of the Gram matrix of the centred points, which follow from the distances alone; divided by
the number of points they are the variances along the principal components. Centring matters: uncentred activations
have one large eigenvalue for their mean, which hides the rest. Published numbers of uncentred clouds are other numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.linalg import eigh
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.measures.distances import gram_matrix, squared_distances
from topo_callback.measures.missing import NOT_KEPT, Missing, Number, all_missing, or_missing
from topo_callback.measures.registry import LayerView, layer_measure

MOST_POINTS = 4000  # 128 MB for each matrix of doubles, and some ten seconds for its eigenvectors
MOST_HIDDEN = 0.1  # of a number: what rounding hides could raise it by more, and it is missing
_NO_WEIGHT = 1e-3  # of the hidden directions beside the others: no number could rise by more than 2 %
DECAY_RANGE = (11, 100)  # indices of the power-law fit, from 1, both included
LEAST_DECAY_POINTS = 10
NAMES = ("dataset_entropy", "effective_rank", "rankme", "participation_ratio", "anisotropy", "spectral_decay")


@dataclass(frozen=True)
class Spectrum:
    """What is known of the eigenvalues of the Gram matrix from distances in float32.

    Attributes:
        values: the eigenvalues above their rounding, descending.
        hidden: how many further directions there could be, which rounding hides.
        hidden_sum: at most this much is the sum of their eigenvalues, in the unit of `values`.
    """

    values: Float64[np.ndarray, " rank"]
    hidden: int
    hidden_sum: float


def spectrum(distances: Float[np.ndarray, " pairs"], metric: str = "euclidean") -> Float64[np.ndarray, " rank"]:
    """Eigenvalues of the Gram matrix that are above the rounding of the distances, descending.

    See `resolved_spectrum`. At most min(points - 1, width) values; empty when all points are equal.
    """
    return resolved_spectrum(distances, metric).values


def resolved_spectrum(distances: Float[np.ndarray, " pairs"], metric: str = "euclidean") -> Spectrum:
    """Eigenvalues of the Gram matrix, each against what the rounding of the distances to float32 can make of a zero.

    Rounding moves entry ij of the Gram matrix by at most u d_ij^2 with u = 2^-24, so an eigenvalue of unit vector v by
    sum_ij e_ij v_i v_j. The bound for an eigenvalue is its own: with e = u x (d^2 as a diagonal scaling of a matrix of
    independent errors, whose norm is about 2 sqrt(points / 3)) it is below

        2 u sqrt(points w^T S w),   w_i = v_i^2,   S_ij = d_ij^4.

    A point far away is nearly an eigenvector by itself and has nearly no weight in the others, so that its large
    errors count for its own eigenvalue and not for the rest: with a point at 1,000 times the usual distance the bound
    for the rest is 1,000 times, not a million times, that of a cloud without it. What a large eigenvalue, of vector V
    and value L, mixes into the others is of second order, 4 u^2 points W^T S w / L, and is added. The rounding of
    double precision, points 2^-52 times the largest eigenvalue, is the least bound. Eigenvalues, never entries, are
    clipped.

    Args:
        distances: condensed, finite. Of more than `MOST_POINTS` points, that many are taken, evenly spaced by index:
            the same ones at every step.
        metric: "euclidean", "cosine" or "correlation".

    No bound is above twice that of the largest distance, 2 u sqrt(points) d_max^2. Where every eigenvalue is above it
    or below the rounding of doubles, as in most clouds with more coordinates than points, no vector is needed.

    Cost: 4/3 points^3 operations without vectors, 10 points^3 with them; six matrices of points^2 doubles.
    """
    distances = _at_most(distances, MOST_POINTS)
    gram = gram_matrix(distances, metric)
    values = eigh(gram, eigvals_only=True, check_finite=False)[::-1]
    points = len(values)
    if not values[0] > 0:
        return Spectrum(values[:0], 0, 0.0)
    rounding = _Rounding.of(squareform(squared_distances(distances, metric)))
    least = points * float(np.finfo(np.float64).eps) * float(values[0])
    clear = _without_vectors(values, rounding, least)
    if clear is not None:
        return clear
    values, vectors = eigh(gram, overwrite_a=True, check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    spread = rounding.spread(vectors)
    kept = rounding.above(values, vectors, spread, least)
    hidden = max(points - 1 - int(kept.sum()), 0)  # one direction is lost to centring
    if not hidden:
        return Spectrum(values[kept], 0, 0.0)
    # the sum is known better than its parts, whose errors cancel
    doubt = rounding.of_sum(values[kept], spread[:, kept], vectors[:, ~kept]) + least
    return Spectrum(values[kept], hidden, max(0.0, float(values[~kept].sum())) + doubt)


def _without_vectors(values: Float64[np.ndarray, " points"], rounding: _Rounding, least: float) -> Spectrum | None:
    """What eigenvalues alone decide; None where some are in doubt, or what is hidden might count."""
    points = len(values)
    kept = values > max(rounding.most(points), least)
    if not ((kept | (values <= least)).all() and kept.any()):
        return None
    hidden = points - 1 - int(kept.sum())
    if hidden <= 0:
        return Spectrum(values[kept], 0, 0.0) if hidden == 0 else None
    hidden_sum = max(0.0, float(values[~kept].sum())) + rounding.most_of_sum(values[kept], points) + least
    # so little that no number is missing for it, whichever of the bounds it is
    if math.sqrt(hidden * hidden_sum) > _NO_WEIGHT * float(np.sqrt(values[kept]).sum()):
        return None
    return Spectrum(values[kept], hidden, hidden_sum)


@dataclass(frozen=True)
class _Rounding:
    """What the rounding of distances can do to eigenvalues; see `resolved_spectrum`.

    Attributes:
        fourth: fourth powers of the distances over that of the largest.
        unit: 2^-24 times the square of the largest distance.
    """

    fourth: Float64[np.ndarray, "points points"]
    unit: float

    @classmethod
    def of(cls, squares: Float64[np.ndarray, "points points"]) -> _Rounding:
        """Of squared distances, which are overwritten. Fourth powers alone need not be in the range of doubles."""
        largest = float(squares.max())
        squares /= largest
        return cls(np.square(squares, out=squares), largest * float(np.finfo(np.float32).eps) / 2)

    def most(self, points: int) -> float:
        """Above what a 0 may be, for every eigenvalue that is larger: pairs of weights add up to 1, fourth powers are
        at most 1, and the second order is below the first for an eigenvalue that is above it."""
        return 4 * self.unit * math.sqrt(points)

    def most_of_sum(self, values: Float64[np.ndarray, " rank"], points: int) -> float:
        """Above what `of_sum` is for any vectors: the squares of a projection's entries add up to its rank."""
        deviation = self.unit * math.sqrt(2 / 3 * (points - len(values)))
        return 3 * deviation + points * self.unit * float(np.sum(self.unit / values))

    def spread(self, vectors: Float64[np.ndarray, "points others"]) -> Float64[np.ndarray, "points others"]:
        """S w of each vector, by columns."""
        found: Float64[np.ndarray, "points others"] = self.fourth @ np.square(vectors)
        return found

    def above(
        self,
        values: Float64[np.ndarray, " points"],
        vectors: Float64[np.ndarray, "points points"],
        spread: Float64[np.ndarray, "points points"],
        least: float,
    ) -> Bool[np.ndarray, " points"]:
        """Which eigenvalues are above what a 0 may be; `spread` is of the vectors."""
        points = len(values)
        weights = np.square(vectors)
        first = 2 * self.unit * np.sqrt(points * np.maximum(np.einsum("pv,pv->v", weights, spread), 0.0))
        factors = np.zeros(points)
        large = values > 16 * first
        factors[large] = 4 * points * self.unit * (self.unit / values[large])
        # W^T S w is at most 1; mostly this already decides
        most = np.append(0.0, np.maximum.accumulate(factors)[:-1])
        above, surely = (values > np.maximum(first + second, least) for second in (0.0, most))
        if not (above == surely).all():
            mixed = np.triu(weights.T @ spread, 1)
            mixed *= factors[:, None]
            above = values > np.maximum(first + mixed.max(axis=0), least)
        found: Bool[np.ndarray, " points"] = above
        return found

    def of_sum(
        self,
        values: Float64[np.ndarray, " rank"],
        spread: Float64[np.ndarray, "points rank"],
        rest: Float64[np.ndarray, "points others"],
    ) -> float:
        """Three standard deviations of the sum of the `rest` of the eigenvalues, and by how much it is too low.

        The variance of the trace of a projection P of the errors is 2 u^2 / 3 sum_ij P_ij^2 d_ij^4.
        """
        projection = rest @ rest.T
        deviation = self.unit * math.sqrt(2 / 3 * float(np.sum(projection**2 * self.fourth)))
        lost = self.unit * float(np.sum(spread.sum(axis=0) * (self.unit / values)))
        return 3 * deviation + lost


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

    Directions that are below the rounding of the distances count as none. A number that they could raise by more than
    a tenth is missing: rankme first, as it takes the roots of the eigenvalues, and the decay with it where its range
    depends on the rank. Missing too where all points are equal, or the distances are no longer kept.

    Cost: see `resolved_spectrum`, for one layer at a time.
    """
    if view.distances is None:
        return all_missing(NAMES, NOT_KEPT)
    found = resolved_spectrum(view.distances, view.metric)
    values = found.values
    if values.size == 0:
        return all_missing(NAMES, "all points are equal up to rounding")
    roots = np.sqrt(values)
    numbers: dict[str, Number] = {**_counts(values)}
    least = 2 * (DECAY_RANGE[0] + LEAST_DECAY_POINTS - 1)
    few = f"a power law needs a rank of {least}, this cloud has {values.size}"
    numbers["spectral_decay"] = or_missing(spectral_decay(values), few)
    hidden = Missing("the distances, in float32, do not resolve the small eigenvalues beside the large ones")
    if _could_add(found.hidden_sum / float(values.sum()), found.hidden) > MOST_HIDDEN:
        numbers |= dict.fromkeys(("dataset_entropy", "effective_rank"), hidden)
    if _could_add(math.sqrt(found.hidden * found.hidden_sum) / float(roots.sum()), found.hidden) > MOST_HIDDEN:
        numbers["rankme"] = hidden
        if values.size < 2 * DECAY_RANGE[1]:
            numbers["spectral_decay"] = hidden
    return numbers


def _counts(values: Float64[np.ndarray, " rank"]) -> dict[str, float]:
    """What all eigenvalues together say."""
    entropy = matrix_entropy(values)
    return {
        "dataset_entropy": entropy,
        "effective_rank": math.exp(entropy),
        "rankme": math.exp(matrix_entropy(np.sqrt(values))),
        "participation_ratio": math.exp(matrix_entropy(values, 2.0)),
        "anisotropy": float(values[0] / values.sum()),
    }


def spectrum_of_part(view: LayerView) -> dict[str, Number]:
    """The numbers of `spectrum`, but for the decay, of a part of a cloud whose own numbers are known to be defined.

    Eigenvalues below the one bound that holds for all count as none: no vector is needed, in a third of the time.
    """
    assert view.distances is not None
    values = eigh(gram_matrix(view.distances, view.metric), eigvals_only=True, check_finite=False)[::-1]
    rounding = _Rounding.of(squareform(squared_distances(view.distances, view.metric)))
    least = len(values) * float(np.finfo(np.float64).eps) * float(values[0])
    kept = values[values > max(rounding.most(len(values)), least)]
    return {**_counts(kept)} if kept.size else all_missing(NAMES, "all points are equal up to rounding")


def _could_add(weight: float, directions: int) -> float:
    """By which share exp(entropy) can rise when so many directions get this weight, that of all others being 1.

    The entropy of the whole is that of the two parts' shares, and the mean of theirs; at most log(directions) of the
    new part, at least 0 of the old one.
    """
    if weight <= 0 or directions == 0:
        return 0.0
    share = weight / (1 + weight)
    return math.expm1(share * math.log(directions) - share * math.log(share) - (1 - share) * math.log1p(-share))
