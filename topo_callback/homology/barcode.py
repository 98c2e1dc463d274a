"""Barcode: the bars of a persistence module, in one canonical order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True, eq=False)
class Barcode:
    """A multiset of half-open bars [birth, death), each with its homological dimension.

    Bars of zero length are dropped and the rest are sorted by (dimension, birth, death), so two barcodes are equal as
    multisets exactly when their arrays are equal. A bar that never dies has death `inf` (Vietoris-Rips); zigzag bars
    carry complex indices and always die.

    Attributes:
        dimension: int64 [bars], the homological dimension of each bar.
        birth: float64 [bars].
        death: float64 [bars], greater than birth, `inf` allowed.

    Raises:
        ValueError: lengths differ, a value is NaN, or a death lies before its birth.
    """

    dimension: Int64[np.ndarray, " bars"]
    birth: Float64[np.ndarray, " bars"]
    death: Float64[np.ndarray, " bars"]

    def __post_init__(self) -> None:
        dimension = np.asarray(self.dimension, dtype=np.int64).reshape(-1)
        birth = np.asarray(self.birth, dtype=np.float64).reshape(-1)
        death = np.asarray(self.death, dtype=np.float64).reshape(-1)
        if not dimension.size == birth.size == death.size:
            raise ValueError(
                "a barcode needs equally many dimensions, births and deaths; got "
                f"{dimension.size}, {birth.size}, {death.size}"
            )
        wrong = np.flatnonzero(~(birth <= death))
        if wrong.size:
            first = int(wrong[0])
            raise ValueError(
                f"bar {first} is [{birth[first]}, {death[first]}); a bar dies at or after its birth and neither is NaN"
            )
        kept = birth < death
        dimension, birth, death = dimension[kept], birth[kept], death[kept]
        order = np.lexsort((death, birth, dimension))
        for name, values in (("dimension", dimension), ("birth", birth), ("death", death)):
            ordered = values[order]
            ordered.setflags(write=False)
            object.__setattr__(self, name, ordered)

    @classmethod
    def ordered(
        cls,
        dimension: Int64[np.ndarray, " bars"],
        birth: Float64[np.ndarray, " bars"],
        death: Float64[np.ndarray, " bars"],
    ) -> Barcode:
        """The barcode of bars that are known to be valid, of positive length and in the canonical order; no copy."""
        barcode = object.__new__(cls)
        for name, values in (("dimension", dimension), ("birth", birth), ("death", death)):
            values.setflags(write=False)
            object.__setattr__(barcode, name, values)
        return barcode

    @classmethod
    def from_diagrams(cls, diagrams: Iterable[np.ndarray]) -> Barcode:
        """The barcode of one [bars, 2] array (birth, death) for each dimension 0, 1, ..."""
        arrays = [np.asarray(diagram, dtype=np.float64).reshape(-1, 2) for diagram in diagrams]
        if not arrays:
            return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))
        bars = np.concatenate(arrays)
        dimension = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
        return cls(dimension, bars[:, 0], bars[:, 1])

    def of(self, dimension: int) -> Float64[np.ndarray, "bars 2"]:
        """The bars of one dimension as rows (birth, death)."""
        chosen = self.dimension == dimension
        return np.stack([self.birth[chosen], self.death[chosen]], axis=1)

    def __len__(self) -> int:
        return int(self.dimension.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Barcode):
            return NotImplemented
        return (
            np.array_equal(self.dimension, other.dimension)
            and np.array_equal(self.birth, other.birth)
            and np.array_equal(self.death, other.death)
        )

    def __hash__(self) -> int:
        return hash((self.dimension.tobytes(), self.birth.tobytes(), self.death.tobytes()))

    def __repr__(self) -> str:
        counts = ", ".join(f"H{d}: {int(np.sum(self.dimension == d))}" for d in np.unique(self.dimension))
        return f"Barcode({counts or 'empty'})"
