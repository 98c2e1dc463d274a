"""What a sample keeps of the points themselves, beside their distances: where they are, how large, along which axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from topo_callback.geometry import largest_coordinate, point_norms


def point_facts(
    clouds: Float[Tensor, "layers points width"], layers: Sequence[int], invalid: Mapping[int, str], metric: str
) -> dict[str, np.ndarray]:
    """`centroids`, `norms` and `largest_coordinates` of a `Sample`, by the names of its fields.

    Cost: three passes over the clouds in float64, on their device: 1 to 2 ms for 256 points of width 768 on a CPU,
    where the distances take 8.
    """
    centroids = np.zeros((len(layers), clouds.shape[2]))
    largest = np.full((len(layers), 2), np.nan)
    for row, layer in enumerate(layers):
        if layer not in invalid:
            # float32 would lose a drift of 1e-6 beside a coordinate of 3,000; MPS has nothing else
            cloud = clouds[row].cpu() if clouds.device.type == "mps" else clouds[row]
            centroids[row] = cloud.mean(dim=0, dtype=torch.float64).cpu().numpy()
            found = largest_coordinate(clouds[row], metric=metric)
            if found is not None:
                largest[row] = found
    return {
        "centroids": centroids,
        "norms": norms_of(clouds, layers, invalid, metric),
        "largest_coordinates": largest,
    }


def norms_of(
    clouds: Float[Tensor, "layers points width"], layers: Sequence[int], invalid: Mapping[int, str], metric: str
) -> Float32[np.ndarray, "layers points"]:
    """`geometry.point_norms` of every layer, 0 for invalid ones."""
    norms = np.zeros(clouds.shape[:2], dtype=np.float32)
    for row, layer in enumerate(layers):
        if layer not in invalid:
            norms[row] = point_norms(clouds[row], metric=metric).cpu().numpy()
    return norms
