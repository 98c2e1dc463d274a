"""Everything that a model holds outside its tensors: shallow copies of all objects in reach, put back in place.

Reached are the modules' own dictionaries (attributes, parameters, buffers, submodules, hooks), plain containers,
configurations and other plain objects, and what the functions among the hooks are bound to: objects, closures, default
arguments, and in user's code global names, classes and other modules of the user's. Left alone is machinery that runs
on its own: threads, queues, files, trainers, data loaders, process groups, trackers.
"""

from __future__ import annotations

import array
import collections
import contextvars
import functools
import io
import random
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from topo_callback.state.code import functions_of, is_users_module, may_hold_state, names_in
from topo_callback.state.copies import FOREIGN, Copy, Kind, attributes_of, copy_of
from topo_callback.state.foreign import LEFT_ALONE, is_plain, is_users
from topo_callback.state.names import cell_content, class_data, context_of, hooks_of, named_globals, slots_of
from topo_callback.state.writes import is_leaf

_ATOMS: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), types.ModuleType),
        *(types.BuiltinFunctionType, types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType),
        *(
            torch.dtype,
            torch.device,
            torch.layout,
            torch.memory_format,
            torch.Size,
            property,
            staticmethod,
            classmethod,
        ),
    }
)
LONG = 4096  # items of a container, beyond which they are taken for data
LARGE = 1 << 28  # bytes of an array, beyond which it is taken for data and not copied
_GLOBAL_HOOKS = [value for name, value in vars(module_hooks).items() if name.startswith("_global_") and value == {}]


