"""The numbers of given directions: how far prompts lie along them, how that changes, and whether the drift goes there.

`NAME` stands for a direction in the names of numbers, as in `projection(NAME)`; of a group `[GROUP]` follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float32, Float64, Int64

from topo_callback.groups import LEAST_GROUP, Groups
from topo_callback.measures import LayerView
from topo_callback.measures.distances import squared_distances
from topo_callback.measures.groups import of_members
from topo_callback.measures.missing import NOT_KEPT, Missing, Number
from topo_callback.measures.uncertainty import (
    LEFT_OUT,
    mean_error,
    parts_of_prompts,
    recorded_error,
    standard_error,
)
from topo_callback.measuring.comparing import Earlier
from topo_callback.measuring.groups import GroupNumbers
from topo_callback.records.sample import Sample

_SEEN_BY_CHANCE = 1.96  # standard deviations of a cosine with a random direction, 95 %
_STILL = "the mean has not moved since"
_OTHERS = "the earlier sample has other directions"


def is_of_directions(number: str) -> bool:
    """Whether a number, by its name, is of directions."""
    return "(" in number


def direction_numbers(sample: Sample, groups: Groups, views: Mapping[int, LayerView], earlier: Earlier) -> GroupNumbers:
    """Everything that a sample says of its directions; see docs/measures.md. Nothing without directions.

    Args:
        sample: the newest one.
        groups: of its prompts.
        views: its layers that are ok.
        earlier: the samples to compare with.
    """
    found = GroupNumbers()
    if sample.projections is None:
        return found
    sets = list(_sets(groups, sample.projections.shape[2]))
    for place, name in enumerate(sample.direction_names):
        for layer, view in views.items():
            now = sample.projections[sample.layers.index(layer), place]
            if np.isnan(now).any():
                continue  # the file has no such layer
            for _, suffix, members in sets:
                key = f"projection({name}){suffix}"
                found.put(key, layer, float(now[members].mean()), mean_error(now[members]))
            for label in earlier.labels():
                before = earlier.kept(earlier.of(label, ("cloud", layer)))
                for number, value, error in _since(name, layer, view, sample, before, sets):
                    found.put(f"{number}.{label}", layer, value, error)
    return found


_Set = tuple[int, str, Int64[np.ndarray, " _"]]


def _sets(groups: Groups, points: int) -> Iterator[_Set]:
    """Place among the means, suffix of the name and prompts, of all and of each group that is large enough."""
    yield 0, "", np.arange(points)
    for place, name in enumerate(groups.names, start=1):
        members = groups.members(name)
        if len(members) >= LEAST_GROUP:
            yield place, f"[{name}]", members


def _since(
    name: str, layer: int, view: LayerView, sample: Sample, before: Sample | None, sets: list[_Set]
) -> Iterator[tuple[str, Number, float | None]]:
    """What changed since an earlier sample, for all prompts and each group."""
    then = None if before is None else _projections(before, layer, name)
    now = _projections(sample, layer, name)
    assert now is not None
    for place, suffix, members in sets:
        change, cosine, chance = (
            f"{number}({name}){suffix}" for number in ("projection_change", "drift_cosine", "drift_cosine_by_chance")
        )
        if then is None or before is None or len(then) != len(now):
            reason = Missing(NOT_KEPT if before is None else _OTHERS)
            yield change, reason, None
            yield cosine, reason, None
            continue
        yield change, *_change(then[members], now[members])
        means = [each.means_of_set(layer, place) for each in (before, sample)]
        variance = _variance(before.distances[before.layers.index(layer)], view.metric, members)
        value, error, of_chance = _cosine(means, then[members], now[members], variance)
        yield cosine, value, error
        if of_chance is not None:
            yield chance, of_chance, None


def _projections(sample: Sample, layer: int, name: str) -> Float64[np.ndarray, " points"] | None:
    if sample.projections is None or name not in sample.direction_names or layer not in sample.layers:
        return None
    found: Float64[np.ndarray, " points"] = sample.projections[
        sample.layers.index(layer), sample.direction_names.index(name)
    ]
    return None if np.isnan(found).any() else found


def _change(then: Float64[np.ndarray, " prompts"], now: Float64[np.ndarray, " prompts"]) -> tuple[Number, float | None]:
    """The mean change in standard deviations over prompts of the earlier sample, and its error by the jackknife."""

    def of(chosen: Int64[np.ndarray, " part"]) -> float:
        spread = float(then[chosen].std(ddof=1))
        return float((now[chosen] - then[chosen]).mean()) / spread if spread > 0 else math.nan

    whole = of(np.arange(len(then)))
    if not math.isfinite(whole):
        return Missing("all prompts lie equally far along the direction"), None
    return whole, _error(whole, [of(part) for part in parts_of_prompts(len(then), LEFT_OUT)], len(then))


def _cosine(
    means: list[Float64[np.ndarray, "_ width"] | None],
    then: Float64[np.ndarray, " prompts"],
    now: Float64[np.ndarray, " prompts"],
    variance: float,
) -> tuple[Number, float | None, float | None]:
    """The cosine of the mean's drift with the direction, its error, and what 95 % of random directions stay below.

    Random directions have the covariance of the prompts at the earlier sample, as those of
    `studies/sensitive_directions.py`: their cosine with the drift has the standard deviation of the prompts along the
    drift, over that of all coordinates together. The former is estimated from the eight blocks.
    """
    if means[0] is None or means[1] is None:
        return Missing(NOT_KEPT), None, None
    count = min(len(means[0]), len(means[1]))
    drifts = means[1][:count] - means[0][:count]
    lengths = np.linalg.norm(drifts, axis=1)
    if not (lengths > 0).all():
        return Missing(_STILL), None, None
    parts = [np.arange(len(then)), *parts_of_prompts(len(then), LEFT_OUT)][:count]
    cosines = np.array([(now[part] - then[part]).mean() for part in parts]) / lengths
    whole = float(np.clip(cosines[0], -1.0, 1.0))
    if count == 1:
        return whole, None, None
    along = (means[0][1:] - means[0][:1]) @ (drifts[0] / lengths[0])
    # the jackknife's variance of a mean, times the prompts
    spread = standard_error(np.zeros(1), along[:, None], len(then), LEFT_OUT)[0] * math.sqrt(len(then))
    chance = min(1.0, _SEEN_BY_CHANCE * spread / math.sqrt(variance)) if variance > 0 else None
    return whole, _error(whole, list(cosines[1:]), len(then)), chance


def _error(whole: float, parts: list[float], points: int) -> float | None:
    if not parts or not np.isfinite(parts).all():
        return None
    standard = standard_error(np.array([whole]), np.array(parts)[:, None], points, LEFT_OUT)
    return float(recorded_error(standard, LEFT_OUT.wide)[0])


def _variance(distances: Float32[np.ndarray, " pairs"], metric: str, members: Int64[np.ndarray, " members"]) -> float:
    """The sum of the variances of all coordinates, from the distances among some of the points; 0: unknown."""
    if metric != "euclidean":
        return 0.0
    squares = squared_distances(of_members(distances, members), metric)
    return float(squares.mean()) / 2
