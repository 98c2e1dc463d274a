"""Groups of prompts in one cloud: how far two of them are apart, held out, and whether they are clusters of their own.

A direction that is judged by the prompts that gave it finds 3 standard deviations between random halves of 16 prompts.
Here no prompt has a part in the direction that it is judged by, and the same is asked of relabelled prompts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from topo_callback.measures.distances import gram_matrix


def labellings_for(pairs: int) -> int:
    """How many labellings, the given one among them, a number of pairs needs for the levels of `dynamics.groups`."""
    return 1000 if pairs == 1 else 2000 if pairs <= 6 else 8000


_ROUNDING = 1e-10  # of the inner products


@lru_cache(maxsize=32)
def labellings(first: int, second: int, count: int) -> Float64[np.ndarray, "labellings prompts"]:
    """Ways to label so many prompts: 1 for the first group, 0 for the second. The first way is the given one.

    The others are drawn alike, as all of the run's samples need them; the same on every machine.

    Args:
        first, second: prompts of the groups; those of the first come first.
        count: of labellings.
    """
    found = np.zeros((count, first + second))
    found[0, :first] = 1.0
    bits = np.random.PCG64(np.random.SeedSequence((first, second)))  # raw bits are the same in all versions of numpy
    for row in found[1:]:
        row[np.argsort(bits.random_raw(first + second), kind="stable")[:first]] = 1.0
    found.setflags(write=False)
    return found


def evened(distances: Float32[np.ndarray, " pairs"], metric: str = "euclidean") -> Float64[np.ndarray, "points points"]:
    """Inner products of the points after their covariance was evened out: G (G + g I)^-1, g the mean diagonal of G.

    With the covariance C of all points this is that of (C + c I)^-1/2 x, c being the mean of the eigenvalues that it
    can have: directions that vary more than that count alike, those that vary less as they are. No label is used. In
    activations a few directions hold most of the variance, and a difference of means is noise along these alone:
    benchmarks/RESULTS_groups.md has what this and other choices find.

    Args:
        distances: condensed, finite, not all 0.
        metric: "euclidean", "cosine" or "correlation".
    """
    gram = gram_matrix(distances, metric)
    shrunk = gram + np.eye(len(gram)) * np.trace(gram) / len(gram)
    half = np.linalg.solve(shrunk, gram) / 2
    found: Float64[np.ndarray, "points points"] = half + half.T  # symmetric but for rounding
    return found


def separations(
    products: Float64[np.ndarray, "points points"],
    first: Integer[np.ndarray, " first"],
    second: Integer[np.ndarray, " second"],
    labels: Float64[np.ndarray, "labellings prompts"],
) -> Float64[np.ndarray, " labellings"]:
    """How far two groups are apart under every labelling, in standard deviations inside them.

    Every prompt x of the one group A is projected, from the mean of both groups' prompts, on mean(A without x) -
    mean(B), every prompt of B on mean(A) - mean(B without x). The separation is the difference of the groups' mean
    projections over their pooled standard deviation. The numerator is the unbiased estimate of the squared distance of
    the means, so that the mean over random labels is about 0; below 0 the groups are nearer to each other than chance
    has it.

    Args:
        products: inner products of all points; they need not be centred.
        first, second: places of the groups' prompts, at least two each.
        labels: of these prompts, see `labellings`.

    Returns:
        No unit; 0 where all projections are equal; the same to the last bit for labellings that part the prompts alike,
        so that none of them is in front of another. Cost: a product of `labels` with the inner products of the two
        groups, 11 ms for 1,000 labellings of 256 prompts.
    """
    both = np.concatenate([first, second])
    inner = products[np.ix_(both, both)]
    means = inner.mean(axis=0)
    inner = inner - means - means[:, None] + means.mean()
    own = np.diagonal(inner)
    a, b = len(first), len(second)
    labels, places = _partitions(labels)
    sums = labels @ inner  # of the products with the labelled prompts; those with the others are minus them
    labelled = labels * sums
    of_sums, of_squares = labelled.sum(axis=1), np.einsum("lp,lp->l", labelled, sums)
    crossed, of_own, of_own_squares = labelled @ own, labels @ own, labels @ own**2
    # projections of A: up * sum - own / (a - 1); of B: down * sum + own / (b - 1)
    up, down = 1 / (a - 1) + 1 / b, 1 / a + 1 / (b - 1)
    mean_a = (up * of_sums - of_own / (a - 1)) / a
    square_a = up**2 * of_squares - 2 * up / (a - 1) * crossed + of_own_squares / (a - 1) ** 2
    all_squares, all_crossed = np.einsum("lp,lp->l", sums, sums), sums @ own
    mean_b = (-down * of_sums + (own.sum() - of_own) / (b - 1)) / b
    square_b = (
        down**2 * (all_squares - of_squares)
        + 2 * down / (b - 1) * (all_crossed - crossed)
        + ((own**2).sum() - of_own_squares) / (b - 1) ** 2
    )
    variance = (square_a - a * mean_a**2 + square_b - b * mean_b**2) / (a + b - 2)
    wide = variance > (_ROUNDING * np.abs(np.diagonal(products)).max()) ** 2
    found = np.zeros(len(labels))
    found[wide] = (mean_a - mean_b)[wide] / np.sqrt(variance[wide])
    of_all: Float64[np.ndarray, " labellings"] = found[places]
    return of_all


def _partitions(
    labels: Float64[np.ndarray, "labellings prompts"],
) -> tuple[Float64[np.ndarray, "partitions prompts"], Int64[np.ndarray, " labellings"]]:
    """Each partition once, and which one every labelling is of; which group is the first matters by its size alone.

    A labelling drawn twice, or with the names of two groups of one size exchanged, is as good as the given one: were
    their values to differ by rounding, the given one could be in front of its equals.
    """
    chosen = labels > 0
    if 2 * chosen[0].sum() == chosen.shape[1]:
        chosen ^= ~chosen[:, :1]
    _, first, places = np.unique(np.packbits(chosen, axis=1), axis=0, return_index=True, return_inverse=True)
    return chosen[first].astype(np.float64), places.reshape(-1)


def separation_error(separation: float, first: int, second: int) -> float:
    """The standard error of a separation over prompts of the same kind.

    On a direction that is known it is that of a standardised difference of means, sqrt(c + d^2 / (2 (a + b - 2))) with
    c = 1 / a + 1 / b (Hedges and Olkin, Statistical Methods for Meta-Analysis, 1985, equation 5.15). Here the direction
    is of the same prompts, which near 0 makes it sqrt(2 c). In between, c counts 1 + 1 / (1 + d^2 / (32 c)) times; that
    was found by measurement: benchmarks/RESULTS_groups.md says how often intervals hold.
    """
    c = 1 / first + 1 / second
    square = separation**2
    return float(np.sqrt(c * (1 + 1 / (1 + square / (32 * c))) + square / (2 * (first + second - 2))))


def standardised(
    values: Float64[np.ndarray, "layers labellings"],
) -> Float64[np.ndarray, "layers labellings"]:
    """Values of each layer in the standard deviations that labellings make there; 0 where they make none."""
    spread = values.std(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    found: Float64[np.ndarray, "layers labellings"] = np.divide(
        centred, spread, out=np.zeros_like(values), where=spread > 0
    )
    return found


def share_as_large(values: Float64[np.ndarray, "... labellings"]) -> Float64[np.ndarray, ...]:
    """The p-value of the first labelling: the share of all labellings, itself included, with a value as large."""
    found: Float64[np.ndarray, ...] = (values >= values[..., :1]).mean(axis=-1)
    return found


def purities(
    neighbours: Integer[np.ndarray, "points k"], is_member: Bool[np.ndarray, " points"]
) -> Float64[np.ndarray, " members"]:
    """Of each member of a group, the share of its nearest neighbours that are members; see `purity_by_chance`."""
    found: Float64[np.ndarray, " members"] = is_member[neighbours[is_member]].mean(axis=1)
    return found


def purity_by_chance(members: int, points: int) -> float:
    """What random neighbours give."""
    return (members - 1) / (points - 1)


def h0_gap(distances: Float[np.ndarray, " pairs"], is_first: Bool[np.ndarray, " points"]) -> float:
    """How long two groups are clusters of their own, in the unit of the distances; 0 where they never are.

    In the Vietoris-Rips complexes of the two groups' points, let a group be together from the smallest scale at which
    one component holds more than half of it, and both be joined from the smallest scale at which one component holds
    more than half of each. Before, their components are two different ones. The gap is the second scale minus the
    larger one of the two first: the stretch of the H0 bars on which most of one group and most of the other are apart.
    A few prompts in between, or far away, change nothing.

    Args:
        distances: condensed, among the two groups' points.
        is_first: which of the points belong to the first group.
    """
    points = len(is_first)
    held = np.zeros((2 * points - 1, 2), dtype=np.int64)
    held[:points, 0], held[:points, 1] = is_first, ~is_first
    needed = held[:points].sum(axis=0) // 2
    together = np.full(2, np.nan)
    together[needed == 0] = 0.0  # a group of one prompt
    for merge, (one, other, scale, _) in enumerate(linkage(distances.astype(np.float64), "single")):
        held[points + merge] = held[int(one)] + held[int(other)]
        enough = held[points + merge] > needed
        together[enough & np.isnan(together)] = scale
        if enough.all():
            return float(scale - together.max())
    raise AssertionError("the last merge holds all points")


def of_members(
    distances: Float32[np.ndarray, " pairs"], members: Integer[np.ndarray, " members"]
) -> Float32[np.ndarray, " member_pairs"]:
    """The condensed distances among some of the points."""
    found: Float32[np.ndarray, " member_pairs"] = squareform(
        squareform(distances, checks=False)[np.ix_(members, members)], checks=False
    )
    return found
