"""What a sample keeps of a layer's points beside their distances: their norms, the axis that varies most, and means.

Means are of all prompts, of each group, and of what is left of these without each of eight blocks: what is said of a
drift rests on the last ones, for the drift of each remainder, compared with that of all, is its error. All is computed
on the device of the clouds, in float64, and copied from there without waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from topo_callback.devices import HostCopies, copies_of, sent
from topo_callback.geometry import leading_coordinate, point_norms
from topo_callback.groups import Groups
from topo_callback.measures.uncertainty import LEFT_OUT, blocks_of_prompts, parts_of_prompts


def point_facts(
    clouds: Float[Tensor, "layers points width"],
    layers: Sequence[int],
    invalid: Mapping[int, str],
    metric: str,
    copies: HostCopies | None = None,
) -> dict[str, np.ndarray]:
    """`centroids`, `norms` and `largest_coordinates` of a `Sample`, by the names of its fields.

    Cost: three passes over the clouds in float64, on their device: 1 to 2 ms for 256 points of width 768 on a CPU,
    where the distances take 8.

    Args:
        clouds: on a device that has float64: float32 would lose a drift of 1e-6 beside a coordinate of 3,000.
        layers, invalid, metric: as in a `Sample`.
        copies: with which the arrays are filled once they are waited for; None: they are waited for here.
    """
    centroids = np.zeros((len(layers), clouds.shape[2]))
    largest = np.full((len(layers), 2), np.nan)
    with copies_of(copies) as under_way:
        for row, layer in enumerate(layers):
            if layer not in invalid:
                under_way.into(centroids, clouds[row].mean(dim=0, dtype=torch.float64), row)
                under_way.into(largest, leading_coordinate(clouds[row], metric=metric), row)
        return {
            "centroids": centroids,
            "norms": norms_of(clouds, layers, invalid, metric, under_way),
            "largest_coordinates": largest,
        }


def norms_of(
    clouds: Float[Tensor, "layers points width"],
    layers: Sequence[int],
    invalid: Mapping[int, str],
    metric: str,
    copies: HostCopies | None = None,
) -> Float32[np.ndarray, "layers points"]:
    """`geometry.point_norms` of every layer, 0 for invalid ones; arguments are those of `point_facts`."""
    norms = np.zeros(clouds.shape[:2], dtype=np.float32)
    with copies_of(copies) as under_way:
        for row, layer in enumerate(layers):
            if layer not in invalid:
                under_way.into(norms, point_norms(clouds[row], metric=metric), row)
    return norms


def group_facts(
    clouds: Float[Tensor, "layers points width"],
    layers: Sequence[int],
    invalid: Mapping[int, str],
    groups: Groups,
    errors: bool,
    copies: HostCopies | None = None,
) -> dict[str, np.ndarray]:
    """`group_centroids` and, where errors are wanted, `group_blocks` of a `Sample`; nothing without groups.

    Cost: one more pass over the clouds in float64, two with errors. Arguments are those of `point_facts`.
    """
    if not groups:
        return {}
    members = [groups.members(name) for name in groups.names]
    blocks = [[places[block] for block in blocks_of_prompts(len(places))] for places in members]
    centroids = np.zeros((len(layers), len(members), clouds.shape[2]))
    of_blocks = np.zeros((len(layers), len(members), LEFT_OUT.groups, clouds.shape[2]), dtype=np.float32)
    of_blocks[:, [not each for each in blocks]] = np.nan
    there = [
        [sent(torch.from_numpy(each), clouds.device) for each in (m, *b)] for m, b in zip(members, blocks, strict=True)
    ]
    with copies_of(copies) as under_way:
        for row, layer in enumerate(layers):
            if layer in invalid:
                of_blocks[row] = 0.0
                continue
            for group, (whole, *parts) in enumerate(there):
                centroid = _mean(clouds[row], whole)
                under_way.into(centroids, centroid, (row, group))
                if errors and parts:
                    means = torch.stack([_mean(clouds[row], part) for part in parts])
                    under_way.into(of_blocks, (means - centroid).float(), (row, group, slice(len(parts))))
    return {"group_centroids": centroids, **({"group_blocks": of_blocks} if errors else {})}


def _mean(cloud: Float[Tensor, "points width"], places: Tensor) -> Tensor:
    return cloud.index_select(0, places).mean(dim=0, dtype=torch.float64)


def left_out_means(
    clouds: Float[Tensor, "layers points width"],
    layers: Sequence[int],
    invalid: Mapping[int, str],
    groups: Groups,
    copies: HostCopies | None = None,
) -> Float32[np.ndarray, "layers sets blocks width"]:
    """`left_out_means` of a `Sample`; arguments are those of `point_facts`.

    Cost: one product of 9 x sets x points with each cloud, in float64.
    """
    weights = _weights(clouds.shape[1], groups)
    sets, blocks = weights.shape[:2]
    found = np.full((len(layers), sets, blocks - 1, clouds.shape[2]), np.nan, dtype=np.float32)
    there = sent(torch.from_numpy(weights.reshape(sets * blocks, -1)), clouds.device)
    with copies_of(copies) as under_way:
        for row, layer in enumerate(layers):
            if layer not in invalid:
                means = (there @ clouds[row].double()).reshape(sets, blocks, -1)
                under_way.into(found, (means[:, 1:] - means[:, :1]).float(), row)
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
