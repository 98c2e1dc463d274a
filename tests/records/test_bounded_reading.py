"""However large the files of a run's folder are, reading them takes little memory and time, and waits for nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from hostile_records import archive_of, npy, vouched
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.config import TopologyConfig
from topo_callback.errors import ProbeError, RecordError, TopologyError
from topo_callback.probe.files import read_rows
from topo_callback.records.folder import MOST_OF_JOURNAL, TrajectoryFolder
from topo_callback.records.record import decode_record
from topo_callback.records.training_steps import COLUMNS, StepsWriter
from topo_callback.scan.checkpoint import Checkpoint, CheckpointSeries
from topo_callback.scan.training_left import recorded_reading
from topo_callback.scan.unit import skipped_file, skipped_reason, units_folder
from topo_callback.watching.resuming import recorded_batches

TERABYTE = 1 << 40
LIMIT = 64 << 20  # bytes that reading any of these may take


@contextmanager
def little(seconds: float = 10.0, memory: int = LIMIT) -> Iterator[None]:
    """What is inside ends in time and takes little memory; a call that waits for ever is interrupted."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sparse(path: Path, end: bytes = b"") -> None:
    """A file of a terabyte that takes no place on the disk."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(TERABYTE)
        file.seek(0, os.SEEK_END)
        file.write(end)


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def nested(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(b"[" * (4 << 20))


STRANGE = [sparse, endless, pipe, nested]


@pytest.fixture
def run(tmp_path: Path) -> TrajectoryFolder:
    """A measured run, named by `latest` in an output_dir."""
    config = TopologyConfig(neighbours=3, pictures=0)
    folder = write_trajectory(tmp_path / "topology" / "a-run", (0, 1), layers=(1, 2), points=12, config=config)
    folder.name_newest()
    return folder


@pytest.mark.parametrize("make", STRANGE)
def test_a_run_file_of_any_size_is_refused(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    make(run.run_file)
    with little(), pytest.raises(RecordError):
        Trajectory.load(run.path)
    with little():
        assert main(["events", str(run.path)]) == 2


@pytest.mark.parametrize("make", STRANGE)
def test_a_journal_of_any_size_has_its_last_lines(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    make(run.journal_file)
    with little():
        assert Trajectory.load(run.path).steps == (0, 1)


def link(path: Path) -> None:
    real = path.rename(path.with_name("elsewhere"))
    path.symlink_to(real)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty_lines(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n" * (20 << 20))


@pytest.mark.parametrize("make", [*STRANGE, link, folder, empty_lines])
def test_a_strange_table_of_training_steps_is_refused(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    row = (0.0, *[None] * (len(COLUMNS) - 1))
    StepsWriter(run.training_steps).append([row])
    make(run.training_steps)
    trajectory = Trajectory.load(run.path)  # which does not need it
    with little(), pytest.raises(RecordError, match=r"^steps\.csv: "):
        trajectory.training_steps()
    with little(), pytest.raises(RecordError, match=r"^steps\.csv: "):
        run.drop_after(0)
    assert run.steps(run.samples) == [0, 1]  # nothing has been dropped


def test_of_a_long_journal_the_newest_lines_count(run: TrajectoryFolder, caplog: pytest.LogCaptureFixture) -> None:
    sparse(run.journal_file, b'\n{"event": "started"}\n{"event": "finished"}\n')
    with little(), caplog.at_level(logging.WARNING, logger="topo_callback"):
        trajectory = Trajectory.load(run.path)
    assert [entry["event"] for entry in trajectory.journal] == ["started", "finished"]
    assert "of its lines the newest 16 MiB are read" in caplog.text
    with run.journal_file.open("wb") as file:  # lines beyond the limit, the first of them cut in two
        line = b'{"event": "resumed", "of": "%s"}\n' % (b"x" * 1000)
        for _ in range(MOST_OF_JOURNAL // len(line) + 10):
            file.write(line)
    assert {entry["event"] for entry in run.journal()} == {"resumed"}


@pytest.mark.parametrize("make", STRANGE)
def test_names_of_runs_are_short(make: Callable[[Path], None], run: TrajectoryFolder, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    make(checkpoint / "topo_callback.json")
    series = CheckpointSeries("run", "x", (Checkpoint(str(checkpoint), step=1),))
    with little():
        recorded_reading(series)
        recorded_batches(run.path.parent, checkpoint)
    make(run.path.parent / "latest")
    with little(), pytest.raises(RecordError, match="no trajectory"):
        TrajectoryFolder.find(tmp_path)


@pytest.mark.parametrize("make", STRANGE)
def test_kept_prompts_of_any_size_are_refused(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    make(run.prompts)
    with little(), pytest.raises(TopologyError, match=r"prompts\.jsonl|prompts .* cannot be read"):
        read_rows(run.path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_prompts_that_are_nested_too_deep_are_refused(suffix: str, tmp_path: Path) -> None:
    file = (tmp_path / "prompts").with_suffix(suffix)
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(ProbeError, match="cannot be read"):
        read_rows(file)


@pytest.mark.parametrize("make", STRANGE)
def test_the_reason_of_a_skipped_checkpoint_is_short(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    units_folder(run.path).mkdir()
    make(skipped_file(run.path, 1))
    with little():
        assert skipped_reason(run.path, 1) is None


@pytest.mark.parametrize("make", STRANGE)
def test_samples_of_any_size_are_named(make: Callable[[Path], None], run: TrajectoryFolder) -> None:
    make(run.step_file(run.samples, 1))
    with little():
        assert list(Trajectory.load(run.path).damaged) == ["step-00000001.npz"]


def directory_of(members: int, *, long: bool) -> bytes:
    """A record that lists many members and has none, with the right checksum."""
    listed = (b"PK\1\2" + bytes(42)) * members
    data = archive_of([])
    data = data[data.index(b"PK\5\6") :]
    end = bytearray(data)
    end[8:20] = struct.pack("<HHLL", 0xFFFF, 0xFFFF, 0xFFFFFFFF if long else len(listed), 0)
    before = b""
    if long:
        before = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, members, members, len(listed), 0)
        before += struct.pack("<4sLQL", b"PK\6\7", 0, len(listed), 1)
    return vouched(listed + before + bytes(end))


@pytest.mark.parametrize("long", [False, True])
def test_a_list_of_members_is_not_read_beyond_any_record(long: bool) -> None:
    data = directory_of(400_000, long=long)
    with little(), pytest.raises(RecordError, match="a list of members of 18400000 bytes"):
        decode_record(data, "list")


def test_a_manifest_is_not_read_beyond_any_record() -> None:
    text = json.dumps({"schema": 1, "x": [[]] * (3 << 20)}).encode()
    data = archive_of([("manifest.npy", npy(np.frombuffer(text, dtype=np.uint8)))])
    with little(), pytest.raises(RecordError, match=f"a manifest of {len(text)} bytes"):
        decode_record(data, "manifest")
