"""The numbers of a probe's groups: what tells two of them apart, how far each moved, and what its answers did.

Of each pair three tests are kept as the labellings with the largest values: the events of a run are decided on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64

from topo_callback.config import TopologyConfig
from topo_callback.groups import LEAST_GROUP, Groups, pair_key
from topo_callback.measures import LayerView
from topo_callback.measures.behaviour import mean_and_error
from topo_callback.measures.groups import (
    evened,
    h0_gap,
    labellings,
    labellings_for,
    of_members,
    purities,
    purity_by_chance,
    separation_error,
    separations,
    share_as_large,
    standardised,
)
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.uncertainty import (
    HALVES,
    LEFT_OUT,
    error_of,
    mean_error,
    parts_of_prompts,
    recorded_error,
    standard_error,
)
from topo_callback.measuring.comparing import Earlier
from topo_callback.measuring.points import drift_of_mean
from topo_callback.records.sample import Sample
from topo_callback.wording import counted

SEPARATES, MERGES, ANSWERS = "separates", "merges", "answers"
LEADING = 64  # labellings that are kept of each test; `dynamics.groups` says why these are enough
_DIVERGENCES = ("kl", "tv")
_ANSWERS_BY = "tv"  # bounded, so that no single prompt decides
_EXACT = 2.0**40  # shares in whole parts of this add up without rounding, so that equal labellings have equal sums
_REMEMBERED = 128  # layers whose separations under all labellings are kept, for the first sample of a run
_Pair = tuple[str, str]
_Separations = Mapping[_Pair, Float64[np.ndarray, " labellings"]]
_known: dict[tuple[bytes, str, Groups], _Separations] = {}
_lock = Lock()


@dataclass
class GroupNumbers:
    """What was found.

    Attributes:
        numbers: name -> layer, None for the whole model -> value.
        errors: in the same form.
        leading: name of a test -> the labellings with the largest values; see `Snapshot.leading`.
    """

    numbers: dict[str, dict[int | None, Number]] = field(default_factory=dict)
    errors: dict[str, dict[int | None, float]] = field(default_factory=dict)
    leading: dict[str, Int16[np.ndarray, " leading"]] = field(default_factory=dict)

    def put(self, name: str, layer: int | None, value: Number, error: float | None = None) -> None:
        """Add one number, and its error where it has one."""
        self.numbers.setdefault(name, {})[layer] = value
        if error is not None:
            self.errors.setdefault(name, {})[layer] = error


def group_numbers(
    sample: Sample,
    groups: Groups,
    views: Mapping[int, LayerView],
    earlier: Earlier,
    by_prompt: Mapping[str, Float64[np.ndarray, " prompts"]],
    config: TopologyConfig,
    threads: int = 1,
) -> GroupNumbers:
    """Everything that a sample says of the groups; see docs/measures.md.

    Args:
        sample: the newest one.
        groups: of its prompts; without groups there is nothing to say.
        views: its layers that are ok.
        earlier: the samples to compare with.
        by_prompt: how far each prompt's answer moved, from `answers.answer_moves`.
        config: the metric.
        threads: layers measured side by side; the result does not depend on it.
    """
    found = GroupNumbers()
    measured = [name for name in groups.names if len(groups.members(name)) >= LEAST_GROUP]
    for name in groups.names:
        if name not in measured:
            few = f"the group has {counted(len(groups.members(name)), 'prompt')}; {LEAST_GROUP} are needed"
            found.put(f"purity[{name}]", None, Missing(few))
    pairs = [pair for pair in groups.pairs if set(pair) <= set(measured)]
    _of_each(found, sample, groups, measured, views, earlier, config)
    _of_answers(found, sample, groups, measured, pairs, earlier, by_prompt)
    if pairs and views:
        _of_pairs(found, groups, pairs, views, earlier, config, threads)
    return found


def _of_pairs(
    found: GroupNumbers,
    groups: Groups,
    pairs: list[_Pair],
    views: Mapping[int, LayerView],
    earlier: Earlier,
    config: TopologyConfig,
    threads: int,
) -> None:
    def measured(layer: int) -> tuple[_Separations, dict[_Pair, tuple[float, float | None]], _Separations | None]:
        view = views[layer]
        assert view.distances is not None
        before = earlier.of("first", ("cloud", layer))
        kept = earlier.kept(before)
        then = None
        if kept is not None and kept.distances.shape[1] == view.distances.size:
            then = _separations(kept.distances[kept.layers.index(layer)], groups, pairs, config.metric)
        now = _separations(view.distances, groups, pairs, config.metric)
        gaps = dict(_gaps(view.distances, view.median, groups, pairs, errors=config.errors))
        return now, gaps, then

    with ThreadPoolExecutor(threads) as pool:
        of_layers = dict(zip(views, pool.map(measured, views), strict=True))
    for pair in pairs:
        key = pair_key(*pair)
        sizes = [len(groups.members(name)) for name in pair]
        for layer, (now, gaps, _) in of_layers.items():
            value = float(now[pair][0])
            error = error_of(separation_error(value, *sizes), sum(sizes))
            found.put(f"separation[{key}]", layer, value, error)
            found.put(f"separation_p[{key}]", layer, float(share_as_large(now[pair])))
            found.put(f"separation_by_chance[{key}]", layer, float(np.quantile(now[pair], 0.95)))
            found.put(f"h0_gap[{key}]", layer, *gaps[pair])
        largest = standardised(np.stack([now[pair] for now, _, _ in of_layers.values()])).max(axis=0)
        found.put(f"separation_p[{key}]", None, float(share_as_large(largest)))
        changes = [now[pair] - then[pair] for now, _, then in of_layers.values() if then is not None]
        if changes:
            changed = standardised(np.stack(changes))
            found.leading[f"{SEPARATES}[{key}]"] = leading(changed.max(axis=0))
            found.leading[f"{MERGES}[{key}]"] = leading(-changed.min(axis=0))


def leading(values: Float64[np.ndarray, " labellings"]) -> Int16[np.ndarray, " leading"]:
    """The labellings with the largest values, the largest first; the given one comes behind those that are equal."""
    given = np.arange(len(values)) == 0
    return np.lexsort((given, -values))[:LEADING].astype(np.int16)


def _separations(
    distances: Float32[np.ndarray, " pairs"], groups: Groups, pairs: list[_Pair], metric: str
) -> _Separations:
    """Of each pair under all labellings, remembered by the SHA-256 of the distances."""
    key = hashlib.sha256(distances.tobytes()).digest(), metric, groups
    with _lock:
        known = _known.get(key)
    if known is None:
        products = evened(distances, metric)
        known = {}
        for pair in pairs:
            first, second = (groups.members(name) for name in pair)
            labels = labellings(len(first), len(second), labellings_for(len(groups.pairs)))
            known[pair] = separations(products, first, second, labels)
        with _lock:
            _known[key] = known
            while len(_known) > _REMEMBERED:
                del _known[next(iter(_known))]  # the oldest
    return known


def _gaps(
    distances: Float32[np.ndarray, " pairs"], median: float, groups: Groups, pairs: list[_Pair], *, errors: bool
) -> Iterator[tuple[_Pair, tuple[float, float | None]]]:
    """The gap of each pair in median distances, and its error."""
    for pair in pairs:
        first, second = (groups.members(name) for name in pair)
        gap = _gap(distances, first, second)
        error = _gap_error(gap, distances, first, second) if errors else None
        yield pair, (gap / median, None if error is None else error / median)


def _gap(
    distances: Float32[np.ndarray, " pairs"], first: Int64[np.ndarray, " first"], second: Int64[np.ndarray, " second"]
) -> float:
    members = np.concatenate([first, second])
    return h0_gap(of_members(distances, members), np.arange(len(members)) < len(first))


def _gap_error(
    gap: float,
    distances: Float32[np.ndarray, " pairs"],
    first: Int64[np.ndarray, " first"],
    second: Int64[np.ndarray, " second"],
) -> float | None:
    """The error of a gap, from halves of both groups; None where in some half there is no gap: near 0 no interval of
    those that were tried holds (benchmarks/RESULTS_groups.md)."""
    if gap == 0:
        return None
    halves = zip(*(parts_of_prompts(len(places), HALVES) for places in (first, second)), strict=False)
    found = []
    for one, other in halves:
        found.append(_gap(distances, first[one], second[other]))
        if found[-1] == 0:
            return None
    if not found:
        return None
    parts = np.array(found)[:, None]
    # variance goes with one over the prompts; for groups of unequal sizes, with one over those of the smaller
    standard = standard_error(np.array([gap]), parts, min(len(first), len(second)), HALVES)
    return float(recorded_error(standard, HALVES.wide)[0])


def _of_each(
    found: GroupNumbers,
    sample: Sample,
    groups: Groups,
    names: list[str],
    views: Mapping[int, LayerView],
    earlier: Earlier,
    config: TopologyConfig,
) -> None:
    of_prompts = np.array(groups.of_prompts)
    for name in names:
        group = groups.names.index(name)
        is_member = of_prompts == group
        places = np.flatnonzero(is_member)
        found.put(f"purity_by_chance[{name}]", None, purity_by_chance(int(is_member.sum()), len(is_member)))
        for layer, view in views.items():
            # no error: prompts share their neighbours, so that the spread over prompts gives 70 to 88 % intervals
            found.put(f"purity[{name}]", layer, float(purities(view.neighbours, is_member).mean()))
            for label in earlier.labels():
                before = earlier.of(label, ("cloud", layer))
                if before is None:
                    continue
                then = before.neighbours[before.layers.index(layer)]
                if then.shape == view.neighbours.shape:
                    kept = (view.neighbours[is_member][:, :, None] == then[is_member][:, None, :]).any(axis=2)
                    shares = kept.mean(axis=1)
                    found.put(f"mutual_knn[{name}].{label}", layer, float(shares.mean()), mean_error(shares))
                medians = before.numbers["median_distance"]
                drift = _drift(layer, group, sample, earlier.kept(before), medians, config)
                error = None
                if not isinstance(drift, Missing):
                    error = _drift_error(layer, group, len(places), sample, earlier.kept(before), medians[layer])
                found.put(f"drift[{name}].{label}", layer, drift, error)


def _drift(
    layer: int,
    group: int,
    now: Sample,
    then: Sample | None,
    medians: Mapping[int | None, float],
    config: TopologyConfig,
) -> Number:
    """How far the mean of a group's points moved, as `points.centroid_drift` says it of all points."""

    def mean(sample: Sample | None) -> Float64[np.ndarray, " width"] | None:
        if sample is None or sample.group_centroids is None:
            return None
        found: Float64[np.ndarray, " width"] = sample.group_centroids[sample.layers.index(layer), group]
        return found

    return drift_of_mean(mean(then), mean(now), medians.get(layer), config.metric)


