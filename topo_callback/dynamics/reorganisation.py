"""From the window of an alarm to its events: onset, peak, settled, late reorganisation, and their explanation.

`RATES` says beside them how often runs in which nothing happened are told an event, from benchmarks/RESULTS_events.md,
RESULTS_samples.md, RESULTS_groups.md and RESULTS_alerts.md, whose conditions they rest on; a test holds that
docs/events.md says the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64

from topo_callback.dynamics.series import Series
from topo_callback.dynamics.summaries import MAD
from topo_callback.wording import plain_percent

KINDS = (
    "change", "divergence", "not_finite", "explained",
    "onset", "peak", "settled", "late_reorganisation", "collapse", "invalid_layers",
    "groups_part", "groups_merge", "group_answers", "rule",
)  # fmt: skip
"""All kinds of events."""
OF_OTHERS = ("explained", "peak", "settled")
"""Kinds that say more of another event."""

LATE = 0.5  # share of the training steps from which on a reorganisation is late
SETTLED_INTERVALS = 3
_CALM = 0.22  # log velocity: a quarter above the prediction
UNMEASURED = "how often this rule is wrong is not known"
_FEWEST_BEFORE = 6  # intervals before a window, without which those behind it say, too, what is usual


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: `change`, `divergence` or `not_finite`, of training; `explained`, of a change; `onset`, `peak`, `settled`,
            `late_reorganisation`, `collapse` or `invalid_layers`, of representations; `groups_part`, `groups_merge` or
            `group_answers`, of groups of prompts; `rule`, of a rule of one's own.
        level: `sequential` or `calibrated`, the decision it belongs to; `observed` for facts that are no test; `noted`
            for what a rule says of which nobody knows how often it is wrong.
        first_step: where it begins.
        last_step: where it ends.
        known_at: step with which it could first be said: of the sample, or of training.
        layers: the layers it is most visible in, none for events of training. They explain the event; it was decided
            on all of them together.
        factor: how many times as far as before, or as the references, the named layers moved; for a collapse, what is
            left; for a change, how many times as large the signal is that has most to do with it. None else.
        p_value: of a calibrated decision; None else.
        explanation: in words and numbers.
        measured: whether it is known how often a run in which nothing happened is told this (docs/events.md); without
            that nothing follows from an event: no alert, no checkpoint, no stop. Facts count as known.
        groups: the names of the probe's groups that it is of; none for other events.
        rule: the name of the rule of one's own that came true; "" for other events.
    """

    kind: str
    level: str
    first_step: int
    last_step: int
    known_at: int
    layers: tuple[int, ...]
    factor: float | None
    p_value: float | None
    explanation: str
    measured: bool = True
    groups: tuple[str, ...] = ()
    rule: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Event:
        """An event from its fields as plain values; records of older versions do not say whether it is measured."""
        known = {field.name for field in dataclasses.fields(cls)}
        plain = {name: value for name, value in fields.items() if name in known}
        places = {"layers": tuple(fields["layers"]), "groups": tuple(fields.get("groups", ()))}
        return cls(**{"measured": is_measured(fields), **plain, **places})

    @property
    def said(self) -> str:
        """Kind and explanation in one line, with what is to be known of a rule without an error rate."""
        return event_words(self.kind, self.explanation, measured=self.measured)


def is_measured(fields: Mapping[str, Any]) -> bool:
    """`measured` of an event in a record, also of an older version, which had it of all kinds but collapses."""
    return bool(fields.get("measured", fields["kind"] != "collapse"))


def event_words(kind: str, explanation: str, *, measured: bool) -> str:
    """An event in one line, with what is to be known of a rule without an error rate."""
    words = f"{kind.replace('_', ' ')}: {explanation}"
    if kind == "rule":  # whose explanation says so, wherever it is read
        return words
    return words if measured else f"noted, no alarm: {words}; {UNMEASURED}"


@dataclass(frozen=True)
class Alarm:
    """An alarm: intervals first to last, decided with the first `samples` samples of the run.

    Attributes:
        beside: what the layers moved more than, in words.
        also: what else is known of these intervals, in words.
        later: samples after an interval until it is judged.
    """

    level: str
    p_value: float | None
    first: int
    last: int
    samples: int
    beside: str
    measured: bool = True
    also: str = ""
    later: int = 0


