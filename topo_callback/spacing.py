"""Evenly spaced choices, the same rule wherever layers, steps or pictures are chosen."""

from __future__ import annotations


def evenly_spaced(available: int, count: int) -> list[int]:
    """`count` different indices of 0 .. available-1, evenly spaced with both ends; all of them if count is larger.

    One index alone is the last.
    """
    if count >= available:
        return list(range(available))
    if count == 1:
        return [available - 1]
    # integer rounding half up: the same on every platform
    return [(2 * i * (available - 1) + (count - 1)) // (2 * (count - 1)) for i in range(count)]
