"""How often runs in which nothing happened are told an event, in words, to stand beside it.

From benchmarks/RESULTS_events.md, RESULTS_samples.md, RESULTS_groups.md and RESULTS_alerts.md, whose conditions they
rest on; a test holds that docs/events.md says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from topo_callback.dynamics.reorganisation import Event

RATES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("change", "sequential"): (
            "0 of 107 quiet real runs, 1 of 36 small SFT, DPO and GRPO runs; simulated, at most 5 % in 172 of 176 cells"
        ),
        ("change", "calibrated"): "at most 5 % of runs exchangeable with their references; 3 of 110 real runs",
        ("divergence", "sequential"): "0 of 147 quiet real runs, 11 of 17,600 simulated ones",
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
    return [f"{kind} ({level}): told to {RATES[kind, level]}" for kind, level in kinds if (kind, level) in RATES]
