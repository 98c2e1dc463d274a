"""The statistic of every test: the share of the variance between runs that the objectives explain.

With equally many runs of each objective it is R2 = SS_between / SS_total, between 0 and 1. With unequal numbers a group
of few, widely spread runs would make R2 large although no mean differs. So every objective's own variance enters as it
enters the variance of its mean: with F2 = SS_between / sum((1 - n_g / n) V_g), which is the squared t of Welch for two
objectives and one number (Anderson, Walsh, Clarke, Gorley and Guerra-Castro, 2017), the share is x / (1 + x) with
x = F2 (k - 1) / (n - k). For equal numbers of runs both are the same number.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

# 1 - R2 below this is taken as this: nothing is left to tell labelings apart
_SMALLEST_REST = 1e-6


def joined(shares: Float[np.ndarray, "*tests measures"]) -> Float[np.ndarray, "*tests"]:
    """The statistic of several measures together, over the last axis: the mean of -ln(1 - R2); NaN is no measure."""
    found: np.ndarray = -np.log(np.maximum(1.0 - np.nan_to_num(shares), _SMALLEST_REST)).mean(axis=-1)
    return found


def share_of_curves(
    products: Float[np.ndarray, "curves runs runs"], labels: Int64[np.ndarray, "labelings runs"]
) -> Float[np.ndarray, "labelings curves"]:
    """The share of every curve under every labeling.

    Args:
        products: scalar products of the runs' residuals, the trace of each scaled to 1.
        labels: numbers of objectives.
    """
    members, sizes = _members(labels, products.dtype)
    flat = products.reshape(len(products), -1).T
    own = np.diagonal(products, axis1=1, axis2=2).T
    of_means, of_runs = [], []
    for group, size in zip(members, sizes, strict=True):
        of_means.append((group[:, :, None] * group[:, None, :]).reshape(len(labels), -1) @ flat / size)
        if _unequal(sizes):
            of_runs.append(group @ own)
    return _share(of_means, of_runs, sizes)


def share_of_points(
    residuals: Float[np.ndarray, "measures runs points"], labels: Int64[np.ndarray, "labelings runs"]
) -> Float[np.ndarray, "labelings measures points"]:
    """The share at every point under every labeling.

    Args:
        residuals: without the means of the blocks, the sum of squares of each point scaled to 1 (or 0 where the runs do
            not differ, and the share is 0).
        labels: numbers of objectives.
    """
    members, sizes = _members(labels, residuals.dtype)
    of_means, of_runs = [], []
    for group, size in zip(members, sizes, strict=True):
        of_means.append(np.einsum("lr,mrp->lmp", group, residuals, optimize=True) ** 2 / size)
        if _unequal(sizes):
            of_runs.append(np.einsum("lr,mrp->lmp", group, residuals**2, optimize=True))
    return _share(of_means, of_runs, sizes)


def _members(labels: np.ndarray, kind: np.dtype) -> tuple[Float[np.ndarray, "objectives labelings runs"], list[int]]:
    objectives = np.unique(labels[0])
    members = (labels[None] == objectives[:, None, None]).astype(kind)
    return members, [int((labels[0] == objective).sum()) for objective in objectives]


def _unequal(sizes: list[int]) -> bool:
    # an objective with one run shows no variance of its own: R2 is all there is, and nothing is claimed with it
    return len(set(sizes)) > 1 and min(sizes) > 1


def _share(of_means: list[np.ndarray], of_runs: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    between: np.ndarray = sum(of_means[1:], start=of_means[0])
    if not of_runs:
        return between
    runs, groups = sum(sizes), len(sizes)
    rest = np.zeros_like(between)
    for squares, squared_mean, size in zip(of_runs, of_means, sizes, strict=True):
        # in place: the arrays of the draws are large
        squares -= squared_mean
        np.maximum(squares, 0.0, out=squares)
        squares *= (1.0 - size / runs) / (size - 1) * (runs - groups) / (groups - 1)
        rest += squares
    rest += between
    rest[rest == 0] = 1.0
    between /= rest
    return between
