"""Measurement: from one sample to its snapshot, a pure function of arrays and configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.config import TopologyConfig
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.landmarks import landmark_persistence
from topo_callback.homology.neighbour_graphs import nearest_neighbours
from topo_callback.homology.rips import rips_persistence, rips_persistence_batch
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures import LayerView, depth_measures, layer_measures, pair_measures
from topo_callback.sample import Sample
from topo_callback.snapshot import Snapshot
from topo_callback.subsamples import subsample_indices

_FACTS_AS_NUMBERS = ("overhead", "thinned_samples", "previous_sample_seconds")
_Numbers = dict[str, dict[int | None, float]]


def measure_sample(
    sample: Sample,
    config: TopologyConfig,
    *,
    previous: Snapshot | None = None,
    first: Snapshot | None = None,
    threads: int = 1,
) -> Snapshot:
    """Everything that is computed from one sample.

    Args:
        sample: distances and neighbours of every layer.
        config: which engines and measures.
        previous: snapshot of the newest earlier sample, for the `.previous` numbers.
        first: snapshot of the earliest sample, for the `.first` numbers.
        threads: layers measured side by side; the result does not depend on it.

    Returns:
        Snapshot: deterministic but for `provenance["seconds"]`.
    """
    started = time.perf_counter()
    status: dict[int, str] = {}
    for row, layer in enumerate(sample.layers):
        problem = sample.invalid.get(layer)
        status[layer] = f"invalid: {problem}" if problem else _status(sample.distances[row])
    neighbours = sample.neighbours
    if neighbours is None:
        neighbours = _neighbours(sample, status, config.neighbours)
    rows = {layer: row for row, layer in enumerate(sample.layers) if status[layer] == "ok"}
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(
            lambda layer: _view(layer, sample.distances[rows[layer]], neighbours[rows[layer]], config), rows
        )
        measured = dict(zip(rows, found, strict=True))
    views = {layer: view for layer, (view, _) in measured.items()}
    radii = {str(layer): radius for layer, (_, radius) in measured.items() if radius is not None}
    homology_seconds = time.perf_counter() - started

    numbers: _Numbers = {}
    for layer, view in views.items():
        _put(numbers, layer, {"median_distance": view.median})
        for name in config.measures:
            if name in layer_measures:
                _put(numbers, layer, layer_measures[name](view))
    for label, earlier in (("previous", previous), ("first", first)):
        if earlier is not None:
            _compare(numbers, views, earlier, label, config)
    zigzag, zigzag_layers = _depth(numbers, views, config)
    for name in _FACTS_AS_NUMBERS:
        if name in sample.facts:
            numbers[name] = {None: float(sample.facts[name])}
    numbers["invalid_layers"] = {None: float(sum(text.startswith("invalid") for text in status.values()))}
    return Snapshot(
        step=sample.step,
        layers=sample.layers,
        status=status,
        numbers=numbers,
        barcodes={layer: view.barcode for layer, view in views.items()},
        neighbours=neighbours,
        depth_zigzag=zigzag,
        zigzag_layers=zigzag_layers,
        previous=previous.step if previous else None,
        first=first.step if first else None,
        provenance={
            "facts": dict(sample.facts),
            "config": config.to_dict(),
            "landmark_covering_radius": radii,
            "seconds": {
                "homology": round(homology_seconds, 4),
                "all": round(time.perf_counter() - started, 4),
            },
        },
    )


def _status(distances: Float32[np.ndarray, " pairs"]) -> str:
    if not np.isfinite(distances).all():
        return f"invalid: {int((~np.isfinite(distances)).sum())} of {distances.size} distances are not finite"
    if not distances.any():
        return "degenerate: all points are equal"
    if np.median(distances) == 0:
        return "degenerate: more than half of the distances are 0"
    return "ok"


def _neighbours(sample: Sample, status: Mapping[int, str], k: int) -> Int32[np.ndarray, "layers points k"]:
    """Nearest neighbours of every layer that has distances, from these."""
    points = num_obs_y(sample.distances[0])
    neighbours = np.full((len(sample.layers), points, k), -1, dtype=np.int32)
    for row, layer in enumerate(sample.layers):
        if not status[layer].startswith("invalid"):
            neighbours[row] = nearest_neighbours(squareform(sample.distances[row]), k)
    return neighbours


def _view(
    layer: int, distances: Float32[np.ndarray, " pairs"], neighbours: np.ndarray, config: TopologyConfig
) -> tuple[LayerView, float | None]:
    """Homology of one layer, and the covering radius of the landmarks when H2 needed them."""
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
    view = LayerView(
        layer=layer,
        barcode=barcode,
        neighbours=neighbours,
        median=float(np.median(distances)),
        distances=distances,
        subsamples=subsamples,
        subsample_barcodes=parts,
    )
    return view, radius


def _h2_engine(config: TopologyConfig) -> Any:
    """The native engine stops at H1; a configuration that asks for it gets the default engine for H2."""
    return "auto" if config.engine == "native" else config.engine


def _put(numbers: _Numbers, layer: int | None, found: Mapping[str, float]) -> None:
    for name, value in found.items():
        numbers.setdefault(name, {})[layer] = float(value)


def _compare(
    numbers: _Numbers, views: Mapping[int, LayerView], earlier: Snapshot, label: str, config: TopologyConfig
) -> None:
    for layer, view in views.items():
        if layer not in earlier.barcodes:
            continue
        before = LayerView(
            layer=layer,
            barcode=earlier.barcodes[layer],
            neighbours=earlier.neighbours[earlier.layers.index(layer)],
            median=earlier.numbers["median_distance"][layer],
        )
        for name in config.measures:
            if name in pair_measures:
                found = pair_measures[name](view, before)
                _put(numbers, layer, {f"{key}.{label}": value for key, value in found.items()})


def _depth(
    numbers: _Numbers, views: Mapping[int, LayerView], config: TopologyConfig
) -> tuple[Barcode | None, tuple[int, ...]]:
    """The depth zigzag over the ok layers, and the numbers that follow from it."""
    layers = tuple(views)
    if config.zigzag_engine == "off" or len(layers) < 2:
        return None, ()
    stages = np.stack([views[layer].neighbours for layer in layers])
    engine: Any = config.zigzag_engine
    zigzag = zigzag_persistence(stages, max_dimension=config.zigzag_dimension, engine=engine)
    for name in config.measures:
        if name in depth_measures:
            for key, by_layer in depth_measures[name](zigzag, layers).items():
                numbers.setdefault(key, {}).update(by_layer)
    return zigzag, layers
