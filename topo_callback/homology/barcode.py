"""Barcode: the bars of a persistence module, in one canonical order; read also from published files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


def read_published_barcode(path: str | os.PathLike[str]) -> Barcode:
    """A barcode from the published files: rows dimension,birth,death with complexes counted from 1; .gz is unpacked.

    Args:
        path: of a file of Gardinazzi et al., arXiv 2410.11042; it begins with the line "dimension,birth,death".

    Returns:
        The barcode with complexes counted from 0, as `zigzag_persistence` does.

    Raises:
        ValueError: the file has another header, or a row that is no bar; the message names file and row.
    """
    file = Path(path)
    rows = []
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        header = lines.readline().strip()
        if header.replace(" ", "") != "dimension,birth,death":
            raise ValueError(f'{file.name} begins with "{header}"; expected "dimension,birth,death"')
        for number, line in enumerate(lines, 2):
            if line.strip():
                rows.append(_published_bar(line, f"{file.name}, row {number}"))
    dimension, birth, death = np.array(rows, np.int64).reshape(-1, 3).T
    return Barcode(dimension, birth - 1.0, death - 1.0)


def _published_bar(line: str, where: str) -> tuple[int, int, int]:
    try:
        dimension, birth, death = (int(float(part)) if float(part).is_integer() else -1 for part in line.split(","))
    except (ValueError, OverflowError) as error:
        raise ValueError(f'{where} is "{line.strip()}"; expected three whole numbers') from error
    if dimension < 0 or not 1 <= birth < death:
        raise ValueError(f'{where} is "{line.strip()}"; expected a dimension from 0 on and 1 <= birth < death')
    return dimension, birth, death
