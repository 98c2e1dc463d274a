"""Copies of the state of single objects, to be compared with it later and put back in place."""

from __future__ import annotations

import array
import collections
import contextlib
import io
import random
import types
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

import numpy as np
import torch

MISSING = object()


class Copy:
    """What an object held. `put_back` makes it hold that again and says whether something else was found."""

    def __init__(self, held: Any) -> None:
        self.saved: Any = self._state(held)

    def put_back(self, held: Any) -> bool:
        if self._is_as_saved(held):
            return False
        self._set(held)
        return True

    def replace(self, one: Any, other: Any) -> None:
        """Put back `other` in place of `one`."""

    def _state(self, held: Any) -> Any:
        raise NotImplementedError

    def _is_as_saved(self, held: Any) -> bool:
        return bool(self._state(held) == self.saved)

    def _set(self, held: Any) -> None:
        raise NotImplementedError


class _Items(Copy):
    """Lists and deques: the same items in the same order."""

    def _state(self, held: Any) -> Any:
        return [*(list if isinstance(held, list) else collections.deque).__iter__(held)]

    def _is_as_saved(self, held: Any) -> bool:
        return len(held) == len(self.saved) and all(map(is_, self._state(held), self.saved))

    def _set(self, held: Any) -> None:
        cls: Any = list if isinstance(held, list) else collections.deque
        cls.clear(held)
        cls.extend(held, self.saved)

    def replace(self, one: Any, other: Any) -> None:
        self.saved = [other if item is one else item for item in self.saved]


class _Members(Copy):
    """Sets."""

    def _state(self, held: Any) -> Any:
        return [*set.__iter__(held)]

    def _is_as_saved(self, held: Any) -> bool:
        return {id(item) for item in self._state(held)} == {id(item) for item in self.saved}

    def _set(self, held: Any) -> None:
        set.clear(held)
        set.update(held, self.saved)


class _Bytes(Copy):
    """bytearray and array.array."""

    def _state(self, held: Any) -> Any:
        return bytes(held)

    def _set(self, held: Any) -> None:
        if isinstance(held, bytearray):
            held[:] = self.saved
        else:
            del held[:]
            held.frombytes(self.saved)


class _Array(Copy):
    """NumPy arrays: every byte, or every object of an array of objects."""

    def _state(self, held: Any) -> Any:
        return held.copy()

    def _is_as_saved(self, held: Any) -> bool:
        if held.shape != self.saved.shape or held.dtype != self.saved.dtype:
            return False
        if held.dtype.hasobject:
            return all(map(is_, held.ravel().tolist(), self.saved.ravel().tolist()))
        return bool(held.tobytes() == self.saved.tobytes())

    def _set(self, held: Any) -> None:
        if held.shape != self.saved.shape:
            held.resize(self.saved.shape, refcheck=False)
        writeable = held.flags.writeable
        if not writeable:
            held.flags.writeable = True
        np.copyto(held, self.saved)
        held.flags.writeable = writeable


class _Stream(Copy):
    """Files in memory."""

    def _state(self, held: Any) -> Any:
        return None if held.closed else (held.getvalue(), held.tell())

    def _set(self, held: Any) -> None:
        if self.saved is None or held.closed:
            return
        content, place = self.saved
        held.seek(0)
        held.truncate()
        held.write(content)
        held.seek(place)


class _Place(Copy):
    """Where in a file reading goes on."""

    def _state(self, held: Any) -> Any:
        try:
            return held.tell() if not held.closed and held.seekable() and not held.isatty() else None
        except (OSError, ValueError):
            return None

    def _set(self, held: Any) -> None:
        if self.saved is not None and not held.closed:
            held.seek(self.saved)


class _Random(Copy):
    """Generators of random numbers, of Python, NumPy and torch."""

    def _state(self, held: Any) -> Any:
        if isinstance(held, random.Random):
            return held.getstate()
        if isinstance(held, np.random.Generator):
            return held.bit_generator.state
        if isinstance(held, np.random.BitGenerator):
            return held.state
        if isinstance(held, np.random.RandomState):
            return held.get_state(legacy=False)
        return held.get_state()

    def _is_as_saved(self, held: Any) -> bool:
        return _equal(self._state(held), self.saved)

    def _set(self, held: Any) -> None:
        if isinstance(held, random.Random):
            held.setstate(self.saved)
        elif isinstance(held, np.random.Generator):
            held.bit_generator.state = self.saved
        elif isinstance(held, np.random.BitGenerator):
            held.state = self.saved
        else:
            held.set_state(self.saved)


