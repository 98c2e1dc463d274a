"""TopologyConfig from text: one reading of values for command lines, the environment, YAML and argument parsers."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.terminal import say

PREFIX = "topo_"
_NOT_SETTINGS = frozenset({"TOPO_DISABLED"})
_TRUE, _FALSE, _NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null")


@dataclass(frozen=True)
class _Kind:
    """What a setting may be: plain types, a sequence of one type, None."""

    plain: tuple[type, ...]
    element: type | None
    optional: bool

    @classmethod
    def of(cls, hint: Any) -> _Kind:
        members = typing.get_args(hint) if typing.get_origin(hint) is not Sequence else ()
        members = members or (hint,)
        elements = [typing.get_args(member)[0] for member in members if typing.get_origin(member) is Sequence]
        plain = tuple(member for member in (bool, int, float, str) if member in members)
        return cls(plain, elements[0] if elements else None, NoneType in members)

    @property
    def accepted(self) -> str:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        said = [names[each] for each in self.plain if each is not str or self.element is None]
        if self.element is not None:
            said += ["'all'"] * (str in self.plain)
            said += ["whole numbers with commas between them" if self.element is int else "names with commas between"]
        return ", ".join(said + ["none"] * self.optional)

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Raises ValueError."""
        text = text.strip()
        if text.lower() in _NONE and (self.optional or self.element is not None):
            return None if self.optional else ()
        if self.element is not None:
            return self._parse_sequence(text)
        if self.plain == (bool,):
            if text.lower() not in _TRUE + _FALSE:
                raise ValueError(text)
            return text.lower() in _TRUE
        return self.plain[0](text)

    def _parse_sequence(self, text: str) -> Any:
        assert self.element is not None
        if str in self.plain and text == "all":
            return text
        if int in self.plain and "," not in text:
            return int(text)
        return tuple(self.element(part.strip()) for part in text.split(",") if part.strip())

    def check(self, value: Any) -> Any:
        """A value that is no text, as TopologyConfig wants it. Raises ValueError."""
        if isinstance(value, (list, tuple)) and self.element is not None:
            if any(type(each) is not self.element for each in value):
                raise ValueError(value)
            return tuple(value)
        if type(value) is int and float in self.plain:
            return float(value)
        if type(value) in self.plain or (value is None and self.optional):
            return value
        raise ValueError(value)

    def text(self, value: Any) -> str:
        """The inverse of `parse`."""
        if value is None or value == ():
            return "none"
        if isinstance(value, tuple):
            # one layer number alone would read as a count of layers
            return ",".join(map(str, value)) + "," * (len(value) == 1 and int in self.plain)
        return str(value)


_HINTS = typing.get_type_hints(TopologyConfig)
_FIELDS = {field.name: field for field in dataclasses.fields(TopologyConfig)}
_KINDS = {name: _Kind.of(_HINTS[name]) for name in _FIELDS}


def setting_names() -> tuple[str, ...]:
    """The fields of TopologyConfig, in its order."""
    return tuple(_FIELDS)


def setting_help(name: str) -> str:
    """The help text of a field with its default, in one line."""
    return f"{_FIELDS[name].metadata['help']} (default: {_KINDS[name].text(_FIELDS[name].default)})"


def read_setting(name: str, value: Any, *, where: str | None = None) -> Any:
    """One value for a field of TopologyConfig.

    Text is read by the type of the field: `8`, `0.05`, `true`, `none`, `all`, and with commas for several values, as in
    `1,3,5` (`3,` is layer 3 alone, `3` are three layers). What is no text, as from YAML, must have the type already.

    Args:
        name: a field of TopologyConfig.
        value: text or a plain value.
        where: how the setting was named by who gave it, for the error.

    Raises:
        ConfigurationError: no such field, or a value of another type. Ranges and choices are left to TopologyConfig.
    """
    said = where or name
    if name not in _KINDS:
        raise ConfigurationError(f"unknown setting {said}; accepted: {', '.join(_KINDS)}")
    kind = _KINDS[name]
    try:
        return kind.parse(value) if isinstance(value, str) else kind.check(value)
    except ValueError:
        raise ConfigurationError(f"{said}={value!r}; accepted: {kind.accepted}") from None


def gather_settings(
    options: Mapping[str, str], *, environment: Mapping[str, str] | None = None, file: Path | None = None
) -> TopologyConfig:
    """The configuration from several places; an option counts more than the environment, and that more than the file.

    Args:
        options: field -> text, as given on a command line.
        environment: variables, of which TOPO_<FIELD> are read; None: those of the process. A TOPO_ variable that is no
            setting is named on the terminal and left alone; an empty one counts as not set.
        file: YAML, a mapping of fields, with or without the prefix topo_.

    Raises:
        ConfigurationError: a file that cannot be read, an unknown field, or a value that is not accepted.
    """
    values = {} if file is None else _read_yaml(file)
    for variable, text in sorted((os.environ if environment is None else environment).items()):
        name = variable.removeprefix("TOPO_").lower()
        if not variable.startswith("TOPO_") or variable in _NOT_SETTINGS or not text:
            continue
        if name in _KINDS:
            values[name] = read_setting(name, text, where=variable)
        else:
            say(f"the environment variable {variable} is no setting of topo_callback and is left alone")
    for name, text in options.items():
        values[name] = read_setting(name, text, where=f"--topo-{name.replace('_', '-')}")
    return TopologyConfig(**values)


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read as YAML: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} holds a {type(content).__name__}; accepted: a mapping of settings")
    names = {str(key): str(key).removeprefix(PREFIX) for key in content}
    return {name: read_setting(name, content[key], where=f"{key} in {file}") for key, name in names.items()}


def _argument(name: str) -> tuple[str, Any, Any]:
    """The dataclass field for a setting: of a plain type where one says it all, text otherwise."""
    field, kind = _FIELDS[name], _KINDS[name]
    hint: Any = kind.plain[0] if kind.plain and kind.element is None else str
    default = field.default
    if default is None:
        hint = hint | None
    elif kind.optional or kind.element is not None:
        hint, default = str, kind.text(default)
    return PREFIX + name, hint, dataclasses.field(default=default, metadata={"help": field.metadata["help"]})


class _AsConfig:
    """Every field of TopologyConfig with the prefix `topo_`: a dataclass for HfArgumentParser and TRL's TrlParser.

    The fields are made from those of TopologyConfig, so there are always as many. Annotations say what is read from a
    command line: a setting of several types, such as `topo_layers`, is text in the form that `read_setting` takes.
    Lists, numbers and null, as from a YAML file, are taken as well.

        parser = TrlParser((ScriptArguments, SFTConfig, TopologyArguments))
        script_args, training_args, topology_args = parser.parse_args_and_config()
        trainer = SFTTrainer(..., callbacks=[TopologyCallback(config=topology_args.to_config())])
    """

    _argument_group_name = "topology"

    def to_config(self) -> TopologyConfig:
        """The configuration.

        Raises:
            ConfigurationError: a value that is not accepted.
        """
        return TopologyConfig(
            **{name: read_setting(name, getattr(self, PREFIX + name), where=PREFIX + name) for name in _FIELDS}
        )


TopologyArguments: Any = dataclasses.make_dataclass(
    "TopologyArguments",
    [_argument(name) for name in _FIELDS],
    bases=(_AsConfig,),
    namespace={"__doc__": _AsConfig.__doc__, "__module__": __name__},
)
