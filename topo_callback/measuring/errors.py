"""The errors of a sample's numbers over prompts: its measures asked again on parts of the probe.

Every part is measured as the whole cloud is: distances among its prompts, their median, nearest neighbours, barcode.
What the parts of this sample and of those it was compared with came to is remembered by their distances until the next
one, so that a worker measures each sample once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.rips import rips_persistence
from topo_callback.measures import LayerView, layer_measures, pair_measures
from topo_callback.measures.missing import Missing
from topo_callback.measures.uncertainty import (
    HALVES,
    RULES,
    ErrorRule,
    Method,
    parts_of_prompts,
    recorded_error,
    standard_error,
)
from topo_callback.measuring.comparing import Earlier, earlier_view

_NO_BARS = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))
_Row = Float64[np.ndarray, " parts"]
_Shapes = tuple[tuple[Barcode, np.ndarray, float], ...]
_known: dict[tuple[bytes, Method, int, str], _Shapes] = {}
_lock = Lock()


def errors_over_prompts(
    numbers: Mapping[str, Mapping[int | None, float]],
    views: Mapping[int, LayerView],
    earlier: Earlier,
    config: TopologyConfig,
    threads: int = 1,
) -> dict[str, dict[int | None, float]]:
    """Errors of the numbers of `RULES`: half of what the 95 % interval reaches to each side.

    Args:
        numbers: of this sample, measure -> layer -> value.
        views: its layers that are ok.
        earlier: the samples it was compared with.
        config: which measures.
        threads: layers measured side by side; the result does not depend on it.

    Returns:
        name -> layer -> error; None for the layer: of the median over all layers that have the number. Without an entry
        is what has no error: the parts are too small, or one of them has no such number.
    """
    rules = {name: rule for name, rule in RULES.items() if name in config.measures}
    if not rules or not views:
        return {}
    points = len(next(iter(views.values())).neighbours)

    def measured(layer: int) -> dict[str, _Row]:
        return dict(_of_layer(views[layer], earlier, rules, config))

    try:
        with ThreadPoolExecutor(threads) as pool:
            parts = dict(zip(views, pool.map(measured, views), strict=True))
    finally:
        _forget_but(len({rule.method for rule in rules.values()}) * len(views) * (1 + len(earlier.labels())))
    found: dict[str, dict[int | None, float]] = {}
    for rule in rules.values():
        for names, relative in ((rule.absolute, False), (rule.relative, True)):
            for name in _recorded(names, earlier):
                of_layers = {layer: given[name] for layer, given in parts.items() if name in given}
                errors = _errors(numbers.get(name, {}), of_layers, points, rule.method, relative)
                if errors:
                    found[name] = errors
    return found


def _recorded(names: Sequence[str], earlier: Earlier) -> list[str]:
    """The names of layer measures as they are, and with the labels that pair measures get."""
    return [*names, *(f"{name}.{label}" for label in earlier.labels() for name in names)]


def _errors(
    numbers: Mapping[int | None, float], parts: Mapping[int, _Row], points: int, method: Method, relative: bool
) -> dict[int | None, float]:
    layers = [layer for layer in parts if layer in numbers]
    if not layers:
        return {}
    whole = np.array([numbers[layer] for layer in layers])
    rows = np.stack([parts[layer] for layer in layers], axis=1)
    keys: list[int | None] = [*layers]
    if len(layers) == len(numbers):
        # that of the median, since all layers have the same prompts, is about as large as that of a layer
        keys.append(None)
        whole, rows = np.append(whole, np.median(whole)), np.column_stack([rows, np.median(rows, axis=1)])
    errors = recorded_error(standard_error(whole, rows, points, method, relative=relative), method.wide)
    return {key: value for key, value in zip(keys, errors.tolist(), strict=True) if np.isfinite(value)}


def _of_layer(
    view: LayerView, earlier: Earlier, rules: Mapping[str, ErrorRule], config: TopologyConfig
) -> Iterator[tuple[str, _Row]]:
    """What a layer's numbers are in each of the parts; a number that a part has not is left out."""
    assert view.distances is not None
    for method in dict.fromkeys(rule.method for rule in rules.values()):
        of_method = {name: rule for name, rule in rules.items() if rule.method is method}
        now = _parts(view, method, config)
        for name in of_method.keys() & layer_measures.keys():
            if name != "barcode_features" or not view.subsample_barcodes:  # those are means over sub-samples
                rule = of_method[name]
                yield from _rows(rule, [(part,) for part in now], rule.function or layer_measures[name], "")
        for label in earlier.labels():
            before = earlier.of(label, ("cloud", view.layer))
            kept = earlier.kept(before)
            if before is None or kept is None or kept.distances.shape[1] != view.distances.size:
                continue
            then = _parts(earlier_view(before, kept, view.layer, config), method, config)
            pairs = list(zip(now, then, strict=True)) if now and then else []
            for name in of_method.keys() & pair_measures.keys():
                rule = of_method[name]
                yield from _rows(rule, pairs, rule.function or pair_measures[name], f".{label}")