class Names(Copy):
    """Values by name, in whatever holds them: a class, slots, a cell of a closure, globals.

    Args:
        saved: name -> value; MISSING where there is none.
        get: the value of a name now, or MISSING.
        put: sets one; given MISSING, takes it away.
        more: all names that there are now, where new ones are to be taken away.
    """

    def __init__(
        self,
        saved: Mapping[str, Any],
        get: Callable[[Any, str], Any],
        put: Callable[[Any, str, Any], None],
        more: Callable[[Any], Any] | None = None,
    ) -> None:
        self.saved = dict(saved)
        self._get, self._put, self._more = get, put, more

    def put_back(self, held: Any) -> bool:
        changed = False
        for name, value in self.saved.items():
            if self._get(held, name) is not value:
                self._put(held, name, value)
                changed = True
        for name in [] if self._more is None else [each for each in self._more(held) if each not in self.saved]:
            self._put(held, name, MISSING)
            changed = True
        return changed

    def replace(self, one: Any, other: Any) -> None:
        self.saved = {name: other if value is one else value for name, value in self.saved.items()}


_COPIES: tuple[tuple[Any, type[Copy]], ...] = (
    ((list, collections.deque), _Items),
    (set, _Members),
    ((bytearray, array.array), _Bytes),
    (np.ndarray, _Array),
    ((io.BytesIO, io.StringIO), _Stream),
    (io.IOBase, _Place),
    ((random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState, torch.Generator), _Random),
)


def copy_of(held: Any) -> Copy:
    """The copy of a container, an array, a stream in memory or a random generator."""
    return next(copy for kinds, copy in _COPIES if isinstance(held, kinds))(held)


def slots_of(held: Any, names: tuple[str, ...]) -> Names:
    """The slots of an object."""
    return Names({name: _attribute(held, name) for name in names}, _attribute, _set_attribute)


def class_data(cls: type) -> Names:
    """The attributes of a class that are data, without what its instances and methods are made of."""
    saved = {name: vars(cls)[name] for name in _data_names(cls)}
    return Names(saved, lambda held, name: vars(held).get(name, MISSING), _set_class_attribute, _data_names)


def cell_content(cell: types.CellType) -> Names:
    """What a variable of a closure holds."""
    return Names({"": _content(cell, "")}, _content, _set_content)


def named_globals(namespace: dict[str, Any], names: tuple[str, ...]) -> Names:
    """Some global names of a module."""
    return Names({name: namespace.get(name, MISSING) for name in names}, _item, _set_item)


def _attribute(held: Any, name: str) -> Any:
    try:
        return object.__getattribute__(held, name)
    except AttributeError:
        return MISSING


def _set_attribute(held: Any, name: str, value: Any) -> None:
    if value is MISSING:
        object.__delattr__(held, name)
    else:
        object.__setattr__(held, name, value)


def _set_class_attribute(held: type, name: str, value: Any) -> None:
    with contextlib.suppress(AttributeError):
        if value is MISSING:
            type.__delattr__(held, name)
        else:
            type.__setattr__(held, name, value)


def _data_names(cls: type) -> list[str]:
    return [
        name
        for name, value in vars(cls).items()
        if not name.startswith("__") and name != "_abc_impl" and not callable(value) and not hasattr(value, "__get__")
    ]


def _content(cell: types.CellType, name: str) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _set_content(cell: types.CellType, name: str, value: Any) -> None:
    if value is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value


def _item(held: dict[str, Any], name: str) -> Any:
    return held.get(name, MISSING)


def _set_item(held: dict[str, Any], name: str, value: Any) -> None:
    if value is MISSING:
        held.pop(name, None)
    else:
        held[name] = value


def _equal(one: Any, other: Any) -> bool:
    """Whether two states of generators are equal, arrays and tensors in them included."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(one == other)
