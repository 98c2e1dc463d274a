"""Numbers that lie on a device, read some time after they were put there, without waiting for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.devices import copied_late

_ROWS, _SECONDS = 16, 0.5  # copied to the host together: so many, or those of so long

Value = float | Tensor | None
Values = list[float | None]


class LateReading:
    """Rows of numbers, given one by one, and had back in the same order once the device has got to them.

    What is given is copied at once, on its device, into one small tensor a row. Every 16 rows or half a second these
    are copied together into pinned memory, and read when the device says that the copy is done. On the CPU there is
    nothing to wait for; from a device that cannot copy like that (MPS) a row is had back by `all` only.
    """

    def __init__(self) -> None:
        self._given: list[_Row] = []
        self._under_way: list[_Copies] = []
        self._started = time.monotonic()

    def give(self, row: Sequence[Value]) -> None:
        """Add a row.

        Args:
            row: numbers, tensors of one element that need no gradient, or None for what is unknown.
        """
        values: Values = []
        alike: dict[Any, tuple[list[int], list[Tensor]]] = {}  # those that can be copied together
        for place, value in enumerate(row):
            if isinstance(value, Tensor):
                places, tensors = alike.setdefault((value.device, value.dtype), ([], []))
                places.append(place)
                tensors.append(value if value.ndim == 0 else value.reshape(()))
                value = None
            values.append(value)
        self._given.append(_Row(values, [(places, torch.stack(tensors)) for places, tensors in alike.values()]))

    def ready(self) -> list[Values]:
        """The rows that can be had by now, oldest first; never waits."""
        now = time.monotonic()
        if len(self._given) >= _ROWS or (self._given and now - self._started >= _SECONDS):
            self._start(now)
        found: list[Values] = []
        while self._under_way and self._under_way[0].done():
            found += self._under_way.pop(0).rows()
        return found

    def all(self, *, but_newest: bool = False) -> list[Values]:
        """All rows, oldest first. Waits for the devices.

        Args:
            but_newest: leave the newest row here, where it still is, for `complete`.
        """
        kept = self._given[-1:] if but_newest else []
        del self._given[len(self._given) - len(kept) :]
        self._start(time.monotonic())
        self._given = kept
        under_way, self._under_way = self._under_way, []
        return [row for copies in under_way for row in copies.rows()]

    def complete(self, place: int, value: float) -> None:
        """Put a number where the newest row has none, while it is still here."""
        if self._given and self._given[-1].values[place] is None:
            self._given[-1].values[place] = value

    def _start(self, now: float) -> None:
        self._started = now
        if self._given:
            given, self._given = self._given, []
            self._under_way.append(_Copies(given))


class _Row:
    """A row: what is known of it already, and on each device, at which places its other values belong."""

    def __init__(self, values: Values, parts: list[tuple[list[int], Float[Tensor, " _"]]]) -> None:
        self.values = values
        self.parts = parts


class _Copies:
    """Rows on their way to the host, with one copy from each device."""

    def __init__(self, rows: list[_Row]) -> None:
        self._rows = rows
        on_device: dict[torch.device, list[Tensor]] = {}
        for row in rows:
            for _, part in row.parts:
                on_device.setdefault(part.device, []).append(part)
        self._copied: dict[torch.device, tuple[Tensor, Any]] = {
            # tensors of several types give one of the widest: nothing is rounded
            device: copied_late(torch.cat(parts))
            for device, parts in on_device.items()
        }

    def done(self) -> bool:
        """Whether all of them can be read without waiting."""
        return all(
            copy.device.type == "cpu" and (mark is None or mark.passed()) for copy, mark in self._copied.values()
        )

    def rows(self) -> list[Values]:
        """What has been copied, in its places. Waits where it is not there yet."""
        numbers = {}
        for device, (copy, mark) in self._copied.items():
            if mark is not None:
                mark.wait()
            numbers[device] = iter(copy.tolist())
        for row in self._rows:
            for places, part in row.parts:
                for place in places:
                    row.values[place] = next(numbers[part.device])
        return [row.values for row in self._rows]
