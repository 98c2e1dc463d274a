"""The guard around every forward pass of ours: afterwards a model holds, byte for byte, what it held before.

A forward pass in evaluation mode may write all the same: weights in place (RWKV), observers and counters, caches of
rotary frequencies, attributes, configurations, generators of random numbers, the state of a user's own hooks. Tensors
are copied before the first operation that writes them (`writes.py`); everything else that can be reached is copied
shallowly (`reachable.py`). The first reading of a model also compares all bytes, for what neither way can see.
"""

from __future__ import annotations

import contextlib
import itertools
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from topo_callback.errors import UnsupportedModelError
from topo_callback.state.opaque import Opaque, StandIn
from topo_callback.state.reachable import Reachable
from topo_callback.state.writes import (
    Writes,
    differing,
    digest,
    is_leaf,
    is_sparse,
    memory_of,
    overwrite,
    plain_tensors,
    same_sparse,
)

_SMALL = 1 << 16  # bytes of a tensor, no parameter, that is copied before every reading
_FIRST = 1 << 28  # bytes that are copied before the first reading, smallest tensors first; of others there are digests


@dataclass
class _Known:
    """What was learned of a model at its first reading."""

    read: bool = False
    unseen: set[str] = field(default_factory=set)  # modules with tensors that change by no operation
    doubted: set[Any] = field(default_factory=set)  # custom operations that write without saying so
    opaque: bool = False  # whether objects that cannot be looked into change


_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()
_ACTIVE: list[Guard] = []


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the model holds afterwards what it held before; also after an error.

    Raises:
        UnsupportedModelError: something was changed that cannot be put back; the message names the module. At the
            first reading this is found by the bytes of all tensors, so a model is refused before it is trained.
    """
    guard = Guard(model)
    _ACTIVE.append(guard)
    try:
        with guard.writes:
            yield
    except BaseException:
        _ACTIVE.remove(guard)
        guard.put_back()
        raise
    _ACTIVE.remove(guard)
    lost = guard.put_back()
    if lost:
        raise _refused(lost)


def _refused(lost: list[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"a forward pass in evaluation mode changes what cannot be put back: {', '.join(lost[:3])}"
        f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}; training would go on from there. Let the module "
        "leave it alone while `self.training` is False, or do without monitoring"
    )


def rewind(model: nn.Module) -> None:
    """Between two passes inside `untouched(model)`: the next one begins where the first one did, but for hooks."""
    guard = _guard_of(model)
    if guard is not None:
        guard.rewind()
        guard.undo_unseen()


def begin_pass(model: nn.Module) -> None:
    """A pass begins inside `untouched(model)`, where the one before it began, if there was one.

    What no operation said of that one is undone here and not at its end: to see it, an accelerator is waited for, and
    after the last pass that is done anyway.
    """
    guard = _guard_of(model)
    if guard is not None:
        if guard.passed:
            guard.undo_unseen()
        guard.passed = True


def end_pass(model: nn.Module) -> None:
    """A pass has ended inside `untouched(model)`: all else is put back, but for hooks."""
    guard = _guard_of(model)
    if guard is not None:
        guard.rewind()


def _guard_of(model: nn.Module) -> Guard | None:
    return next((guard for guard in reversed(_ACTIVE) if guard.model is model), None)


class Guard:
    """What a model holds, and how to put it back.

    Attributes:
        passed: a forward pass has been made since.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.passed = False
        self._known = known = _KNOWN.setdefault(model, _Known())
        self._state = Reachable(model)
        # their data are exchanged, by DeepSpeed and FSDP1, whose own account says which are there
        swapped = any(hasattr(module, "_fsdp_wrapped_module") for module in model.modules())
        self._tensors = [
            _Held(plain, owner, swapped=swapped or hasattr(tensor, "ds_id"))
            for tensor, owner in self._state.tensors
            for plain in plain_tensors(tensor)
        ]
        self._copied, self._digests = _beforehand(self._tensors, known)
        looked_into = self._state.opaque if known.opaque or not known.read else []
        self._opaque = [Opaque(value, owner) for value, owner in looked_into]
        # held instead of the model's generators until the end, so that the model is refused as it was
        self._generators = [
            (value, StandIn(_refused([f"a generator of {owner}"])))
            for value, owner in self._state.opaque
            if isinstance(value, types.GeneratorType) and value.gi_frame is not None
        ]
        if self._generators:
            for generator, stand_in in self._generators:
                self._state.replace(generator, stand_in)
            self._state.put_back()
        self.writes = Writes((held.tensor for held in self._tensors), doubting=not known.read, doubted=known.doubted)

    def rewind(self) -> None:
        """Put back objects and what operations wrote; hooks stay."""
        self._put_opaque_back()
        self._state.put_back(hooks=False)
        for held in self._tensors:
            held.put_back()
        self.writes.put_back()

    def put_back(self) -> list[str]:
        """Put everything back; what could not be, by its module."""
        for generator, stand_in in self._generators:
            self._state.replace(stand_in, generator)
        lost = self._put_opaque_back()
        self._state.put_back()
        lost += self._state.lost
        exchanged = [held for held in self._tensors if held.put_back()]
        self.writes.put_back()
        lost += self._unseen({id(held) for held in exchanged})
        for held in self._tensors:
            held.put_version_back()
        self._known.read = True
        return lost

    def _put_opaque_back(self) -> list[str]:
        """Have copies in place of objects that changed; those of which there is none, by their modules."""
        lost = []
        for opaque in self._opaque:
            if opaque.changed():
                self._known.opaque = True
                if opaque.spare is None:
                    lost.append(f"a {type(opaque.value).__name__} of {opaque.owner}")
                else:
                    self._state.replace(*opaque.renew())
        return lost

    def undo_unseen(self) -> set[int]:
        """Undo what no operation says, where there is a copy; of which tensors there is one."""
        changed = differing([(held.tensor, copy) for held, copy in self._copied])
        for held, copy in itertools.compress(self._copied, changed):
            self._known.unseen.add(held.owner)
            overwrite(held.tensor, copy)
        return {id(held) for held, _ in self._copied}

    def _unseen(self, exchanged: set[int]) -> list[str]:
        """Undo what no operation says; where there is no copy, the modules."""
        lost = []
        copied = self.undo_unseen()
        copied |= {id(held) for held, _ in self._digests}
        digests = [(held, before, digest(held.tensor)) for held, before in self._digests]
        lost += [held.said for held, _, after in digests if after is None]
        known = [(held, before, after) for held, before, after in digests if after is not None]
        changed = differing([(before, after) for _, before, after in known])
        lost += [held.said for held, _, _ in itertools.compress(known, changed)]
        for held in self._tensors:
            if id(held) not in copied | exchanged and held.version_moved() and held.memory not in self.writes.written:
                lost.append(held.said)
        return lost


