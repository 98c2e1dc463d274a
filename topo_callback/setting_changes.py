"""Two runs and their settings: what a resumed run or a second scan must keep, what runs must share to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topo_callback.config import TopologyConfig, effect_of

_DEFAULTS = TopologyConfig().to_dict()
Run = Mapping[str, Any]  # content of run.json


def deciding_settings() -> tuple[str, ...]:
    """The settings that alter which clouds are read or which numbers are computed from them."""
    return tuple(name for name in _DEFAULTS if effect_of(name).alters in ("cloud", "measure"))


def watching_settings() -> tuple[str, ...]:
    """The settings that only a training run has which is being watched; a scan has no use for them."""
    return tuple(name for name in _DEFAULTS if effect_of(name).watching)


def shared_settings() -> tuple[str, ...]:
    """The deciding settings that runs to be compared share by value; of others their outcomes are compared."""
    return tuple(name for name in deciding_settings() if not effect_of(name).outcome)


def changed_settings(before: Run, now: Run) -> dict[str, tuple[Any, Any]]:
    """The settings that make other numbers of a run that is gone on with: name -> both values.

    A trajectory is one series: every sample is compared with earlier ones, so the same clouds are read and the same
    numbers computed from them throughout. A setting whose recorded outcome is the same, or that alters nothing beside
    the others, has not changed.

    Args:
        before: content of run.json as it is there.
        now: what it would be. A setting that one of them does not have, being older, has its default.
    """
    old, new = values_of(before), values_of(now)
    found = {}
    for name in deciding_settings():
        effect = effect_of(name)
        if _alike(name, old[name], new[name]) or (effect.idle is not None and effect.idle(old) and effect.idle(new)):
            continue
        outcomes = _at(before, effect.outcome), _at(now, effect.outcome)
        if outcomes[0] is None or outcomes[0] != outcomes[1]:
            found[name] = (old[name], new[name])
    return found


def unlike_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that give the numbers of two runs different meanings: name -> both values.

    Left out are settings that only say which numbers there are, and those with recorded outcomes, which are for the
    caller to compare.

    Args:
        first, second: configurations as plain values, such as `config` of run.json. A setting that one of them does not
            have, being older, has its default.
    """
    one, other = ({**_DEFAULTS, **values} for values in (first, second))
    found = {}
    for name in shared_settings():
        effect = effect_of(name)
        idle = effect.idle is not None and (effect.idle(one) or effect.idle(other))
        comparable = effect.comparable is not None and effect.comparable(one, other)
        if not (_alike(name, one[name], other[name]) or idle or comparable):
            found[name] = (one[name], other[name])
    return found


def with_harmless(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a record that is gone on with: what makes its numbers as before, all else as it is now."""
    deciding = deciding_settings()
    return {**now, **{name: value for name, value in before.items() if name in deciding}}


def values_of(run: Run) -> dict[str, Any]:
    """Every setting of a run, plain."""
    config = run.get("config")
    return {**_DEFAULTS, **(config if isinstance(config, Mapping) else {})}


def _alike(name: str, first: Any, second: Any) -> bool:
    """The same value, or one of the same effect."""
    same = effect_of(name).same
    one, other = (tuple(each) if isinstance(each, list) else each for each in (first, second))
    return bool(one == other) or (same is not None and same(first, second))


def _at(run: Run, path: str) -> Any:
    """What run.json has at a dotted path; None where that is not there."""
    found: Any = run if path else None
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
