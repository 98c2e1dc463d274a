"""Groups: which prompts of a probe belong together, by names that the user gave: harmful and benign, languages, tasks.

A name is a label that may be shown anywhere; a value that is none is never quoted, since it may be a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Int64

from topo_callback.errors import ProbeError

COLUMN = "group"
"""The column of a row that names its group."""
MOST_GROUPS = 8
LEAST_GROUP = 4
"""Prompts; of smaller groups nothing is measured."""
_LONGEST_NAME = 40
_RESERVED = "[]|"  # they are in the names of numbers
NO_GROUP = -1


@dataclass(frozen=True)
class Groups:
    """The groups of a probe's prompts.

    Args:
        names: of the groups, each once, in the order in which they first come.
        of_prompts: per prompt the place of its group in `names`; -1 for a prompt without one.

    Raises:
        ProbeError: a name that is none, more than 8 groups, or places that do not fit.
    """

    names: tuple[str, ...] = ()
    of_prompts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)
        if len(self.names) > MOST_GROUPS:
            raise ProbeError(
                f"the column {COLUMN!r} of the probe's rows names {len(self.names)} groups; accepted: at most "
                f"{MOST_GROUPS}; join some, or rename the column if it is not a group"
            )
        held = set(self.of_prompts) - {NO_GROUP}
        if len(set(self.names)) != len(self.names) or held != set(range(len(self.names))):
            raise ProbeError("the groups do not fit their names; accepted: names that differ, each of some prompt")

    @classmethod
    def of_labels(cls, labels: Sequence[str | None]) -> Groups:
        """The groups of prompts by the name of each; None for a prompt without a group. No group: no names, no places.

        Raises:
            ProbeError: see `Groups`.
        """
        names = tuple(dict.fromkeys(label for label in labels if label is not None))
        if not names:
            return cls()
        place = {name: i for i, name in enumerate(names)}
        return cls(names, tuple(NO_GROUP if label is None else place[label] for label in labels))

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Groups:
        """Those that run.json says; none where it says nothing of groups.

        Raises:
            ProbeError: what it says are no groups.
        """
        said = run.get("probe", {}).get("groups")
        return cls() if said is None else cls(tuple(said["names"]), tuple(said["of_prompts"]))

    def to_run(self) -> dict[str, Any]:
        """Plain JSON values for run.json."""
        return {"names": list(self.names), "of_prompts": list(self.of_prompts)}

    def label(self, prompt: int) -> str | None:
        """The name of a prompt's group; None where it has none."""
        place = self.of_prompts[prompt] if self.of_prompts else NO_GROUP
        return None if place == NO_GROUP else self.names[place]

    def members(self, name: str) -> Int64[np.ndarray, " members"]:
        """The places of a group's prompts in the probe, ascending."""
        return np.flatnonzero(np.array(self.of_prompts) == self.names.index(name))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every pair of names once, in the order of the names."""
        return tuple(combinations(self.names, 2))

    def __bool__(self) -> bool:
        return bool(self.names)


def label_of(row: Any, name: str) -> str | None:
    """The group that a row names; None where it names none.

    Args:
        row: a text, which has none, or a mapping, whose column `group` holds a name or a whole number; without one it
            is missing, None, NaN or blank.
        name: what errors call the row.

    Raises:
        ProbeError: the column holds something else.
    """
    value = row.get(COLUMN) if isinstance(row, Mapping) else None
    if isinstance(value, str) and not value.strip():
        return None
    if value is None or (isinstance(value, Real) and math.isnan(value)):  # tables write what is missing as NaN
        return None
    return name_of(value, f"{name}: column {COLUMN!r} holds", f"{name}: ")


def name_of(value: Any, holds: str, where: str = "") -> str:
    """The name of a group as it was given: a text, or a whole number of Python or NumPy.

    Raises:
        ProbeError: it is neither, and the message starts with `holds`, or it cannot be a name, and it starts with
            `where`.
    """
    if isinstance(value, bool) or not isinstance(value, (str, Integral)):
        raise ProbeError(f"{holds} a {type(value).__name__}; accepted: a name, or a whole number")
    name = value.strip() if isinstance(value, str) else str(int(value))
    check_name(name, where)
    return name


def pair_key(first: str, second: str) -> str:
    """How a pair of groups is written in the name of a number: `separation[first|second]`."""
    return f"{first}|{second}"


def is_of_groups(number: str) -> bool:
    """Whether a number or test, by its name, is of groups."""
    return "[" in number


def check_name(name: Any, where: str = "") -> None:
    """Refuse what is no name of a group.

    Raises:
        ProbeError: the message starts with `where`, and does not quote the name.
    """
    fits = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable() and name.strip() == name
    if not fits or any(each in name for each in _RESERVED):
        raise ProbeError(
            f"{where}a group has a name that cannot be used; accepted: 1 to {_LONGEST_NAME} printable characters, "
            f"without {' '.join(_RESERVED)}"
        )
