"""The study `info_nce`: does a layer still tell which of two changed prompts come from the same one?"""

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

TEMPERATURE = 0.1
MEASURES = ("info_nce", "info_nce_share")


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


register(ProbeStudy("info_nce", MEASURES, views_of_prompts(2), info_nce))
