"""What devices differ in: float64, copies that nobody waits for, random states, and what they say of their memory.

PyTorch has a module for each kind of device, such as `torch.cuda`; what such a module lacks is done without here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_STAGED_BYTES = 1 << 26  # of memory that copies arrive in, at once; larger ones are waited for


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64: not MPS, and not every Intel or other accelerator.

    Raises:
        torch.OutOfMemoryError: there is no memory left to try it in.
    """
    if device.type in ("cpu", "cuda", "meta"):
        return True
    return device.type != "mps" and _tried_float64(device.type, device.index)


@functools.lru_cache(maxsize=64)
def _tried_float64(kind: str, index: int | None) -> bool:
    device = torch.device(kind) if index is None else torch.device(kind, index)
    if kind == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    try:
        torch.ones(1, dtype=torch.float64, device=device).add_(1)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, NotImplementedError, RuntimeError):
        return False
    return True


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has none."""
    return torch.float64 if has_float64(device) else torch.float32


def where_wide(values: Tensor) -> Tensor:
    """Values on a device that has float64: their own, or else the processor."""
    return values if has_float64(values.device) else values.cpu()


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the processor on a device, without waiting for what it has been given before.

    Ordinary memory is copied aside before this returns, so it may be written to afterwards.
    """
    return values.to(device, non_blocking=_copies_late(device.type))


@functools.lru_cache(maxsize=16)
def _copies_late(kind: str) -> bool:
    """Whether copies from a kind of device to the processor can be under way while both go on."""
    if kind in ("cpu", "meta", "mps"):
        return False
    module = torch.get_device_module(kind)
    if not (hasattr(module, "Event") and hasattr(module, "current_stream")):
        return False
    try:
        torch.empty(1, pin_memory=True)
    except (RuntimeError, NotImplementedError):
        return False
    return True


class Mark:
    """A place in the work of a device: what was given to it so far. None of it is waited for here."""

    def __init__(self, device: torch.device) -> None:
        module = torch.get_device_module(device)
        self._event: Any = module.Event()
        self._event.record(module.current_stream(device))

    def passed(self) -> bool:
        """Whether the device has got there; never waits."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Wait until the device has got there."""
        self._event.synchronize()


def copied_late(values: Tensor) -> tuple[Tensor, Mark | None]:
    """A copy of values on the processor that is under way, and the mark after it.

    From a device that cannot copy like that the values themselves, where they are, and no mark.
    """
    if not _copies_late(values.device.type):
        return values, None
    return _staged(values), Mark(values.device)


def _staged(values: Tensor) -> Tensor:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


class HostCopies:
    """Copies from devices into arrays, begun one by one and waited for once.

    The device goes on while they are made, and so does the processor, until `wait`. At most 64 MiB are under way; a
    device that cannot copy like that, and what would be more, is waited for at once.
    """

    def __init__(self) -> None:
        self._left = _STAGED_BYTES
        self._under_way: list[tuple[np.ndarray, Any, Tensor]] = []
        self._devices: set[torch.device] = set()

    def into(self, array: np.ndarray, values: Tensor, place: Any = ...) -> None:
        """Have `array[place]` hold, once `wait` has returned, what the values are now.

        Args:
            array: of the values' type, or one that holds them.
            values: of the shape of `array[place]`, on any device.
            place: an index of the array; all of it.
        """
        values = values.detach()
        size = values.numel() * values.element_size()
        if size > self._left or not _copies_late(values.device.type):
            array[place] = values.cpu().numpy()
            return
        self._left -= size
        self._devices.add(values.device)
        self._under_way.append((array, place, _staged(values)))

    def wait(self) -> None:
        """Wait for the devices, and fill the arrays."""
        for device in self._devices:
            Mark(device).wait()
        for array, place, host in self._under_way:
            array[place] = host.numpy()
        self._under_way.clear()
        self._devices.clear()
        self._left = _STAGED_BYTES


@contextlib.contextmanager
def copies_of(copies: HostCopies | None) -> Iterator[HostCopies]:
    """The given copies, which somebody else waits for; or new ones, which have arrived at the end."""
    own = HostCopies() if copies is None else copies
    yield own
    if copies is None:
        own.wait()


def seed_generators(seed: int, devices: set[torch.device]) -> None:
    """Set the state of torch's global generators, of the processor and of these devices."""
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type in ("cpu", "meta"):
            continue
        module: Any = torch.get_device_module(device)
        generators = getattr(module, "default_generators", ())
        if generators:
            generators[module.current_device() if device.index is None else device.index].manual_seed(seed)
        else:
            module.manual_seed(seed)


def generator_states(devices: set[torch.device]) -> list[tuple[Callable[[Any], None], Any]]:
    """The states of torch's global generators, of the processor and of these devices, each behind what restores it."""
    states: list[tuple[Callable[[Any], None], Any]] = [(torch.set_rng_state, torch.get_rng_state())]
    for device in devices:
        if device.type == "mps":
            states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
        elif device.type not in ("cpu", "meta"):
            module: Any = torch.get_device_module(device)
            states.append((functools.partial(module.set_rng_state, device=device), module.get_rng_state(device)))
    return states


def return_cache(device: torch.device) -> None:
    """Give memory that the caching allocator of an accelerator holds and does not use back to the system."""
    empty = None if device.type == "cpu" else getattr(torch.get_device_module(device), "empty_cache", None)
    if empty is not None:
        empty()


def free_bytes(device: torch.device) -> int | None:
    """Memory of a device that can be had now, what PyTorch holds there without using it included; None if unknown."""
    if device.type in ("cpu", "meta"):
        return None
    module: Any = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return None
    free, _ = module.mem_get_info(device)
    if hasattr(module, "memory_reserved") and hasattr(module, "memory_allocated"):
        free += module.memory_reserved(device) - module.memory_allocated(device)
    return int(free)


class MemoryAccount:
    """What a device's allocator says of the time since this was made; its statistics are not reset.

    Args:
        device: whose memory; one that keeps no statistics gives nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._now()

    def facts(self) -> dict[str, int]:
        """`device_peak_raised`: bytes by which the most that was ever allocated has grown; 0 where training had needed
        more before. `device_bytes_kept`: bytes that are allocated now and were not before."""
        now = self._now()
        if now is None or self._before is None:
            return {}
        return {"device_peak_raised": now[1] - self._before[1], "device_bytes_kept": now[0] - self._before[0]}

    def _now(self) -> tuple[int, int] | None:
        if self._device.type in ("cpu", "meta"):
            return None
        module: Any = torch.get_device_module(self._device)
        if not (hasattr(module, "memory_allocated") and hasattr(module, "max_memory_allocated")):
            return None
        return int(module.memory_allocated(self._device)), int(module.max_memory_allocated(self._device))
