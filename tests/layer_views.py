"""Views of layers made from clouds, for tests of measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.measures.missing import Missing
from topo_callback.measures.registry import LayerView

NO_BARS = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))


def layer_view(cloud: np.ndarray, metric: str = "euclidean", k: int = 1, barcode: Barcode = NO_BARS) -> LayerView:
    """The view of a cloud [points, width], its distances in float32 as they are recorded."""
    distances = pdist(cloud, metric).astype(np.float32)
    return LayerView(
        layer=1,
        barcode=barcode,
        neighbours=nearest_neighbours(squareform(distances), k),
        median=float(np.median(distances)),
        metric=metric,
        distances=distances,
    )


def rotated(cloud: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """The cloud in a space of more dimensions, turned there and shifted."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]
    return cloud @ turn[: cloud.shape[1]] + 2.0


def defined(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is defined of a measure's numbers."""
    return {name: value for name, value in found.items() if not isinstance(value, Missing)}


def reasons(found: Mapping[str, Any]) -> set[str]:
    """Why numbers are missing, when all of them are."""
    assert found
    assert not defined(found)
    return {value.reason for value in found.values()}
