"""The table of training steps: what is written is read, what is torn is left out, what is hostile is refused."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError
from topo_callback.records import training_steps
from topo_callback.records.training_steps import (
    COLUMNS,
    Row,
    StepsWriter,
    drop_training_steps,
    read_training_steps,
)

HEADER = ",".join(COLUMNS).encode() + b"\n"
OTHERS = len(COLUMNS) - 1


def row(step: int, *values: float | None) -> Row:
    return (float(step), *values, *[None] * (OTHERS - len(values)))


def steps_of(path: Path) -> list[int]:
    found: list[int] = read_training_steps(path).step.tolist()
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "steps.csv"
    StepsWriter(path).append([row(step, 0.5 * step) for step in range(1, 6)])
    return path


rows = st.lists(st.lists(st.none() | st.floats(), min_size=OTHERS, max_size=OTHERS), max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(rows, max_size=3))
def test_every_number_comes_back_as_it_was(parts: list[list[list[float | None]]], tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.unlink(missing_ok=True)
    writer, expected = StepsWriter(path), []
    for part in parts:
        numbered: list[Row] = [(float(len(expected) + i), *values) for i, values in enumerate(part)]
        writer.append(numbered)
        expected += numbered
    found = read_training_steps(path)
    assert found.step.tolist() == [each[0] for each in expected]
    for number, each in enumerate(expected):
        for place, value in enumerate(each[1:]):
            assert found.known[number, place] == (value is not None)
            again = float(found.values[number, place])
            assert math.isnan(again) if value is None or math.isnan(value) else again == value


def test_a_frame_tells_what_is_unknown_from_what_is_no_number(tmp_path: Path) -> None:
    folder = write_trajectory(
        tmp_path / "run",
        (0, 1),
        layers=(1, 2),
        points=12,
        config=TopologyConfig(neighbours=3, pictures=0, engine="gudhi", zigzag_engine="off"),
    )
    assert Trajectory.load(tmp_path / "run").training_steps().shape == (0, len(COLUMNS))
    StepsWriter(folder.training_steps).append([row(1, math.nan, math.inf), (2.0, *[0.5] * 7, 1.0, 0.5)])
    frame = Trajectory.load(tmp_path / "run").training_steps()
    assert tuple(frame.columns) == COLUMNS
    assert frame["loss"].isna().tolist() == [False, False]
    assert math.isnan(frame["loss"][0])
    assert frame["grad_norm"].tolist() == [math.inf, 0.5]
    assert frame["moved"].isna().tolist() == [True, False]
    assert frame["skipped"].tolist()[1] is True


@pytest.mark.parametrize("cut", [1, 2, 5, 40])
def test_a_torn_last_line_is_left_out_and_written_over(cut: int, table: Path) -> None:
    data = table.read_bytes()
    table.write_bytes(data[:-cut])
    kept = data[:-cut].count(b"\n") - 1
    assert steps_of(table) == list(range(1, kept + 1))
    StepsWriter(table).append([row(9)])
    assert steps_of(table) == [*range(1, kept + 1), 9]


@pytest.mark.parametrize("length", range(0, len(HEADER), 9))
def test_a_torn_header_is_no_table_yet(length: int, table: Path) -> None:
    table.write_bytes(HEADER[:length])
    assert steps_of(table) == []
    drop_training_steps(table, 3)
    StepsWriter(table).append([row(1)])
    assert steps_of(table) == [1]


def test_later_steps_are_dropped_and_come_again(table: Path) -> None:
    before = table.read_bytes()
    drop_training_steps(table, 9)
    assert table.read_bytes() == before
    with table.open("ab") as file:
        file.write(b"6,0.")  # torn
    drop_training_steps(table, 3)
    assert steps_of(table) == [1, 2, 3]
    StepsWriter(table).append([row(4, 7.0)])
    assert read_training_steps(table).column("loss").tolist() == [0.5, 1.0, 1.5, 7.0]
    drop_training_steps(table, -1)
    assert table.read_bytes() == HEADER
    drop_training_steps(table.with_name("none.csv"), 1)


def test_a_disk_that_takes_nothing_leaves_the_table_whole_and_gets_the_lines_later(table: Path) -> None:
    before, write = table.read_bytes(), os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if offset == len(before):
            return write(descriptor, data[:7], offset)  # what is left on the disk
        raise OSError(errno.ENOSPC, "full")

    writer = StepsWriter(table)
    with mock.patch("os.pwrite", full), pytest.raises(OSError, match="full"):
        writer.append([row(6)])
    assert table.read_bytes() == before
    writer.append([row(7)])
    assert steps_of(table) == [1, 2, 3, 4, 5, 6, 7]


def test_while_the_disk_takes_nothing_memory_is_bounded(tmp_path: Path) -> None:
    writer = StepsWriter(tmp_path / "gone" / "steps.csv")
    with mock.patch.object(training_steps, "_MOST_KEPT", 10):
        for step in range(30):
            with pytest.raises(FileNotFoundError):
                writer.append([row(step)])
        (tmp_path / "gone").mkdir()
        writer.append([row(30)])
    assert steps_of(tmp_path / "gone" / "steps.csv") == list(range(21, 31))


COMMAS = b"," * OTHERS


@pytest.mark.parametrize(
    "line",
    [
        b"", b"6", b"6" + COMMAS[1:], b"6" + COMMAS + b",", b"-6" + COMMAS, b"6.0" + COMMAS, b"x" + COMMAS,
        b"6,1_0" + COMMAS[1:], b"6, 1" + COMMAS[1:], b"6,0x1" + COMMAS[1:], b"6,NaN" + COMMAS[1:],
        b"6," + b"9" * 99 + COMMAS[1:],
        "6,٣".encode() + COMMAS[1:], b"6,\x00" + COMMAS[1:], b"5" + COMMAS, b"4" + COMMAS, b"9" * 16 + COMMAS,
        b"6,=cmd()" + COMMAS[1:], b'6,"1"' + COMMAS[1:], b"6" + COMMAS + b"\r",
    ],
)  # fmt: skip
def test_a_line_that_is_none_of_a_table_is_refused(line: bytes, table: Path) -> None:
    table.write_bytes(table.read_bytes() + line + b"\n" + b"77" + COMMAS + b"\n")
    with pytest.raises(RecordError, match=r"^steps\.csv: .*(line 7|training steps)"):
        read_training_steps(table)


@pytest.mark.parametrize("content", [b"\n" * (1 << 20), b"step,loss\n1,2\n", b"\x00" * 100, HEADER * 2])
def test_another_file_of_that_name_is_refused_and_left_as_it_is(content: bytes, table: Path) -> None:
    table.write_bytes(content)
    with pytest.raises(RecordError):
        read_training_steps(table)
    with pytest.raises(RecordError):
        drop_training_steps(table, 0)
    if content != HEADER * 2:
        with pytest.raises(RecordError):
            StepsWriter(table).append([row(1)])
    assert table.read_bytes() == content


def test_of_a_long_table_the_newest_lines_count(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mock.patch.object(training_steps, "MOST_READ", 50):
        assert steps_of(table) == [3, 4, 5]
        assert "of its lines the newest" in caplog.text
        drop_training_steps(table, 4)
        assert steps_of(table)[-1] == 4
        with pytest.raises(RecordError, match="later steps than 0"):
            drop_training_steps(table, 0)
    assert steps_of(table) == [1, 2, 3, 4]
