"""What a setting alters: the one source that resume, scan, compare and calibrate ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Alters = Literal["cloud", "measure", "sampling", "nothing"]
Values = Mapping[str, Any]  # a configuration as plain values, as run.json has it


@dataclass(frozen=True)
class Effect:
    """What a setting alters; `topo_callback.setting_changes` answers for two runs by it.

    Attributes:
        alters: "cloud" (which points and distances are read), "measure" (which numbers are computed from them, and
            how), "sampling" (at which steps), or "nothing" of these: resources, folders, sinks, pictures, actions.
        outcome: where run.json has what the setting came to, as a dotted path: equal outcomes are equal settings.
        same: whether two values of it are the same in effect, though they are different.
        idle: whether it alters nothing beside the other settings of a configuration.
        comparable: whether numbers of runs that differ in it may be compared all the same, from both configurations;
            None: they may not.
        watching: it is of a training run that is being watched; a scan of checkpoints has no use for it.
    """

    alters: Alters
    outcome: str = ""
    same: Callable[[Any, Any], bool] | None = None
    idle: Callable[[Values], bool] | None = None
    comparable: Callable[[Values, Values], bool] | None = None
    watching: bool = False


def names_numbers(first: Values, second: Values) -> bool:
    """The setting says only which numbers there are: those that one run has not are not compared."""
    return True


def both_on(name: str) -> Callable[[Values, Values], bool]:
    """The setting adds numbers of its own, none with 0: those that one run has not are not compared."""
    return lambda first, second: not first[name] or not second[name]


def draws_nothing(first: Values, second: Values) -> bool:
    """Neither run has numbers of a random choice of points, tokens or texts that another seed makes another one."""
    return not any(each[name] for each in (first, second) for name in ("subsamples", "token_cloud", "studies"))


def same_names(first: Any, second: Any) -> bool:
    """The same names in any order."""
    return set(first) == set(second)


def both_zigzag(first: Any, second: Any) -> bool:
    """The engines give the same bars."""
    return "off" not in (first, second)


def no_zigzags(values: Values) -> bool:
    return bool(values["zigzag_engine"] == "off")


def no_voids(values: Values) -> bool:
    return int(values["max_dimension"]) < 2


def no_subsamples(values: Values) -> bool:
    return not values["subsamples"]


CLOUD, MEASURE, NOTHING = Effect("cloud"), Effect("measure"), Effect("nothing")
NAMES = Effect("measure", same=same_names, comparable=names_numbers)
SAMPLING, WATCHING = Effect("sampling", watching=True), Effect("nothing", watching=True)
