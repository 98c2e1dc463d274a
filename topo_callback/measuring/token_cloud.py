"""The numbers of the token clouds: the measures of a layer and of two samples, with sampled tokens as points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from topo_callback.config import TopologyConfig
from topo_callback.measures import LayerView, layer_measures, pair_measures
from topo_callback.measures.missing import NOT_KEPT, Missing, Number
from topo_callback.measuring.asking import Asking
from topo_callback.measuring.comparing import Earlier
from topo_callback.measuring.layers import layer_status, layer_views, sample_neighbours
from topo_callback.records.sample import Sample

PREFIX = "tokens."
_ALWAYS = "local_intrinsic_dimension"  # what token clouds are followed for
_NOT_OF_TOKENS = ("survival_gaussian",)


def token_cloud_numbers(
    sample: Sample, config: TopologyConfig, earlier: Earlier, asking: Asking, threads: int
) -> dict[int, dict[str, Number]]:
    """The configured measures of layers and pairs, of the token clouds, as `tokens.<number>`; H0 and H1.

    Args:
        sample: the newest sample.
        config: which engines and measures; the local intrinsic dimension comes always.
        earlier: the samples to compare with: each layer with the newest, and the first, that has its token cloud.
        asking: asks the measures.
        threads: layers measured side by side.

    Returns:
        layer -> numbers; empty when no token cloud was asked for. A token cloud that could not be made, and layers
        whose token clouds have no shape, have `tokens.median_distance` missing with the reason; where the earlier cloud
        is gone, each measure of a pair has one reason under its own name.
    """
    if config.token_cloud == 0:
        return {}
    own = f"{PREFIX}median_distance"
    if sample.token_distances is None:
        reason = str(sample.facts.get("token_cloud_missing", "the sample has no token cloud"))
        return {layer: {own: Missing(reason)} for layer in sample.layers}
    config = _settings(config)
    status, views = _views(sample, config, threads)
    found: dict[int, dict[str, Number]] = {
        layer: {own: Missing(text)} for layer, text in status.items() if text != "ok"
    }
    layer_names = [name for name in dict.fromkeys((*config.measures, _ALWAYS)) if name in layer_measures]
    for layer, view in views.items():
        numbers: dict[str, Number] = {"median_distance": view.median}
        for name in layer_names:
            numbers.update(asking.numbers(name, layer_measures[name], view))
        found[layer] = {f"{PREFIX}{name}": value for name, value in numbers.items()}
    for label in earlier.labels():
        before = _earlier_views(earlier, label, views, config, threads)
        for layer, view in views.items():
            found[layer].update(_compared(view, before.get(layer), label, config, asking))
    return found


def _settings(config: TopologyConfig) -> TopologyConfig:
    """The settings for token clouds: no H2, no sub-samples, no Gaussian clouds."""
    return replace(
        config,
        measures=tuple(name for name in config.measures if name not in _NOT_OF_TOKENS),
        max_dimension=1,
        subsamples=0,
    )


def _earlier_views(
    earlier: Earlier, label: str, layers: Iterable[int], config: TopologyConfig, threads: int
) -> dict[int, LayerView]:
    """The token clouds to compare with, of the layers for which they are still there."""
    wanted: dict[int, list[int]] = {}
    samples: dict[int, Sample] = {}
    for layer in layers:
        kept = earlier.kept(earlier.of(label, ("tokens", layer)))
        if kept is not None and kept.token_distances is not None:
            samples[kept.step] = kept
            wanted.setdefault(kept.step, []).append(layer)
    found: dict[int, LayerView] = {}
    for step, chosen in wanted.items():
        found |= _views(samples[step], config, threads, chosen)[1]
    return found


def _views(
    sample: Sample, config: TopologyConfig, threads: int, layers: Sequence[int] | None = None
) -> tuple[dict[int, str], dict[int, LayerView]]:
    """Status of the token clouds of some layers, or of all, and the views of those that are ok."""
    assert sample.token_distances is not None
    chosen = sample.layers if layers is None else tuple(layers)
    rows = [sample.layers.index(layer) for layer in chosen]
    neighbours = sample.token_neighbours
    tokens = Sample(
        step=sample.step,
        layers=chosen,
        distances=sample.token_distances[rows],
        neighbours=None if neighbours is None else neighbours[rows],
        invalid={layer: reason for layer, reason in sample.token_invalid.items() if layer in chosen},
        norms=None if sample.token_norms is None else sample.token_norms[rows],
    )
    status = layer_status(tokens)
    neighbours = sample_neighbours(tokens, status, config.neighbours)
    return status, layer_views(tokens, status, neighbours, config, threads)[0]


def _compared(
    now: LayerView, before: LayerView | None, label: str, config: TopologyConfig, asking: Asking
) -> dict[str, Number]:
    names = [name for name in config.measures if name in pair_measures]
    if before is None:
        return {f"{PREFIX}{name}.{label}": Missing(NOT_KEPT) for name in names}
    return {
        f"{PREFIX}{key}.{label}": value
        for name in names
        for key, value in asking.numbers(name, pair_measures[name], now, before).items()
    }