class _Held:
    """One tensor: what memory it shows, how, and at which version."""

    def __init__(self, tensor: Tensor, owner: str, *, swapped: bool) -> None:
        self.tensor = tensor
        self.owner = owner
        self.memory = memory_of(tensor)
        self._view = None if swapped or self.memory is None else tensor.detach()
        self._sparse = tensor.detach().clone() if is_sparse(tensor) else None
        self._version = None if tensor.is_inference() else tensor._version
        self._wants_gradient = tensor.requires_grad
        self._gradient = tensor.grad if is_leaf(tensor) else None

    @property
    def said(self) -> str:
        return f"a tensor {list(self.tensor.shape)} of {self.owner}"

    def put_back(self) -> bool:
        """Have it show what it showed; whether what it holds is known to be right, whatever operations say."""
        tensor = self.tensor
        if is_leaf(tensor):
            if tensor.requires_grad != self._wants_gradient:
                tensor.requires_grad_(self._wants_gradient)
            if tensor.grad is not self._gradient:
                tensor.grad = self._gradient
        if self._sparse is not None:
            return same_sparse(tensor, self._sparse) or self._put_sparse_back(self._sparse)
        if self._view is None or _shows(tensor, self._view):
            return False
        tensor.data = self._view
        return True

    def _put_sparse_back(self, copy: Tensor) -> bool:
        self.tensor.data = copy.clone()
        if not same_sparse(self.tensor, copy):  # torch exchanges those of compressed rows in name only
            overwrite(self.tensor, copy)
        return same_sparse(self.tensor, copy)

    def version_moved(self) -> bool:
        return self._version is not None and self.tensor._version != self._version

    def put_version_back(self) -> None:
        """The values are those of then, so a graph that was recorded then may go on."""
        if self._version is not None and self.tensor._version != self._version:
            set_version(self.tensor, self._version)


def set_version(tensor: Tensor, version: int) -> None:
    """Set the count of writes that autograd compares; torch has taken one tensor, and takes several since 2.7."""
    put: Any = torch._C._autograd._unsafe_set_version_counter
    try:
        put((tensor,), (version,))
    except TypeError:
        put(tensor, version)


def _shows(tensor: Tensor, view: Tensor) -> bool:
    try:
        return bool(tensor.is_set_to(view)) and tensor.dtype == view.dtype
    except (RuntimeError, NotImplementedError):  # another device or layout
        return False


def _beforehand(tensors: list[_Held], known: _Known) -> tuple[list[tuple[_Held, Tensor]], list[tuple[_Held, Tensor]]]:
    """Copies of some tensors and, at the first reading, digests of the others."""
    copied: list[tuple[_Held, Tensor]] = []
    digests: list[tuple[_Held, Tensor]] = []
    left = _FIRST
    seen = set()
    sizes = [held.tensor.numel() * held.tensor.element_size() if held.memory is not None else 0 for held in tensors]
    for place in sorted(range(len(tensors)), key=sizes.__getitem__):
        held, size = tensors[place], sizes[place]
        view = held.tensor
        region = (held.memory, view.storage_offset() if size else 0, view.size(), view.stride() if size else ())
        if not size or region in seen:
            continue
        seen.add(region)
        small = size <= _SMALL and not isinstance(view, nn.Parameter)
        if small or held.owner in known.unseen or (not known.read and size <= left):
            left -= size
            copied.append((held, view.detach().clone()))
        elif not known.read and (number := digest(view)) is not None:
            digests.append((held, number))
    return copied, digests
