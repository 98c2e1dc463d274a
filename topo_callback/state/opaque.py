"""Objects whose state lies outside Python's attributes: iterators, generators, objects of extensions."""

from __future__ import annotations

import copy
import types
import warnings
from typing import Any

import numpy as np
from torch import Tensor


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - any class's own; most that cannot be told of hold nothing of training
            return None


def _copied(value: Any) -> Any:
    if isinstance(value, types.GeneratorType):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return copy.copy(value)
        except Exception:  # noqa: BLE001 - any class's own
            return None


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (int, float, str, bytes, bool, complex)):
        return bool(one == other)
    if isinstance(one, (np.ndarray, Tensor)):
        return True  # compared by itself, where it is held
    # an iterator is told by what it goes over, made anew whenever it is asked
    states = _state(one), _state(other)
    return None in states or _same(*states) if hasattr(one, "__next__") else True
