"""The table of training steps, `steps.csv`: one line for each optimizer step, with what training itself says there.

Tables of other columns by steps, such as that of `logged_numbers`, are written and read in the same way. The first line
names the columns. A number is written as Python's `repr` of a float, `nan` and `inf` among them, since a
loss that is not finite is a fact; an empty field is unknown. Steps ascend. Lines are appended as training goes on, so a
process that is killed leaves at most one torn line, the last one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from topo_callback.errors import RecordError
from topo_callback.records.files import open_plain, read_end

COLUMNS = (
    "step", "loss", "grad_norm", "moved", "learning_rate", "largest_learning_rate", "planned", "largest_planned",
    "skipped", "epoch",
)  # fmt: skip
MOST_READ = 32 << 20  # bytes of the table that are read: about 250,000 steps
_MOST_KEPT = 1 << 16  # lines in memory while the disk takes none
_NUMBER = rb"(-?[0-9]{1,25}(\.[0-9]{1,25})?(e[+-][0-9]{1,3})?|nan|-?inf)?"
_MOST_OF_A_LINE = 1 << 12  # bytes
logger = logging.getLogger("topo_callback")

Row = Sequence[float | None]
"""One line: a value for each of the columns, None where it is unknown; the first is the step."""


@dataclass(frozen=True, eq=False)
class TrainingSteps:
    """Optimizer steps and what was recorded of them.

    Attributes:
        step: ascending.
        values: the other columns, in their order; NaN where unknown, and where a value was not a number.
        known: False where a value is unknown.
        columns: their names, the first of them `step`.
    """

    step: Int64[np.ndarray, " steps"]
    values: Float64[np.ndarray, "steps columns"]
    known: Bool[np.ndarray, "steps columns"]
    columns: tuple[str, ...] = COLUMNS

    @classmethod
    def of(cls, rows: Sequence[Row], columns: tuple[str, ...] = COLUMNS) -> TrainingSteps:
        """The steps of lines; their steps ascend."""
        known = np.array([[value is not None for value in row] for row in rows], dtype=bool).reshape(-1, len(columns))
        values = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
        values = values.reshape(-1, len(columns))
        return cls(values[:, 0].astype(np.int64), values[:, 1:], known[:, 1:], columns)

    def followed_by(self, other: TrainingSteps) -> TrainingSteps:
        """These steps and later ones."""
        parts = ((self.step, other.step), (self.values, other.values), (self.known, other.known))
        step, values, known = map(np.concatenate, parts)
        return TrainingSteps(step, values, known, self.columns)

    def last(self, count: int) -> TrainingSteps:
        """The last of these steps."""
        first = max(0, len(self.step) - count)
        return TrainingSteps(self.step[first:], self.values[first:], self.known[first:], self.columns)

    def column(self, name: str) -> Float64[np.ndarray, " steps"]:
        """One of the columns behind the first, by its name."""
        found: np.ndarray = self.values[:, self.columns.index(name) - 1]
        return found


class StepsWriter:
    """Appends lines to one table, on a thread that may wait for the disk; what it refuses is tried again with the next.

    Args:
        path: the table; it need not exist.
        columns: its columns.
    """

    def __init__(self, path: Path, columns: tuple[str, ...] = COLUMNS) -> None:
        self._path, self._columns = path, columns
        self._kept: list[Row] = []

    def append(self, rows: Sequence[Row]) -> None:
        """Append lines, and those that could not be appended before; of very many the oldest are lost.

        Raises:
            OSError: the disk refuses. RecordError: the table is no regular file, or has other columns.
        """
        self._kept = [*self._kept, *rows][-_MOST_KEPT:]
        _append(self._path, b"".join(map(_line, self._kept)), self._columns)
        self._kept = []


def read_training_steps(path: Path, columns: tuple[str, ...] = COLUMNS) -> TrainingSteps:
    """A table of such columns, or the newest `MOST_READ` bytes of it; no steps where there is none.

    A torn last line is left out.

    Raises:
        RecordError: it is no regular file, or has a line that is not of such a table.
        OSError: it cannot be read.
    """
    try:
        data, before = read_end(path, MOST_READ)
    except FileNotFoundError:
        data, before = b"", 0
    if before:
        logger.warning("%s: of its lines the newest %d MiB are read", path, MOST_READ >> 20)
    lines = _whole_lines(data, before, path.name, columns)
    count = data.count(b"\n", lines.tell())
    least_of_a_line = len(columns) + 1
    if count * least_of_a_line > len(data):
        raise RecordError(f"{path.name}: it has lines that are not training steps")
    values = np.full((count, len(columns)), np.nan)
    known = np.zeros((count, len(columns)), dtype=bool)
    expected = re.compile(rb"[0-9]{1,15}(," + _NUMBER + rb"){%d}" % (len(columns) - 1))
    for number in range(count):
        line = lines.readline(_MOST_OF_A_LINE).rstrip(b"\n")
        if not expected.fullmatch(line):
            raise RecordError(f"{path.name}: {_place(number, before)} is not a training step")
        for place, field in enumerate(line.split(b",")):
            if field:
                values[number, place] = float(field)
                known[number, place] = True
    step = values[:, 0].astype(np.int64)
    if np.any(np.diff(step) <= 0):
        odd = _place(int(np.argmax(np.diff(step) <= 0)) + 1, before)
        raise RecordError(f"{path.name}: {odd} has a step that is not later than that of the line before")
    return TrainingSteps(step, values[:, 1:], known[:, 1:], columns)


def drop_training_steps(path: Path, last: int, columns: tuple[str, ...] = COLUMNS) -> None:
    """Remove the lines of later steps than `last`, and a torn last line; where there is no table nothing is done.

    Raises:
        RecordError, OSError: as `bytes_up_to`. OSError: it cannot be written.
    """
    size = bytes_up_to(path, last, columns)
    if size is not None:
        descriptor = open_plain(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def bytes_up_to(path: Path, last: int, columns: tuple[str, ...] = COLUMNS) -> int | None:
    """How long the table is without the lines of later steps than `last` and a torn last line; None if there is none.

    Raises:
        RecordError: it is no regular file, is no such table, or has more than `MOST_READ` bytes of later steps.
        OSError: it cannot be read.
    """
    try:
        data, before = read_end(path, MOST_READ)
    except FileNotFoundError:
        return None
    lines = _whole_lines(data, before, path.name, columns)
    kept = first = lines.tell()
    for number, line in enumerate(lines):
        digits, comma, _ = line[:16].partition(b",")
        if not line.endswith(b"\n"):
            break
        if not comma or not digits.isdigit():
            raise RecordError(f"{path.name}: {_place(number, before)} is not a training step")
        if int(digits) > last:
            break
        kept += len(line)
    if before and kept == first:
        raise RecordError(f"{path.name}: more than {MOST_READ >> 20} MiB of it are of later steps than {last}")
    return before + kept


def _line(row: Row) -> bytes:
    step, *others = row
    assert step is not None
    return ",".join([str(int(step)), *("" if each is None else repr(float(each)) for each in others)]).encode() + b"\n"


def _header(columns: tuple[str, ...]) -> bytes:
    return ",".join(columns).encode() + b"\n"


def _append(path: Path, lines: bytes, columns: tuple[str, ...]) -> None:
    """Write lines behind the last whole one, the header before them in a table that is new; all of them or none."""
    header = _header(columns)
    descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, len(header), 0) != header[: min(size, len(header))]:
            raise RecordError(f"{path.name}: its first line does not name these columns: {','.join(columns)}")
        end = os.pread(descriptor, _MOST_OF_A_LINE, max(0, size - _MOST_OF_A_LINE))
        if len(end) == _MOST_OF_A_LINE and b"\n" not in end:
            raise RecordError(f"{path.name}: its end is not a training step")
        whole = size - len(end) + end.rfind(b"\n") + 1
        data = memoryview(lines if whole else header + lines)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], whole + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, whole)
            raise
        if whole + len(data) < size:
            os.ftruncate(descriptor, whole + len(data))
    finally:
        os.close(descriptor)


def _whole_lines(data: bytes, before: int, name: str, columns: tuple[str, ...]) -> io.BytesIO:
    """The bytes from the first line of a step on: behind the header, or behind a line that was cut in two."""
    lines = io.BytesIO(data)
    first = lines.readline(_MOST_OF_A_LINE)
    if before:
        if not first.endswith(b"\n"):
            raise RecordError(f"{name}: it is not a table of training steps")
    elif first != _header(columns)[: len(first)]:
        raise RecordError(f"{name}: its first line does not name these columns: {','.join(columns)}")
    return lines


def _place(number: int, before: int) -> str:
    return f"line {number + 2}" if not before else f"line {number + 1} of those that are read"
