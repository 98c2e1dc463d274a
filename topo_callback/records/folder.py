"""TrajectoryFolder: the files of one run, who may write them, and the journal of what happened.

<output_dir>/topology/
  latest                          the name of the newest run's folder
  <run id>/
    run.json                      configuration, probe hash, model, versions
    samples/step-00000032.npz     one snapshot each
    distances/step-00000000.npz   distances of step 0, of the newest sample, and of the newest saved checkpoint
    spool/step-00000064.npz       samples that wait for the worker
    pictures/*.png
    words/step-00000032.npz       what the drift says in the model's vocabulary, only with drift_words
    report.html                   the page, written at the end of the run, without prompts
    prompts.jsonl                 the prompts themselves, only with keep_prompts
    fingerprint.npz               which way the general text moved since the start
    start-weights.npz             the trained weights that are followed, as they were when the run began
    steps.csv                     one line for each optimizer step: loss, gradient norm, rates
    logged.csv                    one line for each step at which the trainer logged a reward, a divergence, ...
    journal.jsonl                 what was lost, thinned, decided; one JSON object a line
    chain.jsonl                   digests of all of it, each line bound to the one before, for `topo-callback verify`
    worker.log  lock

Symbolic links in a run's folder are not followed, neither for reading nor for writing or dropping.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.errors import FolderBusyError, RecordError, described
from topo_callback.records.contents import check_run
from topo_callback.records.files import MOST_OF_A_NAME, open_plain, read_end, read_json, read_plain, refuse_link
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.record import write_whole
from topo_callback.records.training_steps import drop_training_steps

_STEP_FILE = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,15})\.npz")
MOST_OF_RUN = 8 << 20  # bytes of run.json, which has a few thousand
MOST_OF_JOURNAL = 16 << 20  # bytes of the journal that are read: about 100,000 lines
logger = logging.getLogger("topo_callback")
_held: set[str] = set()  # POSIX record locks do not exclude their own process


class TrajectoryFolder:
    """Paths and small files of one run's folder. Creating the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = path / "samples"
        self.distances = path / "distances"
        self.spool = path / "spool"
        self.pictures = path / "pictures"
        self.words = path / "words"
        self.run_file = path / "run.json"
        self.journal_file = path / "journal.jsonl"
        self.chain = path / "chain.jsonl"
        self.page = path / "report.html"
        self.prompts = path / "prompts.jsonl"
        self.worker_log = path / "worker.log"
        self.fingerprint = path / "fingerprint.npz"
        self.start_weights = path / "start-weights.npz"
        self.training_steps = path / "steps.csv"
        self.logged = path / "logged.csv"
        self._parts = (self.samples, self.distances, self.spool, self.pictures)
        self._lock: int | None = None
        self._key: str | None = None

    @classmethod
    def new(cls, root: Path) -> TrajectoryFolder:
        """A folder with a fresh run id under `root`, made and named by `latest`; no random generator is touched.

        A `latest` that cannot be written, such as a folder of that name, leaves the run without one.
        """
        run_id = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        folder = cls(root / run_id)
        for part in folder._parts:
            part.mkdir(parents=True)
        folder.name_newest()
        return folder

    @classmethod
    def find(cls, path: Path) -> TrajectoryFolder:
        """The run folder at `path`, or the newest one below it (an output_dir, or its `topology`).

        Raises:
            RecordError: there is none.
        """
        for candidate in (path, path / "topology"):
            if (candidate / "run.json").is_file():
                return cls(candidate)
            newest = _newest(candidate)
            if newest is not None and (newest / "run.json").is_file():
                return cls(newest)
        below = sorted(str(found.parent.parent) for found in path.glob("*/topology/latest"))[:3]
        raise RecordError(
            f"no trajectory at {path}: expected a folder with run.json, or an output_dir with topology/latest in it"
            + (f", such as {', '.join(below)}" if below else "")
        )

    @property
    def run_id(self) -> str:
        return self.path.name

    def name_newest(self) -> None:
        """Let `latest` name this run."""
        latest = self.path.parent / "latest"
        try:
            write_whole(latest, (self.run_id + "\n").encode())
        except IsADirectoryError:
            logger.warning("%s is a folder; give the run's own folder, %s, to read this run", latest, self.path)

    def lock(self) -> None:
        """Become the one writer of this folder until `unlock` or the end of the process.

        Files that an earlier writer was killed in the middle of are removed: no record has their names. Empty folders
        that a copy of the run has lost are made.

        Raises:
            FolderBusyError: another process, or another callback of this one, is writing.
            RecordError: a link, or something else that is no folder, has the place of one.
            OSError: the disk refuses.
        """
        key = writing_key(self.path)
        if key in _held:
            raise FolderBusyError(f"{self.path} is already being written by this process")
        self._take_lock()
        _held.add(key)
        self._key = key
        try:
            self._mend()
        except BaseException:
            self.unlock()
            raise

    def _take_lock(self) -> None:
        handle = open_plain(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise FolderBusyError(
                    f"{self.path} is being written by another process; wait for it, or use another output_dir"
                ) from error
            logger.warning("%s: this file system has no locks (%s); take care of a second writer", self.path, error)
        else:
            self._lock = handle

    def _mend(self) -> None:
        for part in (*self._parts, self.words):
            refuse_link(part)
        for part in (self.path, *self._parts):
            try:
                part.mkdir(exist_ok=True)
            except FileExistsError:
                raise RecordError(f"{part} is not a folder; remove it, or give another output_dir") from None
        for part in (self.path, *self._parts, self.words):
            for torn in part.glob(".*.tmp"):
                torn.unlink(missing_ok=True)

    def remake(self, run: Mapping[str, Any]) -> list[str]:
        """Make again what was deleted of a folder that this process writes; the names of what was missing.

        Args:
            run: content of run.json.

        Raises:
            RecordError: a link, or something else that is no folder, has the place of one.
            OSError: the disk refuses.
        """
        for part in self._parts:
            refuse_link(part)
        missing = [part.name for part in self._parts if not part.is_dir()]
        if not self.run_file.is_file():
            missing.append(self.run_file.name)
        if not missing:
            return []
        gone = not self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        if gone:  # the lock went with it
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            self._take_lock()
            self.name_newest()
        self._mend()
        if self.run_file.name in missing:
            self.write_run(run)
        return missing

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._key is not None:
            _held.discard(self._key)
            self._key = None

    def is_locked(self) -> bool:
        """Whether some process is writing this folder now."""
        if writing_key(self.path) in _held:
            return True
        if not (self.path / "lock").is_file():
            return False
        try:
            with open(open_plain(self.path / "lock", os.O_RDWR), "r+b") as handle:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RecordError:
            return False
        except OSError as error:
            # a folder that may not be written is not being written
            return error.errno == errno.EAGAIN or (error.errno == errno.EACCES and os.access(self.path, os.W_OK))
        return False

    def step_file(self, part: Path, step: int) -> Path:
        """Where the file of a step is, in one of the parts.

        Raises:
            RecordError: the part is a symbolic link.
        """
        refuse_link(part)
        return part / f"step-{step:08d}.npz"

    def steps(self, part: Path) -> list[int]:
        """The steps with a file in one of the parts, ascending; reading one names what is no file.

        Raises:
            RecordError: the part is a symbolic link.
        """
        refuse_link(part)
        names = os.listdir(part) if part.is_dir() else []
        return sorted(int(match[1]) for match in map(_STEP_FILE.fullmatch, names) if match)

    def waiting(self) -> dict[int, int]:
        """Steps with a regular file in the spool -> bytes, ascending.

        Raises:
            RecordError: the spool is a symbolic link.
        """
        found = {}
        for step in self.steps(self.spool):
            with contextlib.suppress(FileNotFoundError):  # measured in the meantime
                status = self.step_file(self.spool, step).lstat()
                if stat.S_ISREG(status.st_mode):
                    found[step] = status.st_size
        return found

    def misplaced(self) -> str | None:
        """The first name of a step that something other than a file has; None when there is none."""
        for part in (self.samples, self.distances, self.spool, self.words):
            for step in self.steps(part):
                path = self.step_file(part, step)
                if not stat.S_ISREG(path.lstat().st_mode):
                    return f"{part.name}/{path.name}"
        return None

    def write_run(self, run: Mapping[str, Any]) -> None:
        write_whole(self.run_file, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())

    def read_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            RecordError: it is missing or damaged.
        """
        try:
            run = read_json(self.run_file, MOST_OF_RUN)
        except (OSError, RecordError) as error:
            raise RecordError(f"{self.run_file}: cannot be read ({described(error)})") from error
        if not isinstance(run, dict) or run.get("tool") != "topo_callback":
            raise RecordError(f"{self.run_file}: not a run of topo_callback")
        try:
            check_run(run)
        except RecordError as error:
            raise RecordError(f"{self.run_file}: {error}") from error
        return run

    def note(self, event: str, **details: Any) -> None:
        """Append one line to the journal, durably.

        Raises:
            OSError: disk full, folder gone.
            RecordError: the journal is no regular file.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **details}, sort_keys=True) + "\n"
        # one write to a descriptor in append mode: a kill leaves at most one torn last line
        descriptor = open_plain(self.journal_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def journal(self) -> list[dict[str, Any]]:
        """The lines of the journal, or the newest `MOST_OF_JOURNAL` bytes of them; none where it is no file.

        Lines that are torn or damaged are skipped.
        """
        try:
            data, before = read_end(self.journal_file, MOST_OF_JOURNAL)
        except (FileNotFoundError, NotADirectoryError, RecordError):
            return []
        if before:
            logger.warning("%s: of its lines the newest %d MiB are read", self.journal_file, MOST_OF_JOURNAL >> 20)
        entries = []
        for line in data.split(b"\n")[1 if before else 0 :]:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                entries.append(entry)
        return entries

    def drop_after(self, step: int) -> list[int]:
        """Remove samples, distances, spooled samples, training steps and logged numbers of later steps, and the
        fingerprint, which the next sample writes anew; return the steps whose samples went.

        Raises:
            RecordError: one of the parts is a symbolic link, or one of the tables is damaged; nothing outside the
                folder is removed.
        """
        dropped = [later for later in self.steps(self.samples) if later > step]
        drop_training_steps(self.training_steps, step)
        drop_training_steps(self.logged, step, LOGGED_COLUMNS)
        if dropped:
            self.fingerprint.unlink(missing_ok=True)
        for part in (self.samples, self.distances, self.spool, self.words):
            for later in self.steps(part):
                if later > step:
                    self.step_file(part, later).unlink(missing_ok=True)
        return dropped


def writing_key(path: Path) -> str:
    """What tells the folders that this process writes apart, by whichever path they are given."""
    return str(path.resolve())


def _newest(root: Path) -> Path | None:
    """The folder that `latest` names, which is one beside it and no link to elsewhere."""
    try:
        name = read_plain(root / "latest", MOST_OF_A_NAME).decode(errors="replace").strip()
    except (OSError, RecordError):
        return None
    return named_beside(root, name)


def named_beside(root: Path, name: object) -> Path | None:
    """The folder under `root` that a file names; None where the name leads elsewhere."""
    if not isinstance(name, str) or not 0 < len(name) < 200 or "\0" in name:
        return None
    path = root / name
    return None if name != Path(name).name or name == ".." or path.is_symlink() else path
