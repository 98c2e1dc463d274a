"""The file format of every record: arrays and a manifest in one .npz that vouches for itself.

A record is a standard NumPy .npz (a zip of .npy members, readable with `numpy.load`) whose zip comment holds the
SHA-256 of all bytes before the digest. Its member `manifest` is JSON text. Equal content gives equal bytes. A record
is written to a temporary file beside its target, synced, renamed, and the folder synced: it is there whole or not at
all, and it is durable when `write_record` returns.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from topo_callback.errors import RecordError, described
from topo_callback.homology.machine import memory_here
from topo_callback.records.files import open_plain, read_end, read_plain

SCHEMA = 2  # 1: centroids in float32, no norms, no largest coordinates
_LABEL = b"topo_callback sha256:"
_DIGEST_LENGTH = 64
_MOST_MEMBERS = 1 << 16  # a sample has 10 arrays, references some for each run
_MOST_INFLATION = 100  # records of runs inflate by 3 to 20; what would by more is not deflated when it is written
_ALWAYS_ALLOWED = 64 << 20  # bytes; small records may be nothing but repetition
_MOST_MANIFEST = 8 << 20  # bytes of JSON, which takes up to 20 times as much when it is read
_MOST_DIRECTORY = 16 << 20  # bytes; the list of `_MOST_MEMBERS` members has 10 MB
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal content, equal bytes


def encode_record(arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any], *, compress: bool = False) -> bytes:
    """The bytes of a record.

    Args:
        arrays: named arrays of any plain dtype (no objects); the name `manifest` is taken.
        manifest: JSON-compatible values; `schema` is added.
        compress: deflate the members; not worth it for distances.
    """
    text = json.dumps({"schema": SCHEMA, **manifest}, sort_keys=True, allow_nan=False)
    members = {"manifest": np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1 if compress else None) as archive:
        for name, array in members.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = method if not _is_repetition(array) else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        archive.comment = _LABEL + b"0" * _DIGEST_LENGTH
    view = buffer.getbuffer()
    digest = hashlib.sha256(view[:-_DIGEST_LENGTH]).hexdigest().encode()
    view[-_DIGEST_LENGTH:] = digest
    del view
    return buffer.getvalue()


def _is_repetition(array: np.ndarray) -> bool:
    """Whether an array is so large and so much the same that a reader would take its deflated form for a bomb."""
    if array.nbytes < 1 << 20:
        return False
    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return len(zlib.compress(data.data, 1)) * _MOST_INFLATION < 2 * len(data)


def decode_record(data: bytes, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the manifest of a record's bytes. Nothing in them is executed or unpickled.

    Raises:
        RecordError: the bytes are torn, changed, of another tool or of a newer schema; `name` is in the message.
    """
    body, digest = memoryview(data)[:-_DIGEST_LENGTH], data[-_DIGEST_LENGTH:]
    if bytes(body[-len(_LABEL) :]) != _LABEL:
        raise RecordError(f"{name}: no record of topo_callback, or cut short at {len(data)} bytes")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise RecordError(f"{name}: damaged, its bytes do not match its checksum")
    try:
        arrays = _members(data)
        text = arrays.pop("manifest")
        if text.nbytes > _MOST_MANIFEST:
            raise RecordError(f"a manifest of {text.nbytes} bytes")
        manifest = json.loads(text.tobytes())
    except MemoryError:
        raise
    except RecordError as error:
        raise RecordError(f"{name}: no record of topo_callback: {error}") from error
    except Exception as error:  # a checksum is no proof of origin; foreign zip, .npy and JSON fail in many ways
        raise RecordError(f"{name}: no record of topo_callback ({described(error)})") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int:
        raise RecordError(f"{name}: no record of topo_callback, its manifest has no schema number")
    if schema > SCHEMA:
        raise RecordError(
            f"{name}: schema {schema} is newer than {SCHEMA}, the newest this version reads; upgrade topo_callback"
        )
    return arrays, manifest


def own_digest(path: Path) -> str | None:
    """The SHA-256 that a record ends with, as it says; None of a file that does not end as one.

    Raises:
        RecordError: it is no regular file. OSError: it cannot be read.
    """
    end, _ = read_end(path, len(_LABEL) + _DIGEST_LENGTH)
    digest = end[len(_LABEL) :]
    if end[: len(_LABEL)] != _LABEL or len(digest) != _DIGEST_LENGTH or not set(digest) <= set(b"0123456789abcdef"):
        return None
    return digest.decode()


def _members(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of the archive.

    No member is inflated before its header has said how large it is: together they may take `_MOST_INFLATION` times
    the bytes of the archive, and none gives more than its header says.
    """
    arrays: dict[str, np.ndarray] = {}
    left = min(_MOST_INFLATION * len(data) + _ALWAYS_ALLOWED, _quarter_of_memory())
    _check_directory(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_MEMBERS:
            raise RecordError(f"{len(entries)} members; a record has at most {_MOST_MEMBERS}")
        for entry in entries:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RecordError(f"compression method {entry.compress_type}")
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise RecordError("two members of one name")
            with archive.open(entry) as member:
                arrays[name] = _member(member, left)
            left -= arrays[name].nbytes
    return arrays


def _check_directory(data: bytes) -> None:
    """Refuse a list of members that is larger than any; it is read whole when an archive is opened."""
    end = len(data) - len(_LABEL) - _DIGEST_LENGTH - 22
    if end < 0 or data[end : end + 4] != b"PK\5\6":
        raise RecordError("an archive that does not end with its own comment")
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    if data[end - 20 : end - 16] == b"PK\6\7":  # of archives beyond 4 GiB
        size = int.from_bytes(data[end - 36 : end - 28], "little")
    if size > _MOST_DIRECTORY:
        raise RecordError(f"a list of members of {size} bytes")


def _member(member: IO[bytes] | zipfile.ZipExtFile, most: int) -> np.ndarray:
    """One array of at most so many bytes; reads no byte more than the header announces, and one to see that it ends."""
    major, _ = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(member, max_header_size=1000)  # plain dtypes need 200 at most
    if dtype.hasobject or any(length < 0 for length in shape):
        raise RecordError(f"an array of {dtype} {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise RecordError(f"an array of {size} bytes, more than so small a file can hold")
    content = member.read(size)
    if len(content) != size or member.read(1):
        raise RecordError(f"an array whose bytes are not the {size} of its header")
    array = np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
    return array.copy(order="K")  # writable, unlike `content`


def read_record(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and check one record.

    Raises:
        RecordError: see `decode_record`; or it is no regular file. Symbolic links are not followed.
        OSError: the file cannot be read.
    """
    size, most = path.lstat().st_size, _quarter_of_memory()
    if size > most:
        raise RecordError(f"{path.name}: {size} bytes, more than a quarter of this machine's memory")
    return decode_record(read_plain(path, most), path.name)


def _quarter_of_memory() -> int:
    """Bytes that a record may have: while it is read, it is in memory up to three times."""
    return memory_here() // 4


def write_whole(path: Path, data: bytes) -> None:
    """Write a file durably, whole or not at all.

    Raises:
        OSError: disk full, folder gone, no permission; nothing is left behind under `path`.
        RecordError: something that is no file has the name of the temporary one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_record(
    path: Path, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any], *, compress: bool = False
) -> None:
    """Write one record durably, whole or not at all; see `encode_record` for the arguments."""
    write_whole(path, encode_record(arrays, manifest, compress=compress))
