"""How a run was made: configuration, probe, versions, engines, and what its journal says was lost or decided."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from topo_callback.groups import Groups
from topo_callback.page.markup import items, part, plain, safe, table
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted

_NOTES_SHOWN = 40


def origin(trajectories: Sequence[Trajectory], names: Sequence[str]) -> str:
    """Tables as HTML: what all runs have in common, where they differ, and their journals.

    A part that is not recorded is left out.
    """
    by_run = [_settings(trajectory) for trajectory in trajectories]
    keys = list(dict.fromkeys(key for settings in by_run for key in settings))
    common = [key for key in keys if all(settings.get(key) == by_run[0].get(key) for settings in by_run)]
    parts = []
    for title in dict.fromkeys(title for title, _ in common):
        rows = [(name, by_run[0][title, name]) for of, name in common if of == title]
        parts.append(f'<div class="pairs"><h4>{safe(title)}</h4>{table(("setting", "value"), rows)}</div>')
    differing = [key for key in keys if key not in common]
    if differing:
        heading = ("run", *(f"{title.lower()}: {name}" for title, name in differing))
        apart = [
            (name, *(settings.get(key, "\N{EN DASH}") for key in differing))
            for name, settings in zip(names, by_run, strict=True)
        ]
        parts.insert(0, f'<div class="differing"><h4>Where the runs differ</h4>{table(heading, apart)}</div>')
    journals = [_journal(trajectory) for trajectory in trajectories]
    for journal in dict.fromkeys(filter(None, journals)):
        of = [name for name, own in zip(names, journals, strict=True) if own == journal]
        title = "Journal" if len(of) == len(names) else f"Journal of {', '.join(of)}"
        parts.append(f'<div class="pairs"><h4>{safe(title, 400)}</h4>{journal}</div>')
    return "".join(parts)


def _settings(trajectory: Trajectory) -> dict[tuple[str, str], str]:
    """(Part, name) -> value, as the page shows it."""
    run = trajectory.run
    newest = trajectory.overview(trajectory.steps[-1]).provenance
    parts = {
        "Model": part(run, "model"),
        "Training": part(run, "training"),
        "Probe": {**part(run, "probe"), **_groups(run)},
        "Reading": part(run, "reading"),
        "Versions": {**part(run, "versions"), **part(newest, "versions")},
        "Configuration": part(run, "config"),
    }
    return {
        (title, str(name)): value_in_words(value)
        for title, content in parts.items()
        for name, value in sorted(content.items(), key=lambda pair: str(pair[0]))
    }


def _groups(run: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the probe's groups and how many prompts each has, in place of a number for each prompt."""
    groups = Groups.of_run(run)
    return {"groups": [f"{name} ({len(groups.members(name))})" for name in groups.names]} if groups else {}


def value_in_words(value: Any) -> str:
    """A setting as text; a dash where it is empty."""
    if value is None or value in ("", []):
        return "\N{EN DASH}"
    if isinstance(value, str):
        return plain(value, 160)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return plain(", ".join(value), 600)
    return plain(json.dumps(value, default=str), 600)


def _journal(trajectory: Trajectory) -> str:
    """Events of the journal, without their times; equal ones once."""
    told: dict[str, int] = {}
    for entry in trajectory.journal:
        details = {key: value for key, value in entry.items() if key not in ("event", "time") and value not in ([], {})}
        words = plain(entry["event"], 60)
        if details:
            words += " (" + ", ".join(f"{plain(k, 40)} {value_in_words(v)}" for k, v in sorted(details.items())) + ")"
        told[words] = told.get(words, 0) + 1
    if not told:
        return ""
    lines = [text if times == 1 else f"{text}, {times} times" for text, times in told.items()]
    rest = len(lines) - _NOTES_SHOWN
    more = [f"and {counted(rest, 'more line')} in journal.jsonl"] if rest > 0 else []
    return items([*lines[:_NOTES_SHOWN], *more])


def damaged(trajectory: Trajectory) -> str:
    """The samples that could not be read, by name, with the reason."""
    if not trajectory.damaged:
        return ""
    found = ((name, reason.removeprefix(f"{name}: ")) for name, reason in sorted(trajectory.damaged.items()))
    lines = [f"{plain(name, 60)}: {plain(reason, 200)}" for name, reason in found]
    return f'<div class="warning" role="note"><strong>Damaged samples, left out</strong>{items(lines)}</div>'


def created(trajectory: Trajectory) -> str:
    """When the run began, as run.json says, else as the journal does; empty where neither does."""
    text = trajectory.run.get("created")
    if isinstance(text, str):
        return plain(text, 40).replace("T", " ")[:16]
    moments = [entry.get("time") for entry in trajectory.journal]
    known = [moment for moment in moments if isinstance(moment, (int, float))]
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(known[0])) + " UTC" if known else ""
