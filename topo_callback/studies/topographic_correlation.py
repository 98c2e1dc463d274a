"""The study `topographic_correlation`: do units that lie near each other respond alike? For models with a unit grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.capture.blocks import bare, find_language_model
from topo_callback.devices import widest
from topo_callback.measures.missing import Missing, Number
from topo_callback.studies.registry import ModelContext, ModelStudy, StudyNumbers, by_layer, register

ATTRIBUTE = "unit_positions"
MOST_UNITS = 1024  # half a million pairs
LEAST = 3  # units, and points


def topographic_correlation(
    positions: Float[Tensor, "places axes"], activations: Float[Tensor, "points units"]
) -> Number:
    """Pearson's correlation, over all pairs of units, of how alike they respond and how near they are, -1 to 1.

    Alike is Pearson's correlation r_jk of the two units over the points, near is 1 / (1 + d_jk) with the Euclidean
    distance d on the grid. (1 - this) / 2 is the spatial smoothness loss of TopoLM (Rathi et al., arXiv 2410.11516),
    there over the units of neighbourhoods. About 0 for a grid that has nothing to do with the responses.

    Units that respond the same to every point are left out. Missing with fewer than 3 units or points, and where all
    pairs are as near, or as alike, as each other.

    Raises:
        ValueError: not one position for each unit.
    """
    if len(positions) != activations.shape[1]:
        raise ValueError(f"{len(positions)} positions were given for {activations.shape[1]} units; accepted: one each")
    wide = widest(activations.device)
    values, places = activations.to(wide), positions.to(activations.device, wide)
    if len(values) < LEAST:
        return Missing(f"fewer than {LEAST} points")
    centred = values - values.mean(dim=0)
    lengths = torch.linalg.vector_norm(centred, dim=0)
    # what rounding leaves of a unit that is always the same, the points being float32
    responding = lengths > 1e-6 * torch.linalg.vector_norm(values, dim=0)
    if int(responding.sum()) < LEAST:
        return Missing(f"fewer than {LEAST} units respond")
    directions, places = (centred / lengths)[:, responding], places[responding]
    first, second = torch.triu_indices(len(places), len(places), 1, device=places.device)
    alike = (directions.T @ directions)[first, second]
    apart = torch.stack([torch.linalg.vector_norm(places - place, dim=1) for place in places])[first, second]
    near = 1 / (1 + apart)
    if bool((near == near[0]).all()) or float(alike.max() - alike.min()) < 1e-6:
        return Missing("all pairs of units are as near as each other, or as alike")
    one, other = (each - each.mean() for each in (alike, near))
    return float((one @ other) / (torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other)))


def unit_positions(context: ModelContext, layer: int) -> Tensor | Missing:
    """The grid of a layer: the attribute `unit_positions` of its block, or of the model, [width, axes].

    Layer 0 takes that of the model. Anything that `torch.as_tensor` turns into such an array of finite numbers.
    """
    block = [] if layer == 0 else [bare(context.stack.blocks[layer - 1])]
    places = [*block, find_language_model(context.model), bare(context.model)]
    declared: Any = next((getattr(place, ATTRIBUTE) for place in places if hasattr(place, ATTRIBUTE)), None)
    if declared is None:
        return Missing(f"the model has no unit grid (an attribute {ATTRIBUTE} of the model or its blocks)")
    try:
        positions = torch.as_tensor(declared).detach().to(context.device)
    except (TypeError, ValueError, RuntimeError):
        return Missing(f"{ATTRIBUTE} is not an array of numbers")
    if positions.ndim != 2 or len(positions) != context.stack.width or positions.shape[1] == 0:
        return Missing(f"{ATTRIBUTE} has shape {tuple(positions.shape)}; accepted: [{context.stack.width}, axes]")
    positions = positions.to(torch.float32)
    return positions if bool(positions.isfinite().all()) else Missing(f"{ATTRIBUTE} has a value that is not finite")


def topographic_correlations(context: ModelContext) -> StudyNumbers:
    """`topographic_correlation` of every layer; units are the coordinates of its cloud, points its prompts.

    A model says where its units are with an attribute `unit_positions` [width, axes] (a tensor, a buffer or an array),
    of each block where each has a grid of its own (the TopoLM way), else of the model. At most 1,024 units, drawn with
    the seed, the same at every sample. Cost: no forward pass; points x units^2 operations for each layer; memory 60
    bytes for each pair of units. Missing with a reason for models without a grid: nearly all of them.
    """
    width = context.reading.clouds.shape[2]
    units = np.arange(width)
    if width > MOST_UNITS:
        units = np.sort(np.random.default_rng(context.seed).choice(width, size=MOST_UNITS, replace=False))
    chosen = torch.from_numpy(units).to(context.device)

    def of_layer(row: int) -> dict[str, Number]:
        positions = unit_positions(context, context.layers[row])
        if isinstance(positions, Missing):
            return {"topographic_correlation": positions}
        cloud = context.reading.cloud(row, context.device)
        return {"topographic_correlation": topographic_correlation(positions[chosen], cloud[:, chosen])}

    return by_layer(context, of_layer)


register(ModelStudy("topographic_correlation", ("topographic_correlation",), topographic_correlations))
