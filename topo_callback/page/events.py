"""The events of a run as HTML, where its snapshots hold any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from topo_callback.page.origin import value_in_words
from topo_callback.page.wording import plain, table
from topo_callback.trajectory import Trajectory

_WORDS = ("text", "explanation", "message", "description")
_KINDS = ("kind", "event", "name", "type")
_APART = ("step", "level", *_WORDS, *_KINDS)


def events(trajectory: Trajectory) -> str:
    """A table of step, event, level and explanation; empty without events.

    An event is a mapping or a dataclass. The explanation is its text, else all it holds.
    """
    rows = [
        _row(step, _fields(event))
        for step in trajectory.steps
        for event in getattr(trajectory.snapshot(step), "events", ())
    ]
    unique = list(dict.fromkeys(rows))
    return table(("step", "event", "level", "explanation"), unique) if unique else ""


def _fields(event: Any) -> Mapping[str, Any]:
    if isinstance(event, Mapping):
        return event
    if is_dataclass(event) and not isinstance(event, type):
        return asdict(event)
    return {"text": str(event)}


def _row(step: int, fields: Mapping[str, Any]) -> tuple[str, str, str, str]:
    kind = next((plain(fields[name], 60) for name in _KINDS if name in fields), "event")
    words = next((plain(fields[name], 500) for name in _WORDS if fields.get(name)), "")
    if not words:
        words = ", ".join(f"{plain(k, 40)} {value_in_words(v)}" for k, v in fields.items() if k not in _APART)
    return (plain(fields.get("step", step), 20), kind, plain(fields.get("level", ""), 40), words)
