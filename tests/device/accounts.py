"""What the stand-in device counts, and the faults that are planted in it."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

_PACKAGE = str(Path(importlib.util.find_spec("topo_callback").origin).parent)  # type: ignore[union-attr,arg-type]
# an operation of the model passes through here on its way, whoever asked for it
_ON_THE_WAY = {("state/writes.py", "__torch_dispatch__"), ("state/writes.py", "_guarded")}
_THEIRS = ("transformers", "accelerate", "trl", "peft")


@dataclass(frozen=True)
class Transfer:
    """One copy between the device and the processor, or one wait for the device.

    Attributes:
        kind: "to host", "to device", "scalar", "size" (an operation whose result's size is read from the device),
            "index" (an index or mask that has to be copied or counted first) or "wait".
        blocking: the processor waits for all that the device has been given.
        site: "file:function" in the package, the name of a library, or "test".
        bytes: how much is copied.
    """

    kind: str
    blocking: bool
    site: str
    bytes: int = 0

    @property
    def ours(self) -> bool:
        """Whether the package asked for it."""
        return ":" in self.site


def site() -> str:
    """Whose operation is running: the innermost frame of the package or of a library that trains models."""
    frame = sys._getframe(1)
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(_PACKAGE):
            name = file[len(_PACKAGE) + 1 :]
            if (name, function) not in _ON_THE_WAY:
                return f"{name}:{function}"
        else:
            library = next((each for each in _THEIRS if f"/{each}/" in file), None)
            if library is not None:
                return library
        frame = frame.f_back  # type: ignore[assignment]
    return "test"


@dataclass
class Accounts:
    """Of all stand-in devices of a process; `clear` forgets counts and faults, but not what is allocated.

    Attributes:
        transfers: in their order.
        allocations: since `clear`.
        held: bytes that are allocated now, of each device.
        peak: the most of `held` since `clear`, or since the module's `reset_peak_memory_stats`.
        fails_at: the allocation, counted from 1, at which memory runs out, once.
        fails_in: memory runs out wherever a site contains this.
        lost_after: operations after which the device is gone.
        breaks_after: operations after which a kernel fails, and with it every later call.
        broken: after an index out of range, what every later call raises.
        float64: whether the device has it.
    """

    transfers: list[Transfer] = field(default_factory=list)
    allocations: int = 0
    held: Counter[int] = field(default_factory=Counter)
    peak: Counter[int] = field(default_factory=Counter)
    fails_at: int = 0
    fails_in: str = ""
    lost_after: int = -1
    breaks_after: int = -1
    broken: str = ""
    float64: bool = True

    def clear(self) -> None:
        self.transfers.clear()
        self.allocations = self.fails_at = 0
        self.fails_in = ""
        self.lost_after = self.breaks_after = -1
        self.broken, self.float64 = "", True
        self.peak = Counter(self.held)

    def note(self, kind: str, *, blocking: bool, size: int = 0) -> None:
        self.transfers.append(Transfer(kind, blocking, site(), size))

    def blocking(self, *, ours: bool = True) -> Counter[str]:
        """How often the processor waited, by "site kind"."""
        found = (each for each in self.transfers if each.blocking and each.ours is ours)
        return Counter(f"{each.site} {each.kind}" for each in found)

    def operation(self, name: str) -> None:
        """An operation begins.

        Raises:
            RuntimeError: the device is gone, or one of its kernels has failed before.
        """
        if self.lost_after == 0:
            raise RuntimeError(f"standin error: the device is gone ({name})")
        if self.breaks_after == 0:
            self.broken = "standin error: device-side assert triggered"
        self.lost_after -= self.lost_after > 0
        self.breaks_after -= self.breaks_after > 0
        if self.broken:
            raise RuntimeError(self.broken)

    def allocate(self, index: int, size: int) -> None:
        """Memory is wanted.

        Raises:
            torch.OutOfMemoryError: it has run out.
        """
        self.allocations += 1
        if self.allocations == self.fails_at or (self.fails_in and self.fails_in in site()):
            raise torch.OutOfMemoryError(f"standin out of memory: tried to allocate {size} bytes")
        self.held[index] += size
        self.peak[index] = max(self.peak[index], self.held[index])

    def release(self, index: int, size: int) -> None:
        self.held[index] -= size


ACCOUNTS = Accounts()