def _drift_error(layer: int, group: int, prompts: int, now: Sample, then: Sample | None, median: float) -> float | None:
    """The error of a drift that is defined: the delete-block jackknife over the group's prompts."""
    if then is None or now.group_blocks is None or then.group_blocks is None:
        return None
    means, blocks = [], []
    for sample in (now, then):
        assert sample.group_centroids is not None
        assert sample.group_blocks is not None
        means.append(sample.group_centroids[sample.layers.index(layer), group])
        blocks.append(sample.group_blocks[sample.layers.index(layer), group].astype(np.float64))
    size = prompts // LEFT_OUT.groups
    # the mean without a block, from that of all and how far the block's is from it
    without = means[0] - means[1] - size / (prompts - size) * (blocks[0] - blocks[1])
    parts = np.linalg.norm(without, axis=1)[:, None] / median
    standard = standard_error(parts[0], parts, prompts, LEFT_OUT)
    error = float(recorded_error(standard, LEFT_OUT.wide)[0])
    return error if np.isfinite(error) else None


def _of_answers(
    found: GroupNumbers,
    sample: Sample,
    groups: Groups,
    names: list[str],
    pairs: list[_Pair],
    earlier: Earlier,
    by_prompt: Mapping[str, Float64[np.ndarray, " prompts"]],
) -> None:
    """How far the answers of each group moved, and whether those of one moved further than those of another."""
    labels = [groups.label(point) for point in sample.next_token_points]
    places = {name: [place for place, label in enumerate(labels) if label == name] for name in names}
    for label in earlier.labels():
        for which in _DIVERGENCES:
            values = by_prompt.get(f"next_token_{which}.{label}")
            if values is None:
                continue
            for name in names:
                mean, standard = mean_and_error(values, places[name])
                count = int(np.isfinite(values[places[name]]).sum())
                error = None if isinstance(standard, Missing) else error_of(standard, count)
                found.put(f"next_token_{which}[{name}].{label}", None, mean, error)
    moved = [by_prompt.get(f"next_token_{_ANSWERS_BY}.{label}") for label in earlier.labels()]
    for pair in pairs:
        first, second = (places[name] for name in pair)
        if min(len(first), len(second)) >= LEAST_GROUP:
            ways = labellings(len(first), len(second), labellings_for(len(groups.pairs)))
            apart = [_differences(values[first + second], ways) for values in moved if values is not None]
            if apart:
                further = standardised(np.stack(apart))
                found.leading[f"{ANSWERS}[{pair_key(*pair)}]"] = leading(further.max(axis=0))
                found.leading[f"{ANSWERS}[{pair_key(*reversed(pair))}]"] = leading(-further.min(axis=0))


def _differences(
    values: Float64[np.ndarray, " prompts"], labels: Float64[np.ndarray, "labellings prompts"]
) -> Float64[np.ndarray, " labellings"]:
    """The mean of the labelled prompts minus that of the others, of those that have a value; 0 where none has."""
    there = np.isfinite(values)
    chosen, labels = np.rint(values[there] * _EXACT) / _EXACT, labels[:, there]
    counts = np.stack([labels.sum(axis=1), (1 - labels).sum(axis=1)])
    sums = np.stack([labels @ chosen, (1 - labels) @ chosen])
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return np.where((counts > 0).all(axis=0), means[0] - means[1], 0.0)
