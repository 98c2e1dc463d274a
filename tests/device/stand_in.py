"""A second device in Python: what an accelerator forbids is forbidden here, and what it does slowly is counted.

Its tensors lie in the processor's memory and are computed there, so results are bit-equal to the processor's. A tensor
of the device beside one of the processor is an error; copies that do not wait arrive when somebody waits, and hold
nonsense until then; random numbers come from a state of its own. PyTorch calls this device PrivateUse1.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from device.accounts import ACCOUNTS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"
DEVICES = 2
_NONSENSE = 0xC7  # what a copy that has not arrived holds; large and negative as a float
_HOST_INDEX = "indices should be either on cpu or on the same device as the indexed tensor"


class OnDevice(torch.Tensor):
    """A tensor of the device: shape, strides and a storage whose attribute `memory` is the processor's."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> Any:
        """What accelerate asks of the class of a parameter."""
        return torch.nn.Parameter(values, requires_grad)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({host_of(self)}, device={self.device})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def host_of(tensor: Tensor) -> Tensor:
    """What a tensor of the device holds, in the same memory; not counted. Of another tensor: itself."""
    if not isinstance(tensor, OnDevice):
        return tensor
    memory = tensor.untyped_storage().memory  # type: ignore[attr-defined]
    empty = torch.empty(0, dtype=tensor.dtype)
    return empty.set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())


class StandIn(TorchDispatchMode):
    """While it is entered, "standin" is a device like another."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if (device is not None and torch.device(device).type == NAME) or _any_on_device(args, kwargs):
            return _run(function, args, kwargs)
        if kwargs.get("pin_memory"):
            made = function(*args, **{**kwargs, "pin_memory": False})
            made.untyped_storage().pinned = True
            return made
        return function(*args, **kwargs)

    def __enter__(self) -> StandIn:
        _MODULE.entered += 1
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        _MODULE.entered -= 1
        super().__exit__(*error)


@contextlib.contextmanager
def stand_in() -> Iterator[Any]:
    """The device, with its accounts cleared before and after."""
    ACCOUNTS.clear()
    try:
        with StandIn():
            yield ACCOUNTS
    finally:
        ACCOUNTS.clear()
        _PENDING.clear()


def _any_on_device(*trees: Any) -> bool:
    return any(isinstance(each, OnDevice) for each in tree_leaves(trees))


# running an operation


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function._schema.name.removeprefix("aten::")
    ACCOUNTS.operation(name)
    special = _SPECIAL.get(name)
    if special is not None:
        return special(function, args, kwargs)
    index = _place(name, args, kwargs)
    sized = name in _SIZED and kwargs.get("output_size") is None
    if sized or (name in _INDEXED and _counted(name, args)):
        ACCOUNTS.note("index" if name in _INDEXED else "size", blocking=True)
    return _computed(function, args, kwargs, index)


def _computed(function: Any, args: Any, kwargs: dict[str, Any], index: int) -> Any:
    """Compute in the processor's memory; what comes of it is on the device with this index."""
    hosts: dict[int, Tensor] = {}
    given: dict[int, OnDevice] = {}

    def bare(value: Any) -> Any:
        if not isinstance(value, OnDevice):
            return value
        if id(value) not in hosts:
            host = hosts[id(value)] = host_of(value)
            given[id(host)] = value
        return hosts[id(value)]

    plain, named = tree_map(bare, args), tree_map(bare, kwargs)
    if named.get("device") is not None:
        named["device"] = torch.device("cpu")
    named.pop("pin_memory", None)
    with _random_state_of(function, named, index):
        try:
            out = function(*plain, **named)
        except IndexError as error:
            ACCOUNTS.broken = f"standin error: device-side assert triggered ({error})"
            raise RuntimeError(ACCOUNTS.broken) from None
    owners = {host.untyped_storage()._cdata: given[id(host)] for host in hosts.values()}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        same = given.get(id(value))
        if same is None:
            return _shown(value, index, owners.get(value.untyped_storage()._cdata))
        if same.shape != value.shape or same.stride() != value.stride():
            same.data = _shown(value, index, None)  # resized in place
        return same

    return tree_map(wrapped, out)


def _shown(host: Tensor, index: int, owner: OnDevice | None = None) -> OnDevice:
    """A tensor of the device that shows the memory of one of the processor: the owner's, or memory of its own."""
    if host.dtype is torch.float64 and not ACCOUNTS.float64:
        raise TypeError(f"Cannot convert a {NAME} Tensor to float64 dtype as the device doesn't support float64")
    made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
        OnDevice,
        host.shape,
        strides=host.stride(),
        storage_offset=host.storage_offset(),
        dtype=host.dtype,
        layout=host.layout,
        device=torch.device(NAME, index),
    )
    if owner is not None:
        torch._functionalize_unsafe_set(made, owner)  # type: ignore[attr-defined]
        return made
    memory, storage = host.untyped_storage(), made.untyped_storage()
    size = memory.nbytes()
    ACCOUNTS.allocate(index, size)
    storage.memory = memory  # type: ignore[attr-defined]
    weakref.finalize(storage, ACCOUNTS.release, index, size).atexit = False
    return made


