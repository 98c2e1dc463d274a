"""What a run's folder holds at a moment, as digests, and which differences between two moments a run makes itself.

A run that goes on adds files, appends to its tables, journal and log, drops distances and waiting samples, and rewrites
pictures, page and fingerprint. Samples, once written, stay as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topo_callback.errors import RecordError
from topo_callback.records.files import open_plain
from topo_callback.records.record import own_digest

FOLDERS = ("distances", "pictures", "samples", "spool", "words")
GROWING = ("journal.jsonl", "logged.csv", "steps.csv", "worker.log")  # appended to, or cut where a run goes back
REWRITTEN = ("fingerprint.npz", "prompts.jsonl", "report.html", "controls.json", "controls.png")
FILES = ("run.json", "start-weights.npz", *GROWING, *REWRITTEN)
NO_FILE = "not a regular file"
DAMAGED = "not of its own digest:"
_CHUNK = 1 << 20  # bytes
_STEP = re.compile(r"step-([0-9]{8,16})\.npz")


@dataclass(frozen=True)
class Held:
    """One file: its bytes, -1 where it is no regular file, and their SHA-256; of a record the one that it ends with,
    which is of all bytes before."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Open:
    """What may become of a folder until its next link.

    Attributes:
        run: run.json and the weights of the start may be written.
        after: records of later steps than this may go; None: none may.
    """

    run: bool = False
    after: int | None = None


@dataclass
class Differences:
    """Name -> what is different, between a link and the folder.

    Attributes:
        own: what the run may have done itself, since.
        contradicted: what it does not do.
    """

    own: dict[str, str] = field(default_factory=dict)
    contradicted: dict[str, str] = field(default_factory=dict)


class Digests:
    """The digests of a folder's files. What has not been touched since it was last asked about is not read again.

    Args:
        path: the folder of a run.
        thorough: records are read whole and held against the digest that they end with, which is taken at its word
            else: distances can have gigabytes.
    """

    def __init__(self, path: Path, *, thorough: bool = False) -> None:
        self._path, self._thorough = path, thorough
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}
        self._begun: dict[str, tuple[int, Any]] = {}  # of files that grow: bytes so far and their hash

    def all(self) -> dict[str, Held]:
        """Every file that belongs to the record; hidden ones are temporary.

        Raises:
            OSError: the disk refuses.
        """
        found = {}
        for name in self._names():
            try:
                found[name] = self._of(name)
            except FileNotFoundError:
                continue  # dropped at this moment
            except RecordError:
                found[name] = Held(-1, NO_FILE)
        return found

    def foreign(self) -> list[str]:
        """What lies in the folder and is not part of the record: nothing is said of it."""
        own = {*FOLDERS, *FILES, "lock", "chain.jsonl"}
        return sorted(name for name in os.listdir(self._path) if name not in own and not name.startswith("."))

    def beginning(self, name: str, size: int) -> str:
        """SHA-256 of the first bytes of a file."""
        begun, hashed = self._begun.get(name, (0, None))
        if hashed is None or begun > size:
            begun, hashed = 0, hashlib.sha256()
        hashed = hashed.copy()
        with open(open_plain(self._path / name, os.O_RDONLY), "rb") as file:
            file.seek(begun)
            while begun < size and (data := file.read(min(_CHUNK, size - begun))):
                hashed.update(data)
                begun += len(data)
        if name in GROWING:
            self._begun[name] = begun, hashed
        return str(hashed.hexdigest())

    def _names(self) -> list[str]:
        names = [name for name in FILES if (self._path / name).is_symlink() or (self._path / name).exists()]
        for part in FOLDERS:
            folder = self._path / part
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                names.append(part)
            elif folder.is_dir():
                names += [f"{part}/{name}" for name in os.listdir(folder) if not name.startswith(".")]
        return sorted(names)

    def _of(self, name: str) -> Held:
        status = (self._path / name).lstat()
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{name}: {NO_FILE}")
        if name in GROWING:
            return Held(status.st_size, self.beginning(name, status.st_size))
        mark = status.st_size, status.st_mtime_ns, status.st_ino
        known = self._known.get(name)
        if known is None or known[0] != mark:
            known = self._known[name] = mark, self._digest(name, status.st_size)
        return Held(status.st_size, known[1])

    def _digest(self, name: str, size: int) -> str:
        own = own_digest(self._path / name) if name.endswith(".npz") else None
        if own is None:
            return self.beginning(name, size)
        if self._thorough and self.beginning(name, size - len(own)) != own:
            return f"{DAMAGED} {self.beginning(name, size)}"
        return own


def differences(
    was: Mapping[str, Held],
    now: Mapping[str, Held],
    digests: Digests,
    is_open: Open | None,
    wrote: Collection[str] = (),
) -> Differences:
    """What became of a folder since a link.

    Args:
        was, now: name -> what is held.
        digests: of the folder now.
        is_open: what may have become of it; None: it was closed, and nothing may.
        wrote: names that were written all the same, by whoever asks.
    """
    found = Differences()
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        said = _difference(name, before, after, digests)
        own = _is_own(name, said, is_open or Open(run=True)) if is_open is not None or name in wrote else False
        (found.own if own else found.contradicted)[name] = said
    return found


def _difference(name: str, before: Held | None, after: Held | None, digests: Digests) -> str:
    if before is None:
        return "added"
    if after is None:
        return "gone"
    if name in GROWING and 0 <= before.size <= after.size and digests.beginning(name, before.size) == before.sha256:
        return f"{after.size - before.size} bytes longer"
    return NO_FILE if after.size < 0 else "changed"


def _is_own(name: str, said: str, is_open: Open) -> bool:
    """Whether a run that goes on makes such a difference."""
    part, _, file = name.rpartition("/")
    if said == NO_FILE:
        return False
    if part in ("samples", "words", "distances"):
        step = _STEP.fullmatch(file)
        goes = part == "distances" and said == "gone"
        done_anew = is_open.after is not None and step is not None and int(step[1]) > is_open.after
        return said == "added" or goes or done_anew
    if name in ("run.json", "start-weights.npz"):
        return is_open.run and said != "gone"
    if name in GROWING:
        back = is_open.after is not None and name in ("steps.csv", "logged.csv")
        return said.endswith("longer") or said == "added" or back
    return True
