"""The study `lidar`: in how many directions prompts differ by more than their changed versions do."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.measures.missing import Missing, Number
from topo_callback.studies.augmented_views import NO_DIRECTION, directions, views_of_prompts
from topo_callback.studies.by_layer import by_layer
from topo_callback.studies.registry import ProbeStudy, StudyNumbers, register
from topo_callback.studies.views import Reading, StudyContext

VIEWS = 16
DELTA = 1e-4
MEASURES = ("lidar",)


def lidar_of(views: Float[Tensor, "views points width"]) -> Number:
    """exp(-sum p log p), p the shares of the eigenvalues of W^-1/2 B W^-1/2: from 1 to min(points - 1, width).

    B is the covariance of the means over views of each prompt, W the mean covariance of a prompt's views around their
    mean, plus 1e-4 in every direction (Thilak et al., arXiv 2312.04000, equations 1 to 4). Points are taken as seen
    from the mean of all and with length 1, as in the code of Skean et al. (arXiv 2502.02013), so 1e-4 stands beside a
    total variance of 1, and shift, rotation and scale change nothing. That code reports the entropy over
    log min(points, width).

    The eigenvalues are those of M W^-1 M^T with M the means, [points, points]; W is inverted among views where these
    are fewer than coordinates (Woodbury).
    """
    rows = directions(views)
    if rows is None:
        return Missing(NO_DIRECTION)
    count, points, width = rows.shape
    means = rows.mean(dim=0)
    within = (rows - means).reshape(-1, width) / math.sqrt(count * points)
    means = (means - means.mean(dim=0)) / math.sqrt(points)
    if len(within) < width:
        inner = within @ within.T
        inner.diagonal().add_(DELTA)
        across = within @ means.T
        matrix = (means @ means.T - across.T @ torch.linalg.solve(inner, across)) / DELTA
    else:
        inner = within.T @ within
        inner.diagonal().add_(DELTA)
        matrix = means @ torch.linalg.solve(inner, means.T)
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.T) / 2).clamp(min=0)
    total = float(eigenvalues.sum())
    if not total > 0:
        return Missing("the prompts do not differ")
    shares = eigenvalues / total
    return math.exp(float(-torch.xlogy(shares, shares).sum()))


def lidar(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`lidar` of 16 views of at most 128 prompts, see `lidar_of`: effective directions; more is better to tell prompts.

    Cost: 16 passes over these prompts, the first two shared with `info_nce` and `dime`; for each layer the Gram matrix
    of 2,048 points and a system of that size, or of the width, in float64. Memory some four times 2,048 points of the
    width.
    """

    def of_layer(row: int) -> dict[str, Number]:
        return {"lidar": lidar_of(torch.stack([view.cloud(row, context.device) for view in others]))}

    return by_layer(context, of_layer)


register(ProbeStudy("lidar", MEASURES, views_of_prompts(VIEWS), lidar))
