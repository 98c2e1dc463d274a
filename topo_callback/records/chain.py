"""The chain of a run: which files its folder held, and when, each link bound to the one before.

`chain.jsonl` has one link a line. A link names what was added, changed or gone since the one before, with size and
SHA-256 of each file, and ends with its head: the SHA-256 of the head before it and of the line so far. The first binds
configuration, probe and code; one follows each sample; the last, of a run that came to an end, closes the folder, and
nothing may differ from it. What contradicts a link when the next one is made is written into that one, and stays there.

There is no key. Accidents are found, and edits by those who do not write the chain anew; against the rest helps a head
that was kept elsewhere. The file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from topo_callback.errors import FolderBusyError, RecordError, described
from topo_callback.libraries import code_version
from topo_callback.records.files import read_plain
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.held import FILES, Digests, Held, Open, differences
from topo_callback.records.record import write_whole

MOST_OF_CHAIN = 256 << 20  # bytes
CLOSED = "closed"
MADE_BY_SCAN = ("journal.jsonl", "prompts.jsonl", "run.json")  # before its first link
_BEFORE_HEAD = b', "head": "'
_AFTER_HEAD = b'"}'
_DIGITS = 64
logger = logging.getLogger("topo_callback")


@dataclass(frozen=True)
class Link:
    """One line of the chain.

    Attributes:
        event: why it was made: "began", "resuming", "resumed", "sample", "finish", "scan", "report", "controls", or
            "closed".
        time: of this machine's clock, in seconds since 1970.
        is_open: what could become of the folder after it; None: nothing.
        files: those that are new or different.
        gone: those that are no longer there.
        contradicted: name -> what had become of it although it should not.
        details: step of the sample, version and digest of the code, and the like.
        head: hexadecimal.
    """

    event: str
    time: float
    is_open: Open | None
    files: Mapping[str, Held]
    gone: tuple[str, ...]
    contradicted: Mapping[str, str]
    details: Mapping[str, Any]
    head: str


@dataclass
class Chain:
    """The links of one folder. Whoever adds one holds the folder's lock.

    Attributes:
        folder: of the run.
        links: in their order, as far as they can be read.
        damage: what is wrong with the file; "" where nothing is.
        held: name -> what the newest link says of it.
        thorough: as of `Digests`.
    """

    folder: TrajectoryFolder
    links: list[Link] = field(default_factory=list)
    damage: str = ""
    held: dict[str, Held] = field(default_factory=dict)
    thorough: bool = False
    _lines: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.digests = Digests(self.folder.path, thorough=self.thorough)

    @classmethod
    def read(cls, folder: TrajectoryFolder, *, thorough: bool = False) -> Chain:
        """The chain of a folder; one without links where it has none.

        Raises:
            OSError: the disk refuses.
        """
        chain = cls(folder, thorough=thorough)
        try:
            data = read_plain(folder.chain, MOST_OF_CHAIN)
        except FileNotFoundError:
            return chain
        except RecordError as error:
            chain.damage = str(error)
            return chain
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                chain._add(line)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                chain.damage = f"line {number} of {folder.chain.name} is not the one that was written there"
                return chain
        if rest or not lines:
            chain.damage = f"{folder.chain.name} does not end with a whole link"
        return chain

    @property
    def head(self) -> str:
        """The head of the newest link; "" without one."""
        return self.links[-1].head if self.links else ""

    @property
    def is_open(self) -> Open | None:
        """What may become of the folder until the next link."""
        return self.links[-1].is_open if self.links else Open(run=True)

    def seal(self, event: str, is_open: Open | None, *, wrote: Collection[str] = (), **details: Any) -> str:
        """Add a link for the folder as it is; nothing where a closed one is closed again and nothing has changed.

        Args:
            event: why.
            is_open: what may become of the folder after it.
            wrote: names that were written since the newest link, though it closed the folder.
            details: JSON values.

        Returns:
            the head.

        Raises:
            OSError: the disk refuses; the next call adds what this one could not.
        """
        if self.damage:
            details |= self._begin_anew()
        now = self.digests.all()
        if not self.links and event != "began" and (event != "scan" or now.keys() - set(MADE_BY_SCAN)):
            details["adopted"] = True
        found = differences(self.held, now, self.digests, self.is_open, wrote)
        if is_open is None and self.links and self.is_open is None and now == self.held:
            return self.head
        if event != "sample":
            details["code"] = code_version()
        body = {
            "contradicted": found.contradicted,
            "details": details,
            "event": event,
            "files": {name: [held.size, held.sha256] for name, held in now.items() if self.held.get(name) != held},
            "gone": sorted(self.held.keys() - now.keys()),
            "open": None if is_open is None else asdict(is_open),
            "time": round(time.time(), 3),
        }
        begun = json.dumps(body, sort_keys=True).encode()[:-1]
        line = begun + _BEFORE_HEAD + _head(self.head, begun) + _AFTER_HEAD
        write_whole(self.folder.chain, b"".join(each + b"\n" for each in (*self._lines, line)))
        self._add(line)
        return self.head

    def _add(self, line: bytes) -> None:
        """Take a line for the next link.

        Raises:
            ValueError and others: it is not that.
        """
        begun = line[: -_DIGITS - len(_BEFORE_HEAD) - len(_AFTER_HEAD)]
        if line != begun + _BEFORE_HEAD + _head(self.head, begun) + _AFTER_HEAD:
            raise ValueError("another head")
        body = json.loads(line)
        files = {str(name): Held(int(size), str(digest)) for name, (size, digest) in body["files"].items()}
        is_open = None if body["open"] is None else Open(**body["open"])
        link = Link(
            str(body["event"]), float(body["time"]), is_open, files, tuple(map(str, body["gone"])),
            dict(body["contradicted"]), dict(body["details"]), str(body["head"]),
        )  # fmt: skip
        self.held = {name: held for name, held in {**self.held, **files}.items() if name not in link.gone}
        self.links.append(link)
        self._lines.append(line)

    def _begin_anew(self) -> dict[str, Any]:
        """Put a damaged chain aside; what the first link of the next one says of it."""
        aside = self.folder.path / f"chain-damaged-{int(time.time())}.jsonl"
        os.replace(self.folder.chain, aside)
        said = {"damaged": self.damage, "beside": aside.name}
        self.links, self._lines, self.held, self.damage = [], [], {}, ""
        return said


def _head(before: str, begun: bytes) -> bytes:
    return hashlib.sha256(before.encode() + b"\n" + begun).hexdigest().encode()


def seal_run(folder: TrajectoryFolder, event: str, is_open: Open | None, *, wrote: Collection[str] = ()) -> None:
    """Add a link to the chain of a locked folder; a disk that refuses is warned about, and costs no more than that."""
    try:
        Chain.read(folder).seal(event, is_open, wrote=wrote)
    except (OSError, RecordError) as error:
        _warn(folder, error)


@contextlib.contextmanager
def sealed(folder: TrajectoryFolder, event: str, *, wrote: Collection[str] = (), **open_for: Any) -> Iterator[None]:
    """Around what is done with a locked folder: one link for what was found there, and one that closes it again.

    Args:
        event: why.
        wrote: names that were written before.
        open_for: as of `Open`.
    """
    try:
        chain = Chain.read(folder)
        chain.seal(event, Open(**open_for), wrote=wrote)
    except (OSError, RecordError) as error:
        _warn(folder, error)
        yield
        return
    try:
        yield
    finally:
        try:
            chain.seal(CLOSED, None)
        except (OSError, RecordError) as error:
            _warn(folder, error)


@contextlib.contextmanager
def seal_files(folder: Path, names: Collection[str], event: str) -> Iterator[None]:
    """Around the writing of files of a command, where they go into the folder of a run that has a chain.

    A closed folder is open meanwhile, so that a command that is killed contradicts nothing. A run that goes on seals
    the files itself.

    Args:
        folder: where they go.
        names: of the files.
        event: why; "page", "report" or "controls".
    """
    run = TrajectoryFolder(folder)
    ours = set(names) & set(FILES) and run.chain.is_file()
    if ours:
        _seal_written(run, (), event)
    try:
        yield
    finally:
        if ours:
            _seal_written(run, names, event, ends=True)


def _seal_written(run: TrajectoryFolder, names: Collection[str], event: str, *, ends: bool = False) -> None:
    try:
        run.lock()
    except (FolderBusyError, RecordError, OSError) as error:
        logger.debug("%s: no link for %s: %s", run.path, event, described(error))
        return
    try:
        chain = Chain.read(run)
        newest = chain.links[-1] if chain.links else None
        if not ends and newest is not None and newest.is_open is None:
            chain.seal(event, Open(), closes=True)
        elif ends:
            closes = newest is not None and bool(newest.details.get("closes"))
            chain.seal(event, None if closes else chain.is_open, wrote=names)
    except (OSError, RecordError) as error:
        _warn(run, error)
    finally:
        run.unlock()


def _warn(folder: TrajectoryFolder, error: Exception) -> None:
    logger.warning("%s: no link could be added to the chain (%s)", folder.path, described(error))
