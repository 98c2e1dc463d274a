"""Settings of a scan: TopologyConfig fields from a YAML or JSON file and from name=value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.presets import PRESETS
from topo_callback.scan.scanning import OF_TRAINING

_LISTS = ("layers", "measures", "token_measures")


def read_settings(file: Path | None, assignments: Sequence[str], preset: str | None = None) -> TopologyConfig:
    """The configuration of a preset, changed by a file, changed by assignments.

    Args:
        file: a mapping of TopologyConfig fields, in JSON (.json) or YAML.
        assignments: `name=value`; the value is JSON (8, true, null, [1, 2]) or a plain word; lists also as 1,2.
        preset: "economy", "standard" or "full".

    Raises:
        ConfigurationError: an unreadable file, an unknown name, or a value that is not accepted.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigurationError(f"unknown preset {preset!r}; accepted: {', '.join(PRESETS)}")
    values: dict[str, Any] = dict(PRESETS[preset]) if preset else {}
    given = _from_file(file) if file is not None else {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigurationError(f"--set {assignment!r}; accepted: name=value, such as --set layers=all")
        given[name.strip()] = _value(name.strip(), text.strip())
    known = [field.name for field in dataclasses.fields(TopologyConfig) if field.name not in OF_TRAINING]
    for name in given:
        if name in OF_TRAINING:
            raise ConfigurationError(f"{name} is a setting of training runs; a scan reads every checkpoint it is given")
        if name not in known:
            raise ConfigurationError(f"unknown setting {name!r}; accepted: {', '.join(known)}")
    try:
        return TopologyConfig.from_dict({**values, **given})
    except TypeError as error:
        raise ConfigurationError(f"a setting has a value of the wrong kind ({error})") from error


def _from_file(file: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped,unused-ignore]

    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"settings {file} cannot be read ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(f"settings {file}: a mapping of names to values is needed, such as `layers: all`")
    return found


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    if text in ("None", "none"):
        return None
    if name in _LISTS and "," in text:
        return [_value("", part.strip()) for part in text.split(",")]
    if name in ("measures", "token_measures") and text != "all":
        return [text]
    return text
