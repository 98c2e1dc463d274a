"""Objects whose state lies outside Python's attributes: iterators, generators, objects of extensions."""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple


class Opaque:
    """Notes the state of such an object, as far as it can be told.

    Attributes:
        value: the object, or the copy that has taken its place.
        owner: the module that holds it.
        spare: a copy in the same state; None where it cannot be copied.
    """

    def __init__(self, value: Any, owner: str) -> None:
        self.value = value
        self.owner = owner
        self._state = _state(value)
        self.spare = None if self._state is None else _copied(value)

    def renew(self) -> tuple[Any, Any]:
        """The object, and a copy in the state that was noted, which takes its place."""
        before, self.value = self.value, self.spare
        self.spare = _copied(self.value)
        return before, self.value

    def changed(self) -> bool:
        """Whether the object is in another state now."""
        return self._state is not None and not _same(_state(self.value), self._state)


def _state(value: Any) -> Any:
    """What can be compared; None where nothing can be told."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return ("ended",) if frame is None else (frame.f_lasti, [id(each) for each in frame.f_locals.values()])
    if isinstance(value, (types.CoroutineType, types.AsyncGeneratorType)):
        return None
    # what an iterator goes over is often one, which moves with it
    return _each_iterator(_reduced(value), lambda inner: _Within(_state(inner)))


class StandIn:
    """In the place of a generator while a pass of ours runs: generators only move forward, so this raises instead."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> StandIn:
        return self

    def __next__(self) -> Any:
        raise self._error

    def send(self, value: Any) -> Any:
        raise self._error

    def close(self) -> None:
        raise self._error


class _Within(NamedTuple):
    """The state of an iterator inside another object's."""

    state: Any


def _reduced(value: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - any class's own; most that cannot be told of hold nothing of training
            return None


def _copied(value: Any) -> Any:
    """A copy in the same state; None where there can be none."""
    if isinstance(value, types.GeneratorType):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if not hasattr(type(value), "__next__"):
                return copy.copy(value)
            make, given, *state = _each_iterator(_reduced(value), _copied_or_not_at_all)
            made = make(*given)
            if state and state[0] is not None:
                made.__setstate__(state[0])
            return made
        except Exception:  # noqa: BLE001 - any class's own
            return None


def _copied_or_not_at_all(iterator: Any) -> Any:
    made = _copied(iterator)
    if made is None:
        raise TypeError("an iterator without copies")
    return made


def _each_iterator(value: Any, change: Callable[[Any], Any]) -> Any:
    """The tuples of a reduced object, with each iterator in them changed."""
    if type(value) is tuple:
        return tuple(_each_iterator(each, change) for each in value)
    return change(value) if hasattr(type(value), "__next__") else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (int, float, str, bytes, bool, complex, range)):  # a range: what an iterator over one has left
        return bool(one == other)
    return True  # arrays and tensors are compared by themselves, where they are held
