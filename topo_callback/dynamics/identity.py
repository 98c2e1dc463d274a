"""What a run must share with its references: model, probe, schedule, training and reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topo_callback.reading_conditions import shared_conditions, shared_names
from topo_callback.setting_changes import shared_settings, unlike_settings

SHARED = ("model", "probe", "schedule", "training", "reading")
_MODEL = ("name", "class", "depth", "width")
_SCHEDULE = ("max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")
_TRAINING = ("batch_size", "optimizer", "trained_parameters", "data")
_READING = ("pooling", *shared_settings())
_NEEDED = ("max_steps", "learning_rate", "lr_scheduler_type")  # recorded by every version: unknown means another kind
_UNKNOWN = "unknown"


def identity_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says that runs must share to be references of one another, and their configuration's hash.

    What it does not say is left out: References tell what is unknown from what differs.
    """
    model, training, config, reading, probe = (
        part_of(run, name) for name in ("model", "training", "config", "reading", "probe")
    )
    return {
        "model": {**_named(_MODEL, model), **shared_conditions(run, "model")},
        "probe": probe.get("hash"),
        "schedule": _named(_SCHEDULE, training),
        "training": {**_named(_TRAINING, training), **shared_conditions(run, "training")},
        "reading": {
            **_named(_READING, config),
            **_named(_READING, reading),
            **shared_conditions(run, "reading"),
        },
        "config_hash": run.get("config_hash"),
    }


def _named(names: Sequence[str], part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in names if name in part}


def part_of(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of run.json; empty where it is missing, or where somebody wrote something else."""
    part = run.get(name)
    return part if isinstance(part, Mapping) else {}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two identities differ: part -> what each has of it, without what both share.

    What one of them does not say is no difference, but for what every version records.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for part in SHARED:
        one, other = first.get(part), second.get(part)
        if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
            if one != other:
                found[part] = (one, other)
            continue
        one, other = _said(one), _said(other)
        unlike = [name for name in {**one, **other} if not _agree(part, name, one, other)]
        if unlike:
            there, here = ({name: each.get(name, _UNKNOWN) for name in unlike} for each in (one, other))
            found[part] = (there, here)
    return found


def unsaid(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """What one of two identities does not say, or both."""
    expected = {
        "model": _MODEL,
        "schedule": _NEEDED,
        "training": (*_TRAINING, *shared_names("training")),
        "reading": (*_READING, *shared_names("reading")),
    }
    found: list[str] = []
    for part, names in expected.items():
        one, other = (_said(each.get(part) or {}) for each in (first, second))
        found += [name for name in names if name not in one or name not in other]
    return tuple(found)


def _said(part: Mapping[str, Any]) -> dict[str, Any]:
    """Without what older versions wrote as None for want of it; a time window may be None."""
    return {name: value for name, value in part.items() if value is not None or name in ("time_window", "blocks")}


def _agree(part: str, name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if name not in one or name not in other:
        return name not in _NEEDED
    if part == "reading" and name in shared_settings():
        return name not in unlike_settings({**other, **one}, {**one, **other})
    return bool(one[name] == other[name])
