"""Checking a whole configuration: the type of every setting, its choices and its range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from topo_callback.errors import ConfigurationError
from topo_callback.setting_kinds import Kind, suggestion

_SINGULAR = {"measures": "measure", "token_measures": "token measure", "studies": "study", "actions": "action"}
_MOST = 2**31 - 1  # of anything that is counted
_MOST_BYTES = 2**62
_LONGEST = 1e8  # seconds, about three years; the system's own limits are not much farther away
_RANGES: dict[str, tuple[float, float]] = {
    "prompts": (2, _MOST),
    "max_tokens": (1, _MOST),
    "probe_batch": (1, _MOST),
    "device_bytes": (1 << 25, _MOST_BYTES),
    "neighbours": (1, _MOST),
    "max_dimension": (1, 2),
    "landmarks": (4, _MOST),
    "subsamples": (0, _MOST),
    "subsample_size": (3, _MOST),
    "zigzag_dimension": (1, 3),
    "time_window": (2, _MOST),
    "token_cloud": (0, _MOST),
    "next_token_prompts": (0, _MOST),
    "samples": (1, _MOST),
    "max_overhead": (0.0, 1.0),
    "threads": (1, _MOST),
    "alert_cooldown_seconds": (0.0, _LONGEST),
    "deadline_seconds": (1.0, _LONGEST),
    "worker_bytes": (1 << 30, _MOST_BYTES),
    "spool_bytes": (1 << 20, _MOST_BYTES),
    "drain_seconds": (0.0, _LONGEST),
    "pictures": (0, _MOST),
    "picture_layers": (1, _MOST),
    "seed": (0, 2**63 - 1),
}


def checked_settings(given: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The settings as a configuration keeps them: plain types, sequences as tuples, 'all' as the names that there are.

    Args:
        given: every setting, as Python has it; text is not read here, so "no" is no truth value.
        kinds: what each may be.

    Raises:
        ConfigurationError: a value of another type, an unknown name, or out of range; the message names the setting,
            what was given and what is accepted.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        kind = kinds[name]
        if kind.element is str and isinstance(value, str) and value == "all" and name != "actions":
            value = kind.every
        try:
            found[name] = kind.check(value)
        except (ValueError, TypeError, OverflowError):
            raise ConfigurationError(f"{name}={_given(value)}; accepted: {_accepted(name, kind)}") from None
        _check_words(name, found[name], kind)
        _check_range(name, found[name], kind)
    return found


def _given(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


def _accepted(name: str, kind: Kind) -> str:
    """In words, what a value of Python may be."""
    none = ", or None" if kind.optional else ""
    if name == "layers":
        return "'all', a count of at least 1, or a list of layer numbers of at least 0"
    if name == "steps":
        return f"a non-empty list of steps of at least 0{none}"
    if kind.element is not None:
        return f"{'' if name == 'actions' else repr('all') + ', or '}a list of {', '.join(kind.words)}"
    if kind.plain == (bool,):
        return "True or False"
    if kind.plain == (str,):
        return f"{', '.join(kind.words)}" if kind.words else f"a text{none}"
    low, high = _RANGES[name]
    upper = f" and at most {high:.12g}" if math.isfinite(high) else ""
    return f"{'' if float in kind.plain else 'whole '}numbers of at least {low:.12g}{upper}{none}"


def _check_words(name: str, value: Any, kind: Kind) -> None:
    """The names that a setting has are known ones."""
    if not kind.words or value is None:
        return
    if kind.element is not None and not isinstance(value, tuple):
        raise ConfigurationError(f"{name}={_given(value)}; accepted: {_accepted(name, kind)}")
    for each in value if isinstance(value, tuple) else (value,):
        if each not in kind.words:
            what = _SINGULAR.get(name, name)
            raise ConfigurationError(
                f"unknown {what} {each!r}; accepted: {', '.join(kind.words)}{suggestion(str(each), kind.words)}"
            )


def _check_range(name: str, value: Any, kind: Kind) -> None:
    if name == "layers":
        counted = type(value) is int and 1 <= value <= _MOST
        listed = isinstance(value, tuple) and len(value) > 0 and min(value) >= 0 and max(value) <= _MOST
        accepted = counted or listed or value == "all"
    elif name == "steps":
        listed = isinstance(value, tuple) and len(value) > 0 and min(value) >= 0 and max(value) <= _MOST
        accepted = value is None or listed
    elif name in _RANGES and value is not None:
        accepted = _RANGES[name][0] <= value <= _RANGES[name][1]
    else:
        accepted = True
    if not accepted:
        raise ConfigurationError(f"{name}={_given(value)}; accepted: {_accepted(name, kind)}")
