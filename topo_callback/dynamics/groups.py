"""Events of a probe's groups: two of them part, one merges into another, the answers of one alone move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

from topo_callback.dynamics.group_series import GroupSeries
from topo_callback.dynamics.reorganisation import Event, layers_in_words
from topo_callback.wording import plain_percent

APART = 1.0  # standard deviations that a separation has to change by
TIMES = 1.5  # that it has to be as large as before, or was as now
ANSWERS, SHARE = 2.0, 0.1  # how many times as far, and how much further, answers of one group have to move
_KINDS = {"separates": "groups_part", "merges": "groups_merge"}
_SEEN = 0.05  # a separation with a larger p is none


def group_events(series: GroupSeries) -> Iterator[Event]:
    """What happened to the groups, each once for each pair and kind.

    The labels decide whether something did. How much has to have changed to be told is a matter of size alone, which
    can only make false alarms rarer.
    """
    for pair in series.pairs:
        for test in _KINDS:
            since = series.ahead_since(test, pair)
            if since is not None:
                yield from _of_separation(series, pair, test, since)
        for one, other in (pair, pair[::-1]):
            since = series.ahead_since("answers", (one, other))
            if since is not None:
                yield from _of_answers(series, one, other, since)


def _of_separation(series: GroupSeries, pair: tuple[str, str], test: str, since: int) -> Iterator[Event]:
    values = series.separation[pair]
    first = _first_of_each(values)
    with np.errstate(invalid="ignore"):
        if test == "separates":
            changed = (values - first >= APART) & (values >= TIMES * first)
        else:
            changed = (first - values >= APART) & (first >= TIMES * values) & (_p_of_first(series, pair) <= _SEEN)
    told = np.flatnonzero(changed.any(axis=1) & (np.arange(len(values)) >= since))
    if not told.size:
        return
    sample = int(told[0])
    named = changed[sample]
    begun = _begun(changed[:, named].any(axis=1), sample)
    layers = tuple(layer for layer, each in zip(series.layers, named.tolist(), strict=True) if each)
    gain = np.where(named, np.abs(values[sample] - first), -1.0)
    most = int(gain.argmax())
    together = series.p_value[pair][sample, -1] > _SEEN
    one, other = pair
    verb = "part" if test == "separates" else "merge" if together else "move together"
    where = layers_in_words(layers, series.layers)
    words = (
        f"{one} and {other} {verb} at {where} from step {series.steps[begun]}: {first[most]:.1f} standard deviations "
        f"apart at the start, {values[sample, most]:.1f} now (layer {series.layers[most]}, held out)"
    )
    if test == "merges" and together:
        words += ", no more than random labels"
    steps = series.steps[begun], series.steps[sample]
    yield Event(_KINDS[test], "sequential", *steps, steps[1], layers, None, None, words, groups=pair)


def _of_answers(series: GroupSeries, one: str, other: str, since: int) -> Iterator[Event]:
    for sample in range(since, len(series.steps)):
        for label, words in (("first", "since the start"), ("previous", "since the last sample")):
            moved, less = (float(series.answers[label][name][sample]) for name in (one, other))
            if moved >= ANSWERS * less and moved - less >= SHARE:
                said = (
                    f"the answers of {one} moved, those of {other} less: {plain_percent(moved)} of their probability "
                    f"went to other tokens {words}, against {plain_percent(less)}"
                )
                first = series.steps[0] if label == "first" else series.steps[max(0, sample - 1)]
                step = series.steps[sample]
                yield Event("group_answers", "sequential", first, step, step, (), None, None, said, groups=(one, other))
                return


def _first_of_each(values: Float64[np.ndarray, "samples layers"]) -> Float64[np.ndarray, " layers"]:
    """The first value that each layer has; NaN where it has none."""
    there = np.isfinite(values)
    found: Float64[np.ndarray, " layers"] = np.take_along_axis(values, there.argmax(axis=0)[None], axis=0)[0]
    return found


def _p_of_first(series: GroupSeries, pair: tuple[str, str]) -> Float64[np.ndarray, " layers"]:
    return _first_of_each(series.p_value[pair][:, :-1])


def _begun(holds: Bool[np.ndarray, " samples"], sample: int) -> int:
    """The first of the samples in a row, up to this one, at which something holds."""
    broken = np.flatnonzero(~holds[:sample])
    return int(broken[-1]) + 1 if broken.size else 0