def reorganisation(
    series: Series,
    alarm: Alarm,
    velocity: Float64[np.ndarray, " intervals"],
    layer_velocity: Float64[np.ndarray, "intervals layers"],
) -> Iterator[Event]:
    """The events of one alarm.

    Args:
        velocity: log velocity of the summary that alarmed; NaN where missing.
        layer_velocity: log velocity of every layer.
    """
    steps, known = series.steps, series.steps[alarm.samples - 1]
    named, factor = explaining_layers(series.layers, layer_velocity[alarm.first : alarm.last + 1])
    if factor is None:  # none has a value there and before: all of them together have
        factor = float(np.exp(np.nanmean(velocity[alarm.first : alarm.last + 1])))
    where = layers_in_words(named, series.layers) if named else "the layers together"
    moved = f"{where} moved {factor:.1f}x {alarm.beside}"
    shown = alarm.level if alarm.p_value is None else f"{alarm.level} p = {alarm.p_value:.2g}"
    start, end = steps[alarm.first], steps[alarm.last + 1]

    def event(kind: str, first: int, last: int, known_at: int, words: str) -> Event:
        return Event(kind, alarm.level, first, last, known_at, named, factor, alarm.p_value, words, alarm.measured)

    span = f"{moved}, steps {start}-{end}{alarm.also} ({shown})"
    yield event("onset", start, steps[alarm.first + 1], known, span)
    if series.max_steps is not None and start >= LATE * series.max_steps:
        words = f"late, after {plain_percent(start / series.max_steps)} of the training: {span}"
        yield event("late_reorganisation", start, end, known, words)
    peak, confirmed = _peak(velocity, alarm.first)
    if confirmed is None:
        return
    at = max(known, steps[confirmed + 1 + alarm.later])
    height = float(np.exp(velocity[peak]))
    words = f"fastest in steps {steps[peak]}-{steps[peak + 1]}, at {height:.1f}x; {moved} ({shown})"
    yield event("peak", steps[peak], steps[peak + 1], at, words)
    calm = _settled(velocity, alarm, peak)
    if calm is not None:
        first, last = calm
        words = f"as fast as usual since step {steps[first]}, after the peak in steps " + (
            f"{steps[peak]}-{steps[peak + 1]} ({shown})"
        )
        at = max(at, steps[last + 1 + alarm.later])
        yield event("settled", steps[first], steps[last + 1], at, words)


def explaining_layers(
    layers: tuple[int, ...], window: Float64[np.ndarray, "intervals layers"]
) -> tuple[tuple[int, ...], float | None]:
    """The layers with at least half of the largest mean log velocity in a window, and their mean velocity; no layer and
    None where none has one."""
    excess = np.full(window.shape[1], -np.inf)
    present = np.isfinite(window).any(axis=0)
    if not present.any():
        return (), None
    excess[present] = np.nanmean(window[:, present], axis=0)
    chosen = excess >= max(0.5 * float(excess.max()), 0.0) if excess.max() > 0 else excess == excess.max()
    named = tuple(layer for layer, is_chosen in zip(layers, chosen.tolist(), strict=True) if is_chosen)
    return named, float(np.exp(excess[chosen].mean()))


def layers_in_words(named: tuple[int, ...], layers: tuple[int, ...]) -> str:
    """`layers 9-14`: neighbours among the layers that were read become a range."""
    runs: list[list[int]] = []
    for layer in named:
        if runs and layers.index(layer) == layers.index(runs[-1][-1]) + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    words = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"layer{'s' if len(named) > 1 else ''} {words}"


def _peak(velocity: np.ndarray, first: int) -> tuple[int, int | None]:
    """The fastest interval of an onset, and the first later one with less than half of its excess; None so far."""
    peak = first
    for interval in range(first, len(velocity)):
        if velocity[interval] > velocity[peak] or np.isnan(velocity[peak]):
            peak = interval
        elif velocity[interval] < velocity[peak] / 2:
            return peak, interval
    return peak, None


def _settled(velocity: np.ndarray, alarm: Alarm, peak: int) -> tuple[int, int] | None:
    """First and last of the first intervals in a row, after the peak, with usual velocities; None so far."""
    outside = velocity[: alarm.first]
    if np.isfinite(outside).sum() < _FEWEST_BEFORE:
        outside = np.delete(velocity, np.s_[alarm.first : alarm.last + 1])
    outside = outside[np.isfinite(outside)]
    usual = MAD * float(np.median(np.abs(outside - np.median(outside)))) if outside.size else 0.0
    present = np.flatnonzero(np.isfinite(velocity))
    present = present[present > peak]
    calm = velocity[present] <= max(_CALM, 2 * usual)
    for place in range(len(present) - SETTLED_INTERVALS + 1):
        if calm[place : place + SETTLED_INTERVALS].all():
            return int(present[place]), int(present[place + SETTLED_INTERVALS - 1])
    return None


RATES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("change", "sequential"): (
            "0 of 107 quiet real runs, 1 of 36 small SFT, DPO and GRPO runs; simulated, at most 5 % in 187 of 188 cells"
        ),
        ("change", "calibrated"): "at most 5 % of runs exchangeable with their references; 3 of 110 real runs",
        ("divergence", "sequential"): "0 of 147 quiet real runs, 11 of 18,800 simulated ones",
        ("onset", "sequential"): "1 of 107 quiet real runs; simulated, at most 5 % in each of 305 cells",
        ("onset", "calibrated"): "at most 5 % of runs exchangeable with their references; 2 of 40 real runs",
        ("groups_part", "sequential"): "2 of 800 random labellings of real runs",
        ("groups_merge", "sequential"): "0 of 800 random labellings of real runs",
        ("group_answers", "sequential"): "1 of 800 random labellings of real runs",
    }
)
"""Kind and level -> false alarms. What follows an onset (peak, settled, late reorganisation) is told no more often."""


def rates_in_words(events: Iterable[Event]) -> list[str]:
    """One line for every kind and level of these events whose rate is known, in the order in which they come first."""
    kinds = dict.fromkeys((event.kind, event.level) for event in events if event.measured)
    return [
        f"{kind.replace('_', ' ')} ({level}): in {RATES[kind, level]}"
        for kind, level in kinds
        if (kind, level) in RATES
    ]
