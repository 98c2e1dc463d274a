"""A record is whole or not at all: torn files and flipped bytes are noticed, equal content gives equal bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo_callback.errors import RecordError
from topo_callback.records.record import SCHEMA, decode_record, encode_record, read_record, write_record, write_whole

ARRAYS = {"values": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty((0, 2), dtype=np.int8)}
MANIFEST = {"step": 7, "name": "é"}
DATA = encode_record(ARRAYS, MANIFEST)


@pytest.mark.parametrize("compress", [False, True])
def test_a_record_comes_back_as_it_was(compress: bool) -> None:
    arrays, manifest = decode_record(encode_record(ARRAYS, MANIFEST, compress=compress), "record")
    assert manifest == {"schema": SCHEMA, **MANIFEST}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_numpy_alone_can_read_a_record(tmp_path: Path) -> None:
    write_record(tmp_path / "record.npz", ARRAYS, MANIFEST)
    with np.load(tmp_path / "record.npz") as archive:
        np.testing.assert_array_equal(archive["values"], ARRAYS["values"])


def test_equal_content_gives_equal_bytes() -> None:
    assert encode_record(ARRAYS, MANIFEST) == DATA


def test_fault_8_a_record_torn_at_any_offset_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(RecordError, match="torn"):
            decode_record(DATA[:length], "torn")


def test_fault_8_any_flipped_byte_is_noticed() -> None:
    for offset in range(len(DATA)):
        changed = bytearray(DATA)
        changed[offset] ^= 0x40
        with pytest.raises(RecordError, match="flipped"):
            decode_record(bytes(changed), "flipped")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match="no record of topo_callback"):
        decode_record(data, "foreign")


def test_a_record_of_a_newer_schema_is_refused_with_both_numbers() -> None:
    newer = encode_record({}, {"schema": SCHEMA + 1})
    with pytest.raises(RecordError, match=f"schema {SCHEMA + 1} is newer than {SCHEMA}"):
        decode_record(newer, "newer")


def test_objects_are_never_unpickled() -> None:
    with pytest.raises(ValueError, match="[Oo]bject arrays"):
        encode_record({"objects": np.array([{}], dtype=object)}, {})


def test_fault_7_a_record_is_synced_renamed_and_the_folder_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        real_fsync(descriptor)

    def replace(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        calls.append("rename")
        real_replace(source, target)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell a file from a folder by its descriptor")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_record(tmp_path / "record.npz", ARRAYS, MANIFEST)
    assert calls == ["sync file", "rename", "sync folder"]


def test_fault_9_a_full_disk_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.npz"
    write_whole(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.npz"]


def test_reading_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.npz").write_bytes(b"nonsense")
    with pytest.raises(RecordError, match="step-00000001.npz"):
        read_record(tmp_path / "step-00000001.npz")