def _index_of(device: torch.device | str) -> int:
    index = torch.device(device).index
    return _MODULE.current if index is None else index


def _place(name: str, args: Any, kwargs: dict[str, Any]) -> int:
    """The index of the device that an operation runs on.

    Raises:
        RuntimeError: its tensors are on several devices, as it would on CUDA.
    """
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    indices = set()
    if name in _INDEXED:
        indices = {id(each) for each in args[1] if each is not None}
        if not isinstance(args[0], OnDevice):
            raise RuntimeError(_HOST_INDEX)
    places = {each.device for each in tensors if isinstance(each, OnDevice)}
    # a single number of the processor goes with every kernel, an index is copied
    places |= {
        each.device for each in tensors if not isinstance(each, OnDevice) and each.ndim and id(each) not in indices
    }
    if len(places) > 1:
        said = ", ".join(sorted(map(str, places)))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {said} ({name})")
    if places:
        return places.pop().index or 0
    return _index_of(kwargs["device"])


def _counted(name: str, args: Any) -> bool:
    """Whether an index has to be copied to the device first, or the ones in a mask counted."""
    for each in args[1]:
        if each is not None and not isinstance(each, OnDevice) and each.ndim:
            return True
        if each is not None and each.dtype in (torch.bool, torch.uint8):
            return name == "index" or args[2].numel() > 1
    return False


@contextlib.contextmanager
def _random_state_of(function: Any, named: dict[str, Any], index: int) -> Iterator[None]:
    """Random numbers of the device come from a state of its own."""
    if torch.Tag.nondeterministic_seeded not in function.tags:
        yield
        return
    if named.get("generator") is not None:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    outside = torch.default_generator.get_state()
    torch.default_generator.set_state(_MODULE.states[index])
    try:
        yield
    finally:
        _MODULE.states[index] = torch.default_generator.get_state()
        torch.default_generator.set_state(outside)


# copies between the devices, and what waits

_PENDING: list[tuple[Tensor, Tensor]] = []  # copies to the processor that have not arrived, and what they will hold


def _arrive() -> None:
    """Everything that the device was given is done."""
    while _PENDING:
        target, values = _PENDING.pop(0)
        target.copy_(values)
    _MODULE.passed = _MODULE.recorded


def _copied(target: Tensor, source: Tensor, *, non_blocking: bool) -> None:
    """Copy what is in `source` to `target`, of which one or both are of the device."""
    here, there = host_of(target), host_of(source)
    size = there.numel() * there.element_size()
    if not size:  # torch returns at once
        return
    if isinstance(target, OnDevice):
        if not isinstance(source, OnDevice):
            ACCOUNTS.note("to device", blocking=not non_blocking, size=size)
        elif target.device != source.device:
            ACCOUNTS.note("between devices", blocking=False, size=size)
        here.copy_(there)
        return
    waits = not (non_blocking and getattr(target.untyped_storage(), "pinned", False))
    ACCOUNTS.note("to host", blocking=waits, size=size)
    if waits:
        _arrive()
        here.copy_(there)
    else:
        _PENDING.append((here, there.clone()))
        here.untyped_storage().fill_(_NONSENSE) if here.is_contiguous() and here.numel() else None