def _rows(
    rule: ErrorRule, views: Sequence[tuple[LayerView, ...]], measure: Any, suffix: str
) -> Iterator[tuple[str, _Row]]:
    if not views:
        return
    try:
        found = [measure(*each) for each in views]
    except USERS_OWN:
        raise
    except BaseException:  # noqa: BLE001 - what fails on the whole cloud, too, has its reason there
        return
    for name in (*rule.absolute, *rule.relative):
        values = [each.get(name) for each in found]
        if all(value is not None and not isinstance(value, Missing) for value in values):
            yield f"{name}{suffix}", np.array(values, dtype=np.float64)


def _parts(view: LayerView, method: Method, config: TopologyConfig) -> list[LayerView]:
    """The views of a cloud's parts, none where one has no scale. Only halves have barcodes and neighbours."""
    assert view.distances is not None
    points = num_obs_y(view.distances)
    shapes = _shapes(view.distances, method, view.neighbours.shape[1], config.engine)
    if not all(median > 0 for _, _, median in shapes):
        return []
    parts = zip(parts_of_prompts(points, method), _pairs(points, method), shapes, strict=True)
    return [
        replace(
            view,
            barcode=barcode,
            neighbours=neighbours,
            median=median,
            distances=view.distances[pairs],
            norms=None if view.norms is None else view.norms[prompts],
            gaussian_neighbours=None,
            subsamples=None,
            subsample_barcodes=(),
        )
        for prompts, pairs, (barcode, neighbours, median) in parts
    ]


@lru_cache(maxsize=8)
def _pairs(points: int, method: Method) -> tuple[Int64[np.ndarray, " pairs"], ...]:
    """For each part, the places of its pairs among the condensed distances."""
    found = []
    for prompts in parts_of_prompts(points, method):
        first, second = (prompts[each] for each in np.triu_indices(len(prompts), 1))
        found.append(first * points - first * (first + 1) // 2 + second - first - 1)
    return tuple(found)


def _shapes(distances: Float32[np.ndarray, " pairs"], method: Method, k: int, engine: str) -> _Shapes:
    """Barcode, neighbours and median distance of each part, remembered by the SHA-256 of the distances."""
    key = hashlib.sha256(distances.tobytes()).digest(), method, k, engine
    with _lock:
        found = _known.pop(key, None)
    if found is None:
        found = _measured_parts(distances, method, k, engine)
    with _lock:
        _known[key] = found  # as the newest
    return found


def _forget_but(clouds: int) -> None:
    """Forget all but the so many clouds that were asked for last."""
    with _lock:
        while len(_known) > clouds:
            del _known[next(iter(_known))]


def _measured_parts(distances: Float32[np.ndarray, " pairs"], method: Method, k: int, engine: str) -> _Shapes:
    found = []
    points = num_obs_y(distances)
    for prompts, pairs in zip(parts_of_prompts(points, method), _pairs(points, method), strict=True):
        of_part = distances[pairs]
        barcode, neighbours = _NO_BARS, np.empty((len(prompts), 0), np.int32)
        if method is HALVES:
            square = squareform(of_part)
            named: Any = engine
            barcode = rips_persistence(square, max_dimension=1, engine=named, threads=1)
            neighbours = nearest_neighbours(square, min(k, len(prompts) - 1))
        found.append((barcode, neighbours, float(np.median(of_part))))
    return tuple(found)
