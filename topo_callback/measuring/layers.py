"""One sample layer by layer: which ones are ok, and their views: homology, neighbours, scale."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.config import TopologyConfig
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.rips import landmark_persistence, rips_persistence, rips_persistence_batch
from topo_callback.measures import LayerView
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.zigzags import gaussian_draws, uses_gaussian_clouds
from topo_callback.records.sample import Sample
from topo_callback.subsamples import subsample_indices


def layer_status(sample: Sample) -> dict[int, str]:
    """Per layer "ok", "degenerate: ..." or "invalid: ..."."""
    status = {}
    for row, layer in enumerate(sample.layers):
        problem = sample.invalid.get(layer)
        status[layer] = f"invalid: {problem}" if problem else _status(sample.distances[row])
    return status


def _status(distances: Float32[np.ndarray, " pairs"]) -> str:
    if not np.isfinite(distances).all():
        return f"invalid: {int((~np.isfinite(distances)).sum())} of {distances.size} distances are not finite"
    if not distances.any():
        return "degenerate: all points are equal"
    if np.median(distances) == 0:
        return "degenerate: more than half of the distances are 0"
    return "ok"


def sample_neighbours(sample: Sample, status: Mapping[int, str], k: int) -> Int32[np.ndarray, "layers points k"]:
    """Nearest neighbours of every layer that is not invalid, from its distances; -1 elsewhere."""
    if sample.neighbours is not None:
        return sample.neighbours
    points = num_obs_y(sample.distances[0])
    neighbours = np.full((len(sample.layers), points, k), -1, dtype=np.int32)
    for row, layer in enumerate(sample.layers):
        if not status[layer].startswith("invalid"):
            neighbours[row] = nearest_neighbours(squareform(sample.distances[row]), k)
    return neighbours


def layer_views(
    sample: Sample,
    status: Mapping[int, str],
    neighbours: Int32[np.ndarray, "layers points k"],
    config: TopologyConfig,
    threads: int,
) -> tuple[dict[int, LayerView], dict[int, float]]:
    """Views of the ok layers, and the covering radii of landmarks where H2 needed them; layers side by side."""
    rows = {layer: row for row, layer in enumerate(sample.layers) if status[layer] == "ok"}
    norms = sample.norms if sample.norms is not None else [None] * len(sample.layers)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(
            lambda layer: _view(
                layer, sample.distances[rows[layer]], neighbours[rows[layer]], norms[rows[layer]], config
            ),
            rows,
        )
        measured = dict(zip(rows, found, strict=True))
    views = {layer: view for layer, (view, _) in measured.items()}
    return views, {layer: radius for layer, (_, radius) in measured.items() if radius is not None}


def _view(
    layer: int,
    distances: Float32[np.ndarray, " pairs"],
    neighbours: Int32[np.ndarray, "points k"],
    norms: Float32[np.ndarray, " points"] | None,
    config: TopologyConfig,
) -> tuple[LayerView, float | None]:
    """The view of one layer, and the covering radius of the landmarks when H2 needed them."""
    square = squareform(distances)
    engine: Any = config.engine
    radius = None
    # one thread for each cloud: the clouds are measured side by side
    barcode = rips_persistence(square, max_dimension=min(config.max_dimension, 1), engine=engine, threads=1)
    if config.max_dimension == 2:
        # H2 of a large cloud is out of reach of every engine: that dimension is of landmarks
        landmarks = landmark_persistence(square, max_dimension=2, count=config.landmarks, engine=_h2_engine(config))
        voids = landmarks.barcode.of(2)
        radius = landmarks.landmarks.covering_radius
        barcode = Barcode(
            np.append(barcode.dimension, np.full(len(voids), 2)),
            np.append(barcode.birth, voids[:, 0]),
            np.append(barcode.death, voids[:, 1]),
        )
    subsamples = None
    parts: tuple[Barcode, ...] = ()
    if config.subsamples:
        subsamples = subsample_indices(len(square), config.subsample_size, config.subsamples, config.seed)
        clouds = square[subsamples[:, :, None], subsamples[:, None, :]]
        parts = tuple(rips_persistence_batch(clouds, engine=engine, threads=1))
    gaussian = None
    if uses_gaussian_clouds(config.measures):
        gaussian = gaussian_draws(gram_matrix(distances, config.metric), config.neighbours, config.seed)
    view = LayerView(
        layer=layer,
        barcode=barcode,
        neighbours=neighbours,
        median=float(np.median(distances)),
        metric=config.metric,
        distances=distances,
        norms=norms,
        gaussian_neighbours=gaussian,
        subsamples=subsamples,
        subsample_barcodes=parts,
    )
    return view, radius


def _h2_engine(config: TopologyConfig) -> Any:
    """The native engine stops at H1; a configuration that asks for it gets the default engine for H2."""
    return "auto" if config.engine == "native" else config.engine
