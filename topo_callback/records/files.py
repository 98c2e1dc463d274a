"""Opening what must be a plain file, of a bounded size: no link is followed, and no pipe or device is waited for."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from topo_callback.errors import RecordError, described

# a pipe opens at once instead of waiting for its other end
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
MOST_OF_A_NAME = 1 << 12  # bytes of a file that holds little more than the name of a run
_FIRST_FREE = 3  # below are the standard streams, also in a process that has closed them


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of a regular file, never one of the three of the standard streams.

    Args:
        flags: as of `os.open`, such as `os.O_RDONLY`.

    Raises:
        RecordError: it is a symbolic link, a folder, a pipe or a device.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _PLAIN, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise RecordError(f"{path.name}: {_kind(path)}") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordError(f"{path.name}: {_kind(path)}")
    except BaseException:
        os.close(descriptor)
        raise
    return above_streams(descriptor)


def above_streams(descriptor: int) -> int:
    """The same open file under a number that no standard stream has, also in a process that has closed those."""
    if descriptor >= _FIRST_FREE:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(descriptor)


def read_plain(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes, as many as it has when it is opened.

    Raises:
        RecordError: it is a symbolic link, a folder, a pipe, a device, or larger.
        OSError: it cannot be read.
    """
    with open(open_plain(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise RecordError(f"{path.name}: {size} bytes; at most {most} are read")
        return file.read(size)


def read_end(path: Path, most: int) -> tuple[bytes, int]:
    """The last bytes of a regular file, at most so many, and how many come before them.

    Raises:
        RecordError: it is a symbolic link, a folder, a pipe or a device.
        OSError: it cannot be read.
    """
    with open(open_plain(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - most))
        return file.read(min(size, most)), max(0, size - most)


def read_json(path: Path, most: int) -> Any:
    """The JSON value in a regular file of at most so many bytes.

    Raises:
        RecordError: it is no such file, or no JSON, or nested deeper than Python reads.
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_plain(path, most))
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path.name}: no JSON that can be read ({described(error)})") from error


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link in the place of a folder of ours; what is not there is no link.

    Raises:
        RecordError: it is one.
    """
    if path.is_symlink():
        raise RecordError(f"{path} is a symbolic link, which is not followed; put the folder itself in its place")


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a symbolic link, which is not followed"
    return ("a folder" if path.is_dir() else "a pipe or a device") + ", not a regular file"
