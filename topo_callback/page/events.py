"""The events of a run as HTML: what the callback would have said while it went on."""

from __future__ import annotations

from topo_callback.dynamics import Event, Series, find_events
from topo_callback.dynamics.reorganisation import UNMEASURED
from topo_callback.page.wording import plain, table
from topo_callback.records.trajectory import Trajectory


def events(trajectory: Trajectory) -> str:
    """A table of the steps at which events were known, their kind, level and explanation; empty without events."""
    found = find_events(Series.of(trajectory)).events
    rows = [
        (str(event.known_at), plain(event.kind.replace("_", " "), 40), _level(event), plain(event.explanation, 500))
        for event in found
    ]
    return table(("step", "event", "level", "explanation"), rows) if rows else ""


def _level(event: Event) -> str:
    return event.level if event.measured else f"{event.level}; {UNMEASURED}"
