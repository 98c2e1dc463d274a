"""The one parser of settings: TopologyConfig from text, the environment, YAML and JSON files."""

from __future__ import annotations

import dataclasses
import json
import os
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig, kind_of
from topo_callback.errors import ConfigurationError
from topo_callback.presets import PRESETS
from topo_callback.setting_kinds import read_truth, suggestion
from topo_callback.terminal import DEBUG, say

PREFIX = "topo_"
_SWITCH = "TOPO_DISABLED"
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # lists in YAML may hold each other many times over
_FIELDS = {field.name: field for field in dataclasses.fields(TopologyConfig)}


def setting_names() -> tuple[str, ...]:
    """The fields of TopologyConfig, in its order."""
    return tuple(_FIELDS)


def setting_help(name: str) -> str:
    """The help text of a field with its default, in one line."""
    return f"{_FIELDS[name].metadata['help']} (default: {kind_of(name).text(_FIELDS[name].default)})"


def read_setting(name: str, value: Any, *, where: str | None = None) -> Any:
    """One value for a field of TopologyConfig.

    Text is read by the type of the field, words in any case: `8`, `0.05`, `true` or `no`, `none`, `all`, and with
    commas for several values, as in `1,3,5` or `[1, 3, 5]` (`3,` is layer 3 alone, `3` are three layers). What is no
    text, as from YAML, must have the type already; a `false` there is also the word `off`, where that has a meaning.

    Args:
        name: a field of TopologyConfig.
        value: text or a plain value.
        where: how the setting was named by who gave it, for the error.

    Raises:
        ConfigurationError: no such field, or a value of another type. Ranges and choices are left to TopologyConfig.
    """
    said = where or name
    if name not in _FIELDS:
        raise ConfigurationError(f"unknown setting {said}; accepted: {', '.join(_FIELDS)}{suggestion(name, _FIELDS)}")
    kind = kind_of(name)
    try:
        return kind.parse(value) if isinstance(value, str) else kind.read(value)
    except (ValueError, TypeError, RecursionError):
        given = repr(value) if isinstance(value, str) else _SHORT.repr(value)
        raise ConfigurationError(f"{said}={given}; accepted: {kind.accepted}") from None


def is_disabled(environment: Mapping[str, str] | None = None) -> bool:
    """Whether TOPO_DISABLED is set to a true value; an empty one counts as not set.

    Args:
        environment: None: that of the process.

    Raises:
        ConfigurationError: it is no truth value.
    """
    text = (os.environ if environment is None else environment).get(_SWITCH, "")
    try:
        return bool(text.strip()) and read_truth(text)
    except ValueError:
        raise ConfigurationError(f"{_SWITCH}={text!r}; accepted: true or false, yes or no, on or off, 1 or 0") from None


def gather_settings(
    options: Mapping[str, str],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    preset: str | None = None,
    unused: Collection[str] = (),
) -> TopologyConfig:
    """The configuration from several places: an option counts more than the environment, that more than the file, and
    that more than the preset.

    Args:
        options: field -> text, as given on a command line.
        environment: variables, of which TOPO_<FIELD> are read; None: those of the process. A TOPO_ variable that is no
            setting is named on the terminal and left alone; an empty one counts as not set.
        file: YAML or JSON, a mapping of fields, with or without the prefix topo_.
        preset: "economy", "standard" or "full".
        unused: fields that the caller has no use for. In the environment and in the file they are checked like all
            others, named on the terminal and left as they are by default.

    Raises:
        ConfigurationError: a file that cannot be read, an unknown field or preset, an option without use, or a value
            that is not accepted.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigurationError(f"unknown preset {preset!r}; accepted: {', '.join(PRESETS)}")
    values = {} if file is None else read_file(file)
    for variable, text in sorted((os.environ if environment is None else environment).items()):
        name = variable.removeprefix("TOPO_").lower()
        if not variable.startswith("TOPO_") or variable in (_SWITCH, DEBUG) or not text:
            continue
        if name in _FIELDS:
            values[name] = read_setting(name, text, where=variable)
        else:
            near = suggestion(name, _FIELDS)
            say(f"the environment variable {variable} is not a setting of topo_callback and is left alone{near}")
    for name, text in options.items():
        where = f"--topo-{name.replace('_', '-')}"
        if name in unused:
            raise ConfigurationError(f"{where} is a setting of training runs and has no effect here; leave it out")
        values[name] = read_setting(name, text, where=where)
    base = PRESETS[preset] if preset else {}
    config = TopologyConfig(**{**base, **values})
    idle = [name for name in _FIELDS if name in values and name in unused]
    if not idle:
        return config
    say(f"without effect here, being settings of training runs: {', '.join(idle)}")
    return TopologyConfig(**{**base, **{name: value for name, value in values.items() if name not in idle}})


def read_file(file: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file: a mapping of fields, with or without the prefix topo_.

    Raises:
        ConfigurationError: it cannot be read, holds something else, an unknown field, one field twice, or a value of
            another type.
    """
    import yaml

    format_name = "JSON" if file.suffix == ".json" else "YAML"
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if format_name == "JSON" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"settings {file} cannot be read as {format_name}: {said}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigurationError(f"settings {file} holds a {type(content).__name__}; accepted: a mapping of settings")
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).removeprefix(PREFIX)
        if name in values:
            raise ConfigurationError(f"settings {file} has {name} twice, with and without {PREFIX}; give it once")
        values[name] = read_setting(name, value, where=f"{key} in {file}")
    return values
