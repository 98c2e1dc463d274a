# mypy: disable-error-code="no-untyped-def"
"""Components of the lunes of clouds of at most 256 points: a row of the adjacency is four words, held in registers.

The same relations as `rips_lune_kernels.lune_relations`, in about two thirds of its time. Indices are unsigned, so that
the compiler adds no check for negative ones.
"""

import numpy as np

from topo_callback.homology.bit_kernels import trailing_zeros
from topo_callback.homology.jit_kernels import kernel
from topo_callback.homology.rips_lune_kernels import emit_relations

MOST_SMALL_POINTS = 256
_ONE = np.uint64(1)
_SIX = np.uint64(6)
_WORD = np.uint64(64)
_LAST = np.uint64(63)
_NONE = np.uint64(0)


@kernel
def small_lune_relations(keys, adjacency, codes, start, end):
    """Put in the edges codes[start:end] one by one; where a lune falls apart, emit its relations.

    `adjacency` has four words in each row. Returns int32 [relations, 5], see `rips_lune_kernels.lune_relations`.
    """
    lune, left = np.empty(4, np.uint64), np.empty(4, np.uint64)
    relations = np.empty((256, 5), np.int32)
    count = 0
    for place in range(start, end):
        first = np.uint64(codes[place] >> 16)
        second = np.uint64(codes[place] & 0xFFFF)
        lune0 = adjacency[first, 0] & adjacency[second, 0]
        lune1 = adjacency[first, 1] & adjacency[second, 1]
        lune2 = adjacency[first, 2] & adjacency[second, 2]
        lune3 = adjacency[first, 3] & adjacency[second, 3]
        if lune0 | lune1 | lune2 | lune3:
            # points are numbered from the centre outwards: the first ones of the lune see most of the others
            seed = _lowest(lune0, lune1, lune2, lune3)
            left0 = lune0 & ~adjacency[seed, 0]
            left1 = lune1 & ~adjacency[seed, 1]
            left2 = lune2 & ~adjacency[seed, 2]
            left3 = lune3 & ~adjacency[seed, 3]
            if left0 | left1 | left2 | left3:
                # three more from those in the seed's word that see it
                word = seed >> _SIX
                close = adjacency[first, word] & adjacency[second, word] & adjacency[seed, word]
                close &= close - _ONE
                second_seed = third_seed = fourth_seed = seed
                if close:
                    second_seed = (word << _SIX) + np.uint64(trailing_zeros(close))
                    close &= close - _ONE
                if close:
                    third_seed = (word << _SIX) + np.uint64(trailing_zeros(close))
                    close &= close - _ONE
                if close:
                    fourth_seed = (word << _SIX) + np.uint64(trailing_zeros(close))
                left0 &= ~(adjacency[second_seed, 0] | adjacency[third_seed, 0] | adjacency[fourth_seed, 0])
                left1 &= ~(adjacency[second_seed, 1] | adjacency[third_seed, 1] | adjacency[fourth_seed, 1])
                left2 &= ~(adjacency[second_seed, 2] | adjacency[third_seed, 2] | adjacency[fourth_seed, 2])
                left3 &= ~(adjacency[second_seed, 3] | adjacency[third_seed, 3] | adjacency[fourth_seed, 3])
                # then points left over that see what is visited, until none does
                aside0 = aside1 = aside2 = aside3 = _NONE
                while True:
                    next0, next1, next2, next3 = left0 & ~aside0, left1 & ~aside1, left2 & ~aside2, left3 & ~aside3
                    if not next0 | next1 | next2 | next3:
                        break
                    point = _lowest(next0, next1, next2, next3)
                    row0, row1, row2, row3 = (
                        adjacency[point, 0],
                        adjacency[point, 1],
                        adjacency[point, 2],
                        adjacency[point, 3],
                    )
                    seen = (row0 & lune0 & ~left0) | (row1 & lune1 & ~left1)
                    seen |= (row2 & lune2 & ~left2) | (row3 & lune3 & ~left3)
                    if seen:
                        left0, left1, left2, left3 = left0 & ~row0, left1 & ~row1, left2 & ~row2, left3 & ~row3
                        aside0 = aside1 = aside2 = aside3 = _NONE
                    else:
                        bit = _ONE << (point & _LAST)
                        word = point >> _SIX
                        aside0 |= bit if word == 0 else _NONE
                        aside1 |= bit if word == 1 else _NONE
                        aside2 |= bit if word == 2 else _NONE
                        aside3 |= bit if word == 3 else _NONE
                if left0 | left1 | left2 | left3:
                    lune[0], lune[1], lune[2], lune[3] = lune0, lune1, lune2, lune3
                    left[0], left[1], left[2], left[3] = left0, left1, left2, left3
                    relations, count = emit_relations(
                        keys, adjacency, lune, left, place, np.int64(first), np.int64(second), relations, count
                    )
        adjacency[first, second >> _SIX] |= _ONE << (second & _LAST)
        adjacency[second, first >> _SIX] |= _ONE << (first & _LAST)
    return relations[:count]


@kernel
def _lowest(word0, word1, word2, word3):
    """The number of the lowest of the bits of four words, one of which is set."""
    if word0:
        return np.uint64(trailing_zeros(word0))
    if word1:
        return _WORD + np.uint64(trailing_zeros(word1))
    if word2:
        return _WORD + _WORD + np.uint64(trailing_zeros(word2))
    return _WORD + _WORD + _WORD + np.uint64(trailing_zeros(word3))
