"""Values by name: of classes, slots, closures, globals, tensors and context variables."""

from __future__ import annotations

import contextlib
import contextvars
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from topo_callback.state.copies import Copy

MISSING = object()
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


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


def hooks_of(tensor: Tensor) -> Names:
    """The hooks on a tensor's gradient."""
    return Names({name: _of_tensor(tensor, name) for name in _HOOKS}, _of_tensor, _set_of_tensor)


def _of_tensor(tensor: Tensor, name: str) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return getattr(tensor, name)


def _set_of_tensor(tensor: Tensor, name: str, value: Any) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        setattr(tensor, name, value)


def context_of(variable: contextvars.ContextVar[Any]) -> Names:
    """What a context variable holds here."""
    return Names({"": _context(variable, "")}, _context, lambda held, name, value: held.set(value))


def _context(variable: contextvars.ContextVar[Any], name: str) -> Any:
    try:
        return variable.get()
    except LookupError:
        return MISSING


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
