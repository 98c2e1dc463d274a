"""Copies of the state of single objects, to be compared with it later and put back in place."""

from __future__ import annotations

import array
import collections
import ctypes
import functools
import io
import random
from collections.abc import Mapping
from operator import is_
from typing import Any

import numpy as np
import torch

FOREIGN = (ctypes._SimpleCData, ctypes.Structure, ctypes.Union, ctypes.Array)


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


class _Foreign(Copy):
    """Numbers, structures and arrays of ctypes."""

    def _state(self, held: Any) -> Any:
        return ctypes.string_at(ctypes.addressof(held), ctypes.sizeof(held))

    def _set(self, held: Any) -> None:
        ctypes.memmove(ctypes.addressof(held), self.saved, len(self.saved))


class _Array(Copy):
    """NumPy arrays: every byte, or every object of an array of objects. What subclasses add lies in attributes."""

    def _state(self, held: Any) -> Any:
        return held.view(np.ndarray).copy()

    def _is_as_saved(self, held: Any) -> bool:
        held = held.view(np.ndarray)
        if held.shape != self.saved.shape or held.dtype != self.saved.dtype:
            return False
        if held.dtype.hasobject:
            return all(map(is_, held.ravel().tolist(), self.saved.ravel().tolist()))
        return bool(held.tobytes() == self.saved.tobytes())

    def _set(self, held: Any) -> None:
        if held.size == self.saved.size:
            held.shape = self.saved.shape
        elif held.shape != self.saved.shape:
            held.resize(self.saved.shape, refcheck=False)
        locked = not held.flags.writeable
        if locked:
            held.flags.writeable = True
        np.copyto(held.view(np.ndarray), self.saved)
        if locked:  # asked of an array that shows memory of torch, True is refused even where it is so already
            held.flags.writeable = False


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


class _Calls(Copy):
    """What `functools.lru_cache` keeps: emptied where it was empty; else it stays, as no entry can be taken out."""

    def _state(self, held: Any) -> Any:
        return held.cache_info()

    def _is_as_saved(self, held: Any) -> bool:
        return bool(self.saved.currsize > 0 or self._state(held) == self.saved)

    def _set(self, held: Any) -> None:
        held.cache_clear()


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


class Kind(Copy):
    """The class of an object, and the dictionary that holds its attributes."""

    def _state(self, held: Any) -> Any:
        return type(held), attributes_of(held)

    def _is_as_saved(self, held: Any) -> bool:
        return all(map(is_, self._state(held), self.saved))

    def _set(self, held: Any) -> None:
        cls, attributes = self.saved
        if type(held) is not cls:
            object.__setattr__(held, "__class__", cls)
        if attributes is not None and attributes_of(held) is not attributes:
            object.__setattr__(held, "__dict__", attributes)


_COPIES: tuple[tuple[Any, type[Copy]], ...] = (
    ((list, collections.deque), _Items),
    (set, _Members),
    ((bytearray, array.array), _Bytes),
    (FOREIGN, _Foreign),
    (functools._lru_cache_wrapper, _Calls),
    (np.ndarray, _Array),
    ((io.BytesIO, io.StringIO), _Stream),
    (io.IOBase, _Place),
    ((random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState, torch.Generator), _Random),
)


def copy_of(held: Any) -> Copy:
    """The copy of a container, an array, a stream in memory or a random generator."""
    return next(copy for kinds, copy in _COPIES if isinstance(held, kinds))(held)


def attributes_of(held: Any) -> dict[str, Any] | None:
    """The dictionary of an object's attributes, whatever its class makes of the name; None where there is none."""
    try:
        found = object.__getattribute__(held, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


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
