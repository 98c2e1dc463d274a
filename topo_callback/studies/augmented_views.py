"""What a layer makes of prompts with small random changes: the studies `dime`, `info_nce` and `lidar`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from topo_callback.errors import ProbeError
from topo_callback.measures.missing import Missing, Number
from topo_callback.probe import Probe
from topo_callback.probe.text_changes import Draws
from topo_callback.probe.variants import ProbeVariant, changed_texts
from topo_callback.studies.registry import (
    NoStudyError,
    ProbeStudy,
    Reading,
    StudyContext,
    StudyNumbers,
    by_layer,
    register,
)
from topo_callback.subsamples import evenly_spaced

MOST_PROMPTS = 128  # evenly spaced; 16 views of them are eight times the default probe
NO_DIRECTION = "a point lies at the mean of all and has no direction from there"
_AT_THE_MEAN = 1e-6  # relative to the largest norm: rounding of float32 is no direction
PERMUTATIONS = 10  # of dime
_STREAM = 4  # of the draws; those of the probe's variants are 1 to 3
TEMPERATURE = 0.1  # of info_nce
VIEWS, DELTA = 16, 1e-4  # of lidar


def views_of_prompts(count: int) -> Callable[[Probe, int], tuple[ProbeVariant, ...]]:
    """The first `count` views of at most `MOST_PROMPTS` prompts, to be read by a study."""

    def views(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
        points = evenly_spaced(len(probe), MOST_PROMPTS)
        try:
            return changed_texts(probe, points, seed, count)
        except ProbeError as error:
            raise NoStudyError(str(error)) from error

    return views


def directions(views: Float[Tensor, "views points width"]) -> Float[Tensor, "views points width"] | None:
    """All points seen from their common mean, with length 1; None where one of them lies there.

    As in the code of Skean et al. (arXiv 2502.02013), there for each view by itself. What follows is free of scale.
    """
    centred = views - views.mean(dim=(0, 1))
    lengths = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    if bool((lengths <= _AT_THE_MEAN * torch.linalg.vector_norm(views, dim=2).max()).any()):
        return None
    found: Float[Tensor, "views points width"] = centred / lengths
    return found


def dime_of(
    first: Float[Tensor, "points width"],
    second: Float[Tensor, "points width"],
    orders: Int[Tensor, "permutations points"],
) -> Number:
    """The mean over permutations P of S(A * P B P^T) - S(A * B), in nats; at most log n, about 0 for unrelated views.

    A and B are the Gram matrices of the two views, of cosines as seen from the common mean, * multiplies their entries,
    and S is the matrix-based entropy of order 1, -sum p log p over the eigenvalues' shares p (Skean et al., arXiv
    2301.08164, with this kernel in arXiv 2502.02013). For two equal views of G groups it comes near log G when G is
    large, the entropy of the group. It is about 0 where all prompts are nearly orthogonal: nothing is left to permute.
    Eigenvalues are clipped, never entries. Invariant to shift, rotation and scale.

    The released code multiplies covariance matrices over coordinates where there are more prompts than these; that is
    no joint entropy of prompts, and is not followed.
    """
    rows = directions(torch.stack([first, second]))
    if rows is None:
        return Missing(NO_DIRECTION)
    grams = rows @ rows.mT
    own = torch.arange(len(first), device=first.device)[None]
    ordered = torch.cat([own, orders])
    joint = grams[0] * grams[1][ordered[:, :, None], ordered[:, None, :]]
    shares = torch.linalg.eigvalsh(joint / len(first)).clamp(min=0)
    entropies = -torch.xlogy(shares, shares).sum(dim=1)
    return float(entropies[1:].mean() - entropies[0])


def dime(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`dime` of two views of at most 128 prompts, see `dime_of`, with 10 permutations that follow from the seed alone.

    Cost: two passes over these prompts, shared with `info_nce` and `lidar`; for each layer the eigenvalues of 11
    matrices of points^2, in float64. The released code divides by log min(points, width).
    """
    points = len(others[0].points)
    drawn = [Draws(context.seed, _STREAM, number).order(points) for number in range(PERMUTATIONS)]
    orders = torch.tensor(drawn, device=context.device)

    def of_layer(row: int) -> dict[str, Number]:
        first, second = (view.cloud(row, context.device) for view in others)
        return {"dime": dime_of(first, second, orders)}

    return by_layer(context, of_layer)


register(ProbeStudy("dime", ("dime",), views_of_prompts(2), dime))


def info_nce_of(first: Float[Tensor, "points width"], second: Float[Tensor, "points width"]) -> Number:
    """log n - loss, in nats: a lower bound of what two views say about each other, at most log n.

    The loss is the cross-entropy of finding the other view of prompt i among those of all n, with softmax over
    cosines / 0.1 of the points seen from their common mean (van den Oord et al., arXiv 1807.03748; temperature and
    centring as in Skean et al., arXiv 2502.02013). Here the mean of both directions, so that it does not matter which
    view is the first. Below 0 where views are worse than chance. Invariant to shift, rotation and scale.
    """
    rows = directions(torch.stack([first, second]))
    if rows is None:
        return Missing(NO_DIRECTION)
    logits = rows[0] @ rows[1].T / TEMPERATURE
    right = logits.diagonal()
    loss = (logits.logsumexp(dim=0) + logits.logsumexp(dim=1)) / 2 - right
    return math.log(len(first)) - float(loss.mean())


def info_nce(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`info_nce`, see `info_nce_of`, and `info_nce_share`, the same over log n: 1 is the most, 0 is chance.

    Prompts: at most 128, evenly spaced; the change of words and characters is that of `text_changes.changed_text`, with
    the seed of the configuration, the same at every sample. The published curves are shares. Cost: two passes over
    these prompts, shared with `dime` and `lidar`; points^2 width operations for each layer, in float64.
    """

    def of_layer(row: int) -> dict[str, Number]:
        value = info_nce_of(*(view.cloud(row, context.device) for view in others))
        share = value if isinstance(value, Missing) else value / math.log(len(others[0].points))
        return {"info_nce": value, "info_nce_share": share}

    return by_layer(context, of_layer)


register(ProbeStudy("info_nce", ("info_nce", "info_nce_share"), views_of_prompts(2), info_nce))


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


register(ProbeStudy("lidar", ("lidar",), views_of_prompts(VIEWS), lidar))
