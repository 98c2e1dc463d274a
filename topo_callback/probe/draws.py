"""Draws: random choices that are the same on every platform, in every version, and for every prompt by itself."""

from __future__ import annotations

import numpy as np


class Draws:
    """Random choices from raw 64-bit draws of PCG64, whose stream numpy guarantees across versions.

    An own generator: no global state is read or moved.

    Args:
        numbers: what the stream depends on, each at least 0: a seed, a view, a prompt, ...
    """

    def __init__(self, *numbers: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(numbers))

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1, uniform up to limit / 2^64."""
        return int(self._bits.random_raw()) % limit

    def chance(self, share: float) -> bool:
        """True with a probability of `share`, to 53 bits."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53 < share

    def order(self, count: int) -> list[int]:
        """The numbers 0 to `count` - 1 in a random order."""
        keys = self._bits.random_raw(count) if count else np.empty(0, np.uint64)
        return [int(place) for place in np.argsort(keys, kind="stable")]
