"""The study `dime`: how much entropy two views of the prompts share."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from topo_callback.measures.missing import Missing, Number
from topo_callback.probe.draws import Draws
from topo_callback.studies.augmented_views import NO_DIRECTION, directions, views_of_prompts
from topo_callback.studies.by_layer import by_layer
from topo_callback.studies.registry import ProbeStudy, StudyNumbers, register
from topo_callback.studies.views import Reading, StudyContext

PERMUTATIONS = 10
_STREAM = 4  # of the draws; those of the probe's variants are 1 to 3
MEASURES = ("dime",)


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


register(ProbeStudy("dime", MEASURES, views_of_prompts(2), dime))
