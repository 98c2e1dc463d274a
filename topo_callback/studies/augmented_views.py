"""Views: the prompts with small random changes, for studies of what a layer makes of them alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.errors import ProbeError
from topo_callback.probe import Probe
from topo_callback.probe.changed_probes import changed_texts
from topo_callback.probe.variants import ProbeVariant
from topo_callback.spacing import evenly_spaced
from topo_callback.studies.registry import NoStudyError

MOST_PROMPTS = 128  # evenly spaced; 16 views of them are eight times the default probe
NO_DIRECTION = "a point lies at the mean of all and has no direction from there"
_AT_THE_MEAN = 1e-6  # relative to the largest norm: rounding of float32 is no direction


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