class Reachable:
    """What can be reached from an object, as it is when this is made.

    Args:
        root: a model, a data set.
        name: what its state is said to be of, where the object has no modules.
        rows: of long containers, whose items are taken for data and not looked into, those that are.

    Attributes:
        tensors: every tensor, by the module that holds it (its name in the model).
        opaque: other objects whose state cannot be looked into, by their module.
        lost: what `put_back` could not put back.
    """

    def __init__(self, root: Any, name: str = "", *, rows: Sequence[int] = ()) -> None:
        self.tensors: list[tuple[Tensor, str]] = []
        self.opaque: list[tuple[Any, str]] = []
        self.lost: list[str] = []
        self._seen: set[int] = set()
        self._hooks: set[int] = set()
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any], str]] = []
        self._others: list[tuple[Any, Copy, str]] = []
        self._rows = rows
        name = name or type(root).__name__
        self._waiting: list[tuple[Any, str]] = [(root, name)]
        self._names: dict[int, str] = {}
        if isinstance(root, nn.Module):
            self._names = {id(module): path or name for path, module in root.named_modules()}
            self._waiting = [(hooks, "global hooks") for hooks in _GLOBAL_HOOKS if hooks]
            self._waiting += [(root, name)]
        while self._waiting:
            value, owner = self._waiting.pop()
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._look(value, owner)

    def put_back(self, *, hooks: bool = True) -> list[str]:
        """Make every object hold what it held; the modules in which something else was found.

        Args:
            hooks: also which hooks the modules have.
        """
        changed = []
        for held, saved, owner in self._dicts:
            if type(held) is dict or type(held) is collections.OrderedDict:  # nearly all, and most are empty
                if not held and not saved:
                    continue
                same = len(held) == len(saved) and all(map(is_, held, saved))
                same = same and all(map(is_, held.values(), saved.values()))
            else:
                same = _same_keys(held, saved) and all(map(is_, _values(held), saved.values()))
            if not same and (hooks or id(held) not in self._hooks):
                _refill(held, saved)
                changed.append(owner)
        for held, copy, owner in self._others:
            try:
                if copy.put_back(held):
                    changed.append(owner)
            except Exception:  # noqa: BLE001 - of any class of the user's; the rest is put back all the same
                self.lost.append(f"a {type(held).__name__} of {owner}")
        return changed

    def replace(self, one: Any, other: Any) -> None:
        """Have `other` wherever `one` is held, at the next `put_back`."""
        for _, saved, _ in self._dicts:
            for key, value in saved.items():
                if value is one:
                    saved[key] = other
        for _, copy, _ in self._others:
            copy.replace(one, other)

    def _look(self, value: Any, owner: str) -> None:
        cls = type(value)
        look = _LOOKS.get(cls)
        if look is None:
            look = _LOOKS[cls] = _look_for(cls)
        look(self, value, owner)

    def _further(self, values: Any, owner: str) -> None:
        """Look at these later; what cannot change is left out here, since most of it is."""
        self._waiting += [
            (value, owner) for value in values if type(value) not in _ATOMS and id(value) not in self._seen
        ]

    # one kind of object each

    def _nothing(self, value: Any, owner: str) -> None:
        pass

    def _dict(self, value: dict[Any, Any], owner: str) -> None:
        saved = dict(_items(value)) if value else {}
        self._dicts.append((value, saved, owner))
        if saved and (len(saved) <= LONG or self._rows):
            self._further(saved.values(), owner)
        if type(value) not in (dict, collections.OrderedDict):
            self._attributes(value, owner)

    def _attributes(self, value: Any, owner: str) -> None:
        held = attributes_of(value)
        self._others.append((value, Kind(value), owner))
        if held is not None and id(held) not in self._seen:
            self._seen.add(id(held))
            self._dict(held, owner)
        cls: Any = type(value)
        slots = _slots(cls)
        if slots:
            self._named(value, slots_of(value, slots), owner)

    def _named(self, value: Any, copy: Copy, owner: str) -> None:
        self._others.append((value, copy, owner))
        self._further(copy.saved.values(), owner)

    def _module(self, value: nn.Module, owner: str) -> None:
        owner = self._names.get(id(value), owner)
        self._hooks |= {id(held) for name, held in vars(value).items() if "_hooks" in name and isinstance(held, dict)}
        self._object(value, owner)

    def _object(self, value: Any, owner: str) -> None:
        self._attributes(value, owner)
        if id(type(value)) not in self._seen:
            self._seen.add(id(type(value)))
            self._class(type(value), owner)

    def _class(self, cls: type, owner: str) -> None:
        """The data of user's classes, and what their methods reach by global names."""
        for each in cls.__mro__:
            if is_users(each.__module__) and (each is cls or id(each) not in self._seen):
                self._seen.add(id(each))
                self._named(each, class_data(each), owner)
                self._further(functions_of(each), owner)

    def _sequence(self, value: Any, owner: str) -> None:
        copy = copy_of(value)
        self._others.append((value, copy, owner))
        self._further(self._looked_into(copy.saved), owner)
        if type(value) not in (list, set, collections.deque):
            self._attributes(value, owner)

    def _fixed(self, value: Any, owner: str) -> None:
        self._further(self._looked_into(value), owner)

    def _rows_of_arrow(self, value: Any, owner: str) -> None:
        """A `datasets.Dataset`: its rows do not change, a transform set on it may."""
        self._further([vars(value).get("_format_kwargs")], owner)

    def _looked_into(self, items: Any) -> Any:
        if len(items) <= LONG or isinstance(items, frozenset):
            return items
        return [items[row] for row in self._rows if row < len(items)]

    def _copied(self, value: Any, owner: str) -> None:
        self._others.append((value, copy_of(value), owner))

    def _array(self, value: Any, owner: str) -> None:
        if value.nbytes > LARGE or (isinstance(value, np.memmap) and not value.flags.writeable):
            return
        copy = copy_of(value)
        self._others.append((value, copy, owner))
        if value.dtype.hasobject and value.size <= LONG:
            self._further(copy.saved.ravel().tolist(), owner)
        if type(value) is not np.ndarray:
            self._attributes(value, owner)

    def _tensor(self, value: Tensor, owner: str) -> None:
        self.tensors.append((value, owner))
        if hasattr(value, "ds_id"):  # DeepSpeed keeps its own account there
            return
        self._dict(vars(value), owner)
        if is_leaf(value):
            self._named(value, hooks_of(value), owner)
            self._further([value.grad], owner)

    def _function(self, value: types.FunctionType, owner: str) -> None:
        if (value.__module__ or "").partition(".")[0] == "topo_callback":
            return  # a hook of ours, with what it has read
        for cell in value.__closure__ or ():
            self._named(cell, cell_content(cell), owner)
        self._further([*(value.__defaults__ or ()), value.__kwdefaults__, value.__dict__], owner)
        if is_users(value.__module__):
            spoken = names_in(value.__code__)
            if spoken.stored:
                self._named(value.__globals__, named_globals(value.__globals__, spoken.stored), owner)
            read = [value.__globals__.get(name) for name in spoken.read]
            for module in filter(is_users_module, read):
                copy = named_globals(vars(module), spoken.attributes)
                self._others.append((vars(module), copy, owner))
                read += copy.saved.values()
            self._further(filter(may_hold_state, read), owner)

    def _method(self, value: types.MethodType, owner: str) -> None:
        self._further([value.__self__, value.__func__], owner)

    def _partial(self, value: functools.partial[Any], owner: str) -> None:
        self._further([value.func, value.args, value.keywords], owner)
        self._attributes(value, owner)

    def _weak(self, value: weakref.ref[Any], owner: str) -> None:
        self._further([value()], owner)

    def _remembering(self, value: Any, owner: str) -> None:
        self._copied(value, owner)
        self._attributes(value, owner)

    def _shown(self, value: memoryview, owner: str) -> None:
        self._further([value.obj], owner)

    def _of_this_thread(self, value: threading.local, owner: str) -> None:
        self._dict(value.__dict__, owner)

    def _context(self, value: contextvars.ContextVar[Any], owner: str) -> None:
        self._named(value, context_of(value), owner)

    def _opaque(self, value: Any, owner: str) -> None:
        self.opaque.append((value, owner))


