"""Means of a layer's points: of all prompts, of each group, and of what is left of these without each of eight blocks.

What is said of a drift rests on the last ones: the drift of each remainder, compared with that of all, is its error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from topo_callback.groups import Groups
from topo_callback.measures.uncertainty import LEFT_OUT, blocks_of_prompts, parts_of_prompts


def left_out_means(
    clouds: Float[Tensor, "layers points width"], layers: Sequence[int], invalid: Mapping[int, str], groups: Groups
) -> Float32[np.ndarray, "layers sets blocks width"]:
    """`left_out_means` of a `Sample`.

    Cost: one product of 9 x sets x points with each cloud, in float64.
    """
    weights = _weights(clouds.shape[1], groups)
    sets, blocks = weights.shape[:2]
    found = np.full((len(layers), sets, blocks - 1, clouds.shape[2]), np.nan, dtype=np.float32)
    for row, layer in enumerate(layers):
        if layer not in invalid:
            cloud = clouds[row].cpu() if clouds.device.type == "mps" else clouds[row]
            rows = torch.from_numpy(weights.reshape(sets * blocks, -1)).to(cloud.device) @ cloud.double()
            means = rows.reshape(sets, blocks, -1)
            found[row] = (means[:, 1:] - means[:, :1]).float().cpu().numpy()
    return found


@lru_cache(maxsize=4)
def _weights(points: int, groups: Groups) -> Float64[np.ndarray, "sets blocks points"]:
    """What each prompt counts in each mean, the first of a set being that of all its prompts; NaN for small sets."""
    sets = [np.arange(points), *(groups.members(name) for name in groups.names)]
    weights = np.full((len(sets), 1 + LEFT_OUT.count, points), np.nan)
    for rows, members in zip(weights, sets, strict=True):
        parts = parts_of_prompts(len(members), LEFT_OUT)
        if parts:
            for row, part in zip(rows, (np.arange(len(members)), *parts), strict=True):
                row[:] = 0.0
                row[members[part]] = 1 / len(part)
    return weights


def group_facts(
    clouds: Float[Tensor, "layers points width"],
    layers: Sequence[int],
    invalid: Mapping[int, str],
    groups: Groups,
    errors: bool,
) -> dict[str, np.ndarray]:
    """`group_centroids` and, where errors are wanted, `group_blocks` of a `Sample`; nothing without groups.

    Cost: one more pass over the clouds in float64, two with errors.
    """
    if not groups:
        return {}
    members = [groups.members(name) for name in groups.names]
    blocks = [[places[block] for block in blocks_of_prompts(len(places))] for places in members]
    centroids = np.zeros((len(layers), len(members), clouds.shape[2]))
    of_blocks = np.zeros((len(layers), len(members), LEFT_OUT.groups, clouds.shape[2]), dtype=np.float32)
    of_blocks[:, [not each for each in blocks]] = np.nan
    for row, layer in enumerate(layers):
        if layer in invalid:
            of_blocks[row] = 0.0
            continue
        cloud = clouds[row].cpu() if clouds.device.type == "mps" else clouds[row]
        for group, places in enumerate(members):
            centroids[row, group] = _mean(cloud, places)
            for place, block in enumerate(blocks[group] if errors else ()):
                of_blocks[row, group, place] = _mean(cloud, block) - centroids[row, group]
    return {"group_centroids": centroids, **({"group_blocks": of_blocks} if errors else {})}


def _mean(cloud: Float[Tensor, "points width"], places: Int64[np.ndarray, " members"]) -> Float64[np.ndarray, " width"]:
    chosen = cloud.index_select(0, torch.from_numpy(places).to(cloud.device))
    found: Float64[np.ndarray, " width"] = chosen.mean(dim=0, dtype=torch.float64).cpu().numpy()
    return found
