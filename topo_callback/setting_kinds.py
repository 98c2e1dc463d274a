"""What a setting may be: plain types, a sequence of one type, None; how it is read, from text too, and checked."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any

from topo_callback.errors import ConfigurationError

TRUE, FALSE, NONE = ("true", "yes", "on", "1", "t", "y"), ("false", "no", "off", "0", "f", "n"), ("none", "null", "off")
_NUMPY_SCALARS = ("bool", "bool_", "int", "uint", "float")
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
    "general_text": (0, _MOST),
    "map_dimensions": (0, 64),
    "drift_words": (0, 1000),
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


def read_truth(text: str) -> bool:
    """True for true, yes, on, 1, t, y and False for false, no, off, 0, f, n, in any case. Raises ValueError."""
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise ValueError(text)
    return word in TRUE


def suggestion(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'seed'?`, or nothing where no known name is near."""
    near = get_close_matches(given.lower(), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near and near[0] != given else ""


def plain_value(value: Any) -> Any:
    """A NumPy scalar as Python's own bool, int or float, and a text of a subclass of str as str; all else as it is."""
    if type(value).__module__ == "numpy" and type(value).__name__.rstrip("0123456789") in _NUMPY_SCALARS:
        return value.item()
    if isinstance(value, str) and type(value) is not str:
        return str.__str__(value)
    return value


@dataclass(frozen=True)
class Kind:
    """What one setting may be.

    Attributes:
        plain: of bool, int, float and str, those that a single value may be.
        element: the type in a sequence of values; None where there is no such form.
        optional: whether it may be None.
        words: texts with a meaning of their own, or the names that there are; texts are matched with them in any case.
        empty: whether a sequence may have no value.
        every: what 'all' stands for in a sequence of names.
    """

    plain: tuple[type, ...]
    element: type | None
    optional: bool
    words: tuple[str, ...] = ()
    empty: bool = False
    every: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, hint: Any, words: Sequence[str] = (), *, empty: bool = False, every: Sequence[str] | None = None
    ) -> Kind:
        """The kind of a field from its annotation, such as `int | str | Sequence[int]`; every: all words by default."""
        members = typing.get_args(hint) if typing.get_origin(hint) is not Sequence else ()
        members = members or (hint,)
        elements = [typing.get_args(member)[0] for member in members if typing.get_origin(member) is Sequence]
        plain = tuple(member for member in (bool, int, float, str) if member in members)
        named = tuple(words if every is None else every)
        return cls(plain, elements[0] if elements else None, NoneType in members, tuple(words), empty, named)

    @property
    def accepted(self) -> str:
        """In words, what a text may be."""
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        said = [names[each] for each in self.plain if each is not str or self.element is None]
        if self.element is not None:
            said += ["'all'"] * (str in self.plain)
            said += ["whole numbers with commas between them" if self.element is int else "names with commas between"]
        return ", ".join(said + ["none"] * self.optional)

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Raises ValueError."""
        text = text.strip()
        word = text.lower()
        if word in NONE and word not in self.words and (self.optional or self.empty):
            return None if self.optional else ()
        if self.element is not None:
            return self._parse_sequence(text)
        if self.plain == (bool,):
            return read_truth(text)
        return self._word(text) if self.plain == (str,) else self.plain[0](text)

    def _parse_sequence(self, text: str) -> Any:
        assert self.element is not None
        if str in self.plain and text.lower() == "all":
            return "all"
        if text.startswith("["):
            listed = json.loads(text)  # its error is a ValueError
            return self.check(listed)
        if int in self.plain and "," not in text:
            return int(text)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts and not self.empty:
            raise ValueError(text)
        return tuple(int(part) if self.element is int else self._word(part) for part in parts)

    def _word(self, text: str) -> str:
        """A word in the case in which it is known; a text that is no such word as it is."""
        return text.lower() if text.lower() in self.words else text

    def read(self, value: Any) -> Any:
        """The value of a file that is no text; YAML has made truth values of `off` and `no`. Raises ValueError."""
        if value is False and self.plain != (bool,):
            return self.parse("off") if "off" in self.words or self.optional or self.empty else self.check(value)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """A value of Python, of plain types, as TopologyConfig keeps it. Raises ValueError."""
        value = plain_value(value)
        if value is None:
            if self.optional:
                return None
            raise ValueError(value)
        if type(value) is int and float in self.plain:
            try:
                value = float(value)
            except OverflowError:
                raise ValueError(value) from None
        if type(value) in self.plain and self._is_sound(value):
            return value
        if self.element is not None and not isinstance(value, (str, bytes, Mapping)) and isinstance(value, Iterable):
            found = [plain_value(each) for each in value]
            if all(type(each) is self.element for each in found):
                # a set has another order in every process; and each once: given twice, a name asks for nothing more
                return tuple(dict.fromkeys(sorted(found) if isinstance(value, (set, frozenset)) else found))
        raise ValueError(value)

    def _is_sound(self, value: Any) -> bool:
        if type(value) is float:
            return math.isfinite(value)
        return type(value) is not str or self.element is not None or (bool(value.strip()) and "\0" not in value)

    def text(self, value: Any) -> str:
        """The inverse of `parse`."""
        if value is None or value == ():
            return "none"
        if isinstance(value, tuple):
            # one layer number alone would read as a count of layers
            return ",".join(map(str, value)) + "," * (len(value) == 1 and int in self.plain)
        return str(value)


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
        if (
            kind.element is str
            and isinstance(value, str)
            and value == "all"
            and name not in ("actions", "directions", "rules")
        ):
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
    if name == "directions":
        return "a list of files, or a mapping of names to files"
    if name == "rules":
        return "a list of rules, each a line, and of files with rules"
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