def _to_copy(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    source = args[0]
    named = dict(kwargs)
    to, non_blocking = named.pop("device", None), bool(named.pop("non_blocking", False))
    named.pop("pin_memory", None)
    device = source.device if to is None else torch.device(to)
    same = device.type == source.device.type and (device.index in (None, source.device.index))
    if isinstance(source, OnDevice) and same:
        return _computed(function, args, named, source.device.index)
    if device.type == NAME:
        converted = function(host_of(source), **named)
        made = _shown(converted if converted is not source else converted.clone(), _index_of(device))
        size = converted.numel() * converted.element_size()
        ACCOUNTS.note("to device", blocking=size > 0 and not non_blocking, size=size)
        return made
    converted = function(host_of(source), **named)
    target = torch.empty_like(converted)
    if non_blocking:
        target.untyped_storage().pinned = True  # type: ignore[attr-defined]
    _copied(target, _shown(converted, source.device.index), non_blocking=non_blocking)
    return target


def _copy_(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    target, source, *rest = args
    _copied(target, source, non_blocking=bool(rest[0] if rest else kwargs.get("non_blocking", False)))
    return target


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _copied(target, source, non_blocking=non_blocking)
    return target


def _scalar(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    ACCOUNTS.note("scalar", blocking=True)
    _arrive()
    _place(function._schema.name, args, kwargs)
    return function(*tree_map(host_of_any, args))


def host_of_any(value: Any) -> Any:
    """`host_of` a tensor; anything else as it is."""
    return host_of(value) if isinstance(value, Tensor) else value


def _math_attention(function: Any, args: Any, kwargs: dict[str, Any]) -> int:
    return 0


def _histogram(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Of integers too, which the processor does not have; experts are dispatched by it on accelerators."""
    counts = function(host_of(args[0]).double(), *args[1:], **kwargs)
    return _shown(counts.to(args[0].dtype), args[0].device.index)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "_to_copy": _to_copy,
    "copy_": _copy_,
    "_local_scalar_dense": _scalar,
    "equal": _scalar,
    "_linalg_check_errors": _scalar,
    "_fused_sdp_choice": _math_attention,
    "histc": _histogram,
}
_SIZED = {
    *("nonzero", "masked_select", "unique_dim", "_unique", "_unique2", "unique_consecutive", "bincount"),
    *("repeat_interleave", "unique_dim_consecutive", "_linalg_eigh"),  # the last one looks whether it succeeded
}
_INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}


# the module torch.standin


class _Generator:
    def __init__(self, index: int) -> None:
        self._index = index

    def manual_seed(self, seed: int) -> None:
        _MODULE.states[self._index] = torch.Generator().manual_seed(seed).get_state()


class _Event:
    """Done once it has been asked twice, or somebody has waited since it was recorded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._left, self._number = 0, 0

    def record(self, stream: Any = None) -> None:
        _MODULE.recorded += 1
        self._left, self._number = 1, _MODULE.recorded

    def query(self) -> bool:
        ACCOUNTS.operation("query")
        if self._number > _MODULE.passed and self._left:
            self._left = 0
            return False
        _arrive()
        return True

    def synchronize(self) -> None:
        ACCOUNTS.operation("synchronize")
        if self._number > _MODULE.passed:
            ACCOUNTS.note("wait", blocking=True)
        _arrive()


class _Stream:
    def synchronize(self) -> None:
        ACCOUNTS.note("wait", blocking=True)
        ACCOUNTS.operation("synchronize")
        _arrive()


class _Module:
    """What `torch.get_device_module("standin")` gives."""

    Event = _Event

    def __init__(self) -> None:
        self.entered = self.current = self.recorded = self.passed = 0
        self.states = [torch.Generator().manual_seed(0).get_state() for _ in range(DEVICES)]
        self.default_generators = [_Generator(index) for index in range(DEVICES)]

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.entered > 0  # so that tests which do not enter it see none

    def current_device(self) -> int:
        return self.current

    def set_device(self, device: Any) -> None:
        self.current = device if isinstance(device, int) else _index_of(device)

    def device_count(self) -> int:
        return DEVICES

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        for index in range(DEVICES):
            _Generator(index).manual_seed(seed)

    manual_seed = manual_seed_all

    def get_rng_state(self, device: Any = NAME) -> Tensor:
        return self.states[device if isinstance(device, int) else _index_of(device)].clone()

    def set_rng_state(self, state: Tensor, device: Any = NAME) -> None:
        self.states[device if isinstance(device, int) else _index_of(device)] = state.clone()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def current_stream(self, device: Any = None) -> _Stream:
        return _Stream()

    def synchronize(self, device: Any = None) -> None:
        _Stream().synchronize()

    def memory_allocated(self, device: Any = NAME) -> int:
        return ACCOUNTS.held[_index_of(device)]

    def max_memory_allocated(self, device: Any = NAME) -> int:
        return ACCOUNTS.peak[_index_of(device)]

    def reset_peak_memory_stats(self, device: Any = NAME) -> None:
        ACCOUNTS.peak[_index_of(device)] = ACCOUNTS.held[_index_of(device)]

    def empty_cache(self) -> None:
        """Nothing is cached."""


def _empty_strided(
    size: Any, stride: Any, dtype: Any = None, layout: Any = None, device: Any = None, **_: Any
) -> Tensor:
    return _shown(torch.empty_strided(size, stride, dtype=dtype), _index_of(device))


def _empty(size: Any, dtype: Any = None, layout: Any = None, device: Any = None, **_: Any) -> Tensor:
    return _shown(torch.empty(size, dtype=dtype), _index_of(device))


_MODULE = _Module()
_setup_privateuseone_for_python_backend(rename=NAME, backend_module=_MODULE)
_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