_Look = Callable[[Reachable, Any, str], None]
_LOOKS: dict[type, _Look] = {
    **dict.fromkeys(_ATOMS, Reachable._nothing),
    types.FunctionType: Reachable._function,
    types.MethodType: Reachable._method,
}
# the first that fits
_KINDS: tuple[tuple[Any, _Look], ...] = (
    ((random.SystemRandom, types.ModuleType), Reachable._nothing),
    (type, Reachable._class),
    (nn.Module, Reachable._module),
    (Tensor, Reachable._tensor),
    (dict, Reachable._dict),
    ((list, set, collections.deque), Reachable._sequence),
    ((tuple, frozenset), Reachable._fixed),
    (functools.partial, Reachable._partial),
    (np.ndarray, Reachable._array),
    (weakref.ref, Reachable._weak),
    (memoryview, Reachable._shown),
    (functools._lru_cache_wrapper, Reachable._remembering),
    (threading.local, Reachable._of_this_thread),
    (contextvars.ContextVar, Reachable._context),
    ((bytearray, array.array, io.IOBase, *FOREIGN), Reachable._copied),
    ((random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator), Reachable._copied),
    (torch.Generator, Reachable._copied),
)


def _look_for(cls: type) -> _Look:
    if getattr(cls, LEFT_ALONE, False):
        return Reachable._nothing
    for kinds, look in _KINDS:
        if issubclass(cls, kinds):
            return look
    if cls.__module__ == "datasets.arrow_dataset":
        return Reachable._rows_of_arrow
    plain = is_plain(cls)
    if plain is None:
        return Reachable._nothing
    return Reachable._object if plain else Reachable._opaque


def _items(held: dict[Any, Any]) -> Any:
    """The items in their order, whatever a subclass has made of its methods."""
    return collections.OrderedDict.items(held) if isinstance(held, collections.OrderedDict) else dict.items(held)


def _values(held: dict[Any, Any]) -> Any:
    return collections.OrderedDict.values(held) if isinstance(held, collections.OrderedDict) else dict.values(held)


def _same_keys(held: dict[Any, Any], saved: dict[Any, Any]) -> bool:
    keys = collections.OrderedDict.keys(held) if isinstance(held, collections.OrderedDict) else dict.keys(held)
    return len(held) == len(saved) and all(map(is_, keys, saved))


def _refill(held: dict[Any, Any], saved: dict[Any, Any]) -> None:
    cls: Any = collections.OrderedDict if isinstance(held, collections.OrderedDict) else dict
    if _same_keys(held, saved):
        for key, value in saved.items():
            cls.__setitem__(held, key, value)
        return
    cls.clear(held)
    for key, value in saved.items():
        cls.__setitem__(held, key, value)


@functools.cache
def _slots(cls: Any) -> tuple[str, ...]:
    found: list[str] = []
    for each in cls.__mro__:
        for name, member in vars(each).items():
            if type(member) is types.MemberDescriptorType and is_plain(each) and "__slots__" in vars(each):
                found.append(name)
    return tuple(found)
