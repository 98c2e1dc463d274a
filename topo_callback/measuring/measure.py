"""The whole measurement of one sample: every layer by itself, against earlier samples, over depth and over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float16

from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN, described
from topo_callback.groups import Groups
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures import (
    DepthView,
    LayerView,
    TimeView,
    depth_measures,
    layer_measures,
    pair_measures,
    time_measures,
)
from topo_callback.measures.distances import principal_coordinates
from topo_callback.measures.layer_significance import layer_significance
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.tokens import over_prompts
from topo_callback.measures.uncertainty import mean_error
from topo_callback.measuring.answers import answer_moves, general_text_moves
from topo_callback.measuring.asking import Asking
from topo_callback.measuring.comparing import Earlier, answered_prompts, earlier_view
from topo_callback.measuring.directions import direction_numbers
from topo_callback.measuring.errors import errors_over_prompts
from topo_callback.measuring.groups import GroupNumbers, group_numbers
from topo_callback.measuring.layers import layer_status, layer_views, sample_neighbours
from topo_callback.measuring.points import centroid_drift, largest_shares, most_influential
from topo_callback.measuring.token_cloud import token_cloud_numbers
from topo_callback.records.neighbour_history import NeighbourGraphs, time_zigzag
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

_LARGEST_FLOAT16 = 65504.0
_FACTS_AS_NUMBERS = ("overhead", "thinned_samples", "previous_sample_seconds")


def measure_sample(
    sample: Sample,
    config: TopologyConfig,
    *,
    previous: Snapshot | None = None,
    first: Snapshot | None = None,
    older: Sequence[Snapshot] = (),
    kept: Mapping[int, Sample] | None = None,
    history: Sequence[NeighbourGraphs] = (),
    groups: Groups = Groups(),  # noqa: B008 - frozen
    threads: int = 1,
) -> Snapshot:
    """Everything that is computed from one sample.

    Args:
        sample: distances and neighbours of every layer.
        config: which engines and measures.
        previous: snapshot of the newest earlier sample, for the `.previous` numbers.
        first: snapshot of the earliest sample, for the `.first` numbers.
        older: snapshots of further earlier samples, for layers that have no shape in these two: each layer is compared
            with the newest, and the first, sample in which it is ok. `Snapshot.compared` says which that was.
        kept: step -> earlier sample whose distances are still there, for measures that need those of both.
        history: neighbour graphs of earlier samples, ascending, for numbers over time.
        groups: which prompts belong together.
        threads: layers measured side by side; the result does not depend on it.

    Returns:
        Snapshot: deterministic but for `provenance["seconds"]`. A measure that raises, or gives something else than
        finite numbers, has its reason in `missing` and in `provenance["failed_measures"]`; it costs nothing else.
    """
    started = time.perf_counter()
    status = layer_status(sample)
    neighbours = sample_neighbours(sample, status, config.neighbours)
    views, radii = layer_views(sample, status, neighbours, config, threads)
    homology_seconds = time.perf_counter() - started

    numbers, asking = FoundNumbers(), Asking()
    earlier = Earlier(previous, first, older, kept)
    _of_this_sample(numbers, asking, sample, status, views, config)
    _take_studies(numbers, sample, status)
    of_tokens = token_cloud_numbers(sample, config, earlier, asking, threads)
    for layer in of_tokens:
        numbers.put(layer, of_tokens[layer])
    for label in earlier.labels():
        _compare(numbers, asking, views, earlier, label, config)
        if sample.centroids is not None:
            numbers.put_all({f"centroid_drift.{label}": _drifts(sample, views, earlier, label, config.metric)})
    moves = [answer_moves(sample, earlier, config), general_text_moves(sample, earlier, config)]
    for each in moves:
        numbers.put(None, each.numbers)
        for name, error in each.errors.items():
            numbers.put_error(None, name, error)
    by_prompt = {name: values for each in moves for name, values in each.by_prompt.items()}
    of_groups = _guarded(
        asking, "groups", lambda: group_numbers(sample, groups, views, earlier, by_prompt, config, threads)
    )
    of_directions = _guarded(asking, "directions", lambda: direction_numbers(sample, groups, views, earlier))
    for found in (of_groups, of_directions):
        numbers.put_all(found.numbers)
    displacement = numbers.values.get("wasserstein_h1.first")
    numbers.put_all(layer_significance(sample.facts, sample.layers, displacement))
    zigzag = _over_depth(numbers, asking, views, config)
    graphs = NeighbourGraphs(sample.step, {layer: view.neighbours for layer, view in views.items()})
    _over_time(numbers, asking, [*history, graphs], config, threads)
    measured = time.perf_counter()
    if config.errors:
        numbers.errors |= errors_over_prompts(numbers.values, views, earlier, config, threads)
    errors_seconds = time.perf_counter() - measured
    coordinates, shares = _coordinates(sample, views, config)
    return Snapshot(
        step=sample.step,
        layers=sample.layers,
        status=status,
        numbers=numbers.values,
        errors=numbers.errors | of_groups.errors | of_directions.errors,
        missing=numbers.missing,
        barcodes={layer: view.barcode for layer, view in views.items()},
        neighbours=neighbours,
        gaussian_neighbours=_gaussian_neighbours(sample, views),
        coordinates=coordinates,
        by_prompt=by_prompt,
        leading=of_groups.leading,
        depth_zigzag=zigzag,
        zigzag_layers=tuple(views) if zigzag is not None else (),
        previous=earlier.step("previous"),
        first=earlier.step("first"),
        compared=earlier.compared(tuple(views)),
        provenance={
            "facts": dict(sample.facts),
            **answered_prompts(sample),
            **({"failed_measures": asking.failed} if asking.failed else {}),
            "config": config.to_dict(),
            "most_influential": most_influential(sample, views) if "scale" in config.measures else {},
            **({} if coordinates is None else {"coordinates": {str(layer): share for layer, share in shares.items()}}),
            "landmark_covering_radius": {str(layer): radius for layer, radius in radii.items()},
            "seconds": {
                "homology": round(homology_seconds, 4),
                "errors": round(errors_seconds, 4),
                "all": round(time.perf_counter() - started, 4),
            },
        },
    )


def _guarded(asking: Asking, what: str, measured: Callable[[], GroupNumbers]) -> GroupNumbers:
    """The numbers of the groups, or of the directions; what is raised costs no others."""
    try:
        return measured()
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - it costs these numbers
        asking.failed[what] = f"the {what} could not be measured: {described(error)}"
        return GroupNumbers({what: {None: Missing(asking.failed[what])}})


def _of_this_sample(
    numbers: FoundNumbers,
    asking: Asking,
    sample: Sample,
    status: Mapping[int, str],
    views: Mapping[int, LayerView],
    config: TopologyConfig,
) -> None:
    """The numbers of every layer by itself, and of the sample as a whole."""
    for layer, view in views.items():
        numbers.put(layer, {"median_distance": view.median})
        if "scale" in config.measures:
            numbers.put(layer, largest_shares(sample, view))
        for name in _named(config.measures, layer_measures):
            numbers.put(layer, asking.numbers(name, layer_measures[name], view))
    for layer in sample.layers:
        if not status[layer].startswith("invalid"):  # one point repeated has tokens all the same
            _take_tokens(numbers, sample, layer)
    numbers.put(None, {name: float(sample.facts[name]) for name in _FACTS_AS_NUMBERS if name in sample.facts})
    numbers.put(None, {"invalid_layers": float(sum(text.startswith("invalid") for text in status.values()))})


def _compare(
    numbers: FoundNumbers,
    asking: Asking,
    views: Mapping[int, LayerView],
    earlier: Earlier,
    label: str,
    config: TopologyConfig,
) -> None:
    for layer, view in views.items():
        before = earlier.of(label, ("cloud", layer))
        if before is not None:
            then = earlier_view(before, earlier.kept(before), layer, config)
            for name in _named(config.measures, pair_measures):
                found = asking.numbers(name, pair_measures[name], view, then)
                numbers.put(layer, {f"{key}.{label}": value for key, value in found.items()})


def _drifts(
    sample: Sample, views: Mapping[int, LayerView], earlier: Earlier, label: str, metric: str
) -> dict[int | None, Number]:
    found: dict[int | None, Number] = {}
    for layer in views:
        before = earlier.of(label, ("cloud", layer))
        medians = {} if before is None else before.numbers["median_distance"]
        found[layer] = centroid_drift(layer, sample, earlier.kept(before), medians, metric)
    return found


def _take_tokens(numbers: FoundNumbers, sample: Sample, layer: int) -> None:
    """The token measures of a layer, each as its distribution over prompts, and the error of its mean."""
    if sample.token_numbers is None:
        return
    for name, values in zip(sample.token_measures, sample.token_numbers[sample.layers.index(layer)], strict=True):
        numbers.put(layer, over_prompts(name, values))
        numbers.put_error(layer, name, mean_error(values[np.isfinite(values)].astype(np.float64)))


def _take_studies(numbers: FoundNumbers, sample: Sample, status: Mapping[int, str]) -> None:
    """What the studies found on the training process; of invalid layers the status is the reason."""
    found: dict[str, dict[int | None, Number]] = {name: dict(given) for name, given in sample.study_numbers.items()}
    for name, given in sample.study_missing.items():
        found.setdefault(name, {}).update({layer: Missing(reason) for layer, reason in given.items()})
    for name, by_layer in found.items():
        for layer, value in by_layer.items():
            if layer is None or not status[layer].startswith("invalid"):
                numbers.put(layer, {name: value})


def _gaussian_neighbours(sample: Sample, views: Mapping[int, LayerView]) -> np.ndarray | None:
    clouds = {layer: view.gaussian_neighbours for layer, view in views.items() if view.gaussian_neighbours is not None}
    if not clouds or len(clouds) < len(views):
        return None
    found = np.full((len(sample.layers), *next(iter(clouds.values())).shape), -1, dtype=np.int32)
    for layer, neighbours in clouds.items():
        found[sample.layers.index(layer)] = neighbours
    return found


def _coordinates(
    sample: Sample, views: Mapping[int, LayerView], config: TopologyConfig
) -> tuple[Float16[np.ndarray, "layers points dimensions"] | None, dict[int, float]]:
    """Principal coordinates of the ok layers, NaN elsewhere, and the share of the squared distances in them."""
    if not config.map_dimensions or not views:
        return None, {}
    points = len(next(iter(views.values())).neighbours)
    found = np.full((len(sample.layers), points, config.map_dimensions), np.nan, dtype=np.float16)
    shares = {}
    for layer, view in views.items():
        assert view.distances is not None  # of a sample that is being measured they are there
        values, share = principal_coordinates(view.distances, config.map_dimensions, config.metric)
        found[sample.layers.index(layer)] = np.clip(values, -_LARGEST_FLOAT16, _LARGEST_FLOAT16)
        shares[layer] = round(share, 4)
    return found, shares


def _over_depth(
    numbers: FoundNumbers, asking: Asking, views: Mapping[int, LayerView], config: TopologyConfig
) -> Barcode | None:
    """The depth zigzag over the ok layers, and the numbers of all layers together; none where no layer is ok."""
    if not views:
        return None
    zigzag = None
    if config.zigzag_engine != "off" and len(views) > 1:
        stages = np.stack([view.neighbours for view in views.values()])
        engine: Any = config.zigzag_engine
        zigzag = zigzag_persistence(stages, max_dimension=config.zigzag_dimension, engine=engine)
    depth = DepthView(layers=tuple(views), views=views, zigzag=zigzag)
    for name in _named(config.measures, depth_measures):
        numbers.put_all(asking.by_layer(name, depth_measures[name], depth, views))
    return zigzag


def _over_time(
    numbers: FoundNumbers, asking: Asking, graphs: Sequence[NeighbourGraphs], config: TopologyConfig, threads: int
) -> None:
    """The numbers of every layer's time zigzag up to the newest sample; none before the second one."""
    names = _named(config.measures, time_measures)
    if config.zigzag_engine == "off" or not names:
        return

    def measured(layer: int) -> dict[str, Number]:
        zigzag, steps = time_zigzag(graphs, layer, window=config.time_window, engine=config.zigzag_engine)
        view = TimeView(layer=layer, steps=steps, zigzag=zigzag)
        return {k: value for name in names for k, value in asking.numbers(name, time_measures[name], view).items()}

    layers = [layer for layer in graphs[-1].neighbours if sum(layer in each.neighbours for each in graphs) > 1]
    with ThreadPoolExecutor(threads) as pool:
        for layer, found in zip(layers, pool.map(measured, layers), strict=True):
            numbers.put(layer, found)


