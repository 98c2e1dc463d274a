"""Spans of vectors over Z/2, each vector one Python integer whose bits are its entries."""

from __future__ import annotations

from collections.abc import Iterable


class Span:
    """The span of vectors, as an echelon basis: one vector for each highest bit."""

    def __init__(self, vectors: Iterable[int] = ()) -> None:
        self._by_highest_bit: dict[int, int] = {}
        for vector in vectors:
            self.add(vector)

    def __len__(self) -> int:
        """The dimension."""
        return len(self._by_highest_bit)

    def __contains__(self, vector: int) -> bool:
        return self._remainder(vector) == 0

    @property
    def basis(self) -> list[int]:
        """One basis, by falling highest bit."""
        return [self._by_highest_bit[bit] for bit in sorted(self._by_highest_bit, reverse=True)]

    @property
    def leading(self) -> frozenset[int]:
        """The highest bits of the basis: the bits that normal forms do not have."""
        return frozenset(self._by_highest_bit)

    def add(self, vector: int) -> bool:
        """Add a vector; False when it was in the span already."""
        rest = self._remainder(vector)
        if rest:
            self._by_highest_bit[rest.bit_length() - 1] = rest
        return rest != 0

    def normal_form(self, vector: int) -> int:
        """The one vector that differs from the given one by something in the span and has no leading bit."""
        form = 0
        while vector:
            bit = vector.bit_length() - 1
            if bit in self._by_highest_bit:
                vector ^= self._by_highest_bit[bit]
            else:
                form |= 1 << bit
                vector ^= 1 << bit
        return form

    def _remainder(self, vector: int) -> int:
        while vector:
            found = self._by_highest_bit.get(vector.bit_length() - 1)
            if found is None:
                return vector
            vector ^= found
        return 0


def preimage(images: dict[int, int], span: Span, width: int) -> Span:
    """The vectors that a linear map sends into a span.

    Args:
        images: where the map sends the vector with one bit, by that bit.
        span: of vectors that the map may give.
        width: more than every bit of `images`.
    """
    rows = Span(vector << width for vector in span.basis)
    for bit, image in images.items():
        rows.add(image << width | 1 << bit)
    return Span(vector for vector in rows.basis if vector.bit_length() <= width)


def intersection(one: Span, other: Span, width: int) -> Span:
    """The vectors in both spans, whose bits are all below `width` (Zassenhaus)."""
    rows = Span(vector << width for vector in other.basis)
    for vector in one.basis:
        rows.add(vector << width | vector)
    return Span(vector for vector in rows.basis if vector.bit_length() <= width)
