# mypy: disable-error-code="no-untyped-def"
"""A set of small numbers with fast toggle and smallest element, for columns over Z/2. Kernels for numba.

The bit tree of PHAT (Bauer, Kerber, Reininghaus, Wagner, J. Symbolic Computation 78, 2017): one bit per number, and
above 64 words one word whose bits say which of them are not empty. Functions are without annotations for numba.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, kernel, trailing_zeros

SHIFT = np.uint64(6)
SIX_BITS = np.uint64(63)
ONE = np.uint64(1)


@kernel
def new_bit_tree(size):
    """A set of numbers below `size` with fast smallest element: (words, offsets of its levels, leaves first)."""
    offsets = np.zeros(12, np.int64)
    level = 0
    width = size
    while True:
        width = (width + 63) // 64
        offsets[level + 1] = offsets[level] + max(width, 1)
        level += 1
        if width <= 1:
            break
    return np.zeros(offsets[level], np.uint64), offsets[: level + 1]


@kernel
def toggle(words, offsets, number):
    """Put the number in when it is out, take it out when it is in."""
    place = np.uint64(number)
    for level in range(offsets.size - 1):
        word = offsets[level] + np.int64(place >> SHIFT)
        before = words[word]
        after = before ^ (ONE << (place & SIX_BITS))
        words[word] = after
        # The levels above only say which words are not empty.
        if (before == 0) == (after == 0):
            return
        place >>= SHIFT


@kernel
def smallest(words, offsets):
    """The smallest number in the set, -1 when it is empty."""
    top = offsets.size - 2
    if words[offsets[top]] == 0:
        return -1
    place = 0
    for level in range(top, -1, -1):
        place = place * 64 + trailing_zeros(words[offsets[level] + place])
    return place


@kernel
def take_all(words, offsets, entries, used):
    """Move the set, smallest first, to the end of the pool: (pool, its used length)."""
    number = smallest(words, offsets)
    while number >= 0:
        if used == entries.size:
            entries = grown(entries, used, 2 * used + 16)
        entries[used] = number
        used += 1
        toggle(words, offsets, number)
        number = smallest(words, offsets)
    return entries, used