def _named(wanted: Iterable[str], registered: Mapping[str, object]) -> list[str]:
    return [name for name in wanted if name in registered]


class FoundNumbers:
    """Numbers by measure and layer, as a snapshot holds them.

    Attributes:
        values: measure -> layer, None for the whole depth -> value.
        missing: and the reasons of those that are not defined, in the same form.
        errors: and how far they could be off with other prompts; see `Snapshot.errors`.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[int | None, float]] = {}
        self.missing: dict[str, dict[int | None, str]] = {}
        self.errors: dict[str, dict[int | None, float]] = {}

    def put(self, layer: int | None, found: Mapping[str, Number]) -> None:
        """Add numbers of one layer."""
        for name, value in found.items():
            if isinstance(value, Missing):
                self.missing.setdefault(name, {})[layer] = value.reason
            else:
                self.values.setdefault(name, {})[layer] = float(value)

    def put_error(self, layer: int | None, name: str, error: float | None) -> None:
        """Add the error of a number of one layer; None where it has none."""
        if error is not None:
            self.errors.setdefault(name, {})[layer] = error

    def put_all(self, found: Mapping[str, Mapping[int | None, Number]]) -> None:
        """Add numbers of several layers."""
        for name, by_layer in found.items():
            for layer, value in by_layer.items():
                self.put(layer, {name: value})
