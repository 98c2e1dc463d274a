"""What code reaches beside its arguments: global names, names of the user's other modules, closures."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from topo_callback.state.foreign import is_users


class Spoken(NamedTuple):
    """The names in a function, those of the functions inside it included."""

    stored: tuple[str, ...]  # global names that are set
    read: tuple[str, ...]  # global names that are read
    attributes: tuple[str, ...]  # names after a dot


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Spoken:
    """The names that a function speaks of."""
    stored: dict[str, None] = {}
    read: dict[str, None] = {}
    attributes: dict[str, None] = {}
    of = {"STORE_GLOBAL": stored, "DELETE_GLOBAL": stored, "LOAD_GLOBAL": read}
    of |= dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"), attributes)
    waiting = [code]
    while waiting:
        each = waiting.pop()
        waiting += [inner for inner in each.co_consts if isinstance(inner, types.CodeType)]
        for instruction in dis.get_instructions(each):
            if instruction.opname in of:
                of[instruction.opname][instruction.argval] = None
    return Spoken(tuple(stored), tuple(read), tuple(attributes))


def functions_of(cls: type) -> Iterator[Any]:
    """The functions that a class is made of: methods, those behind properties and decorators, and inner classes."""
    for held in vars(cls).values():
        if isinstance(held, (types.FunctionType, functools._lru_cache_wrapper, type)):
            yield held
        elif isinstance(held, (staticmethod, classmethod)):
            yield held.__func__
        elif isinstance(held, property):
            yield from (each for each in (held.fget, held.fset, held.fdel) if each is not None)
        elif isinstance(held, (functools.cached_property, functools.partialmethod)):
            yield held.func


def may_hold_state(held: Any) -> bool:
    """Whether what a global name of the user's code stands for is to be looked into."""
    if isinstance(held, (types.FunctionType, type)):
        return is_users(held.__module__)
    return not isinstance(held, types.ModuleType)


def is_users_module(held: Any) -> bool:
    """Whether it is a module of the user's own."""
    return isinstance(held, types.ModuleType) and is_users(held.__name__)
