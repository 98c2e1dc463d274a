"""TrajectoryFolder: the files of one run, who may write them, and the journal of what happened.

<output_dir>/topology/
  latest                          the name of the newest run's folder
  <run id>/
    run.json                      configuration, probe hash, model, versions
    samples/step-00000032.npz     one snapshot each
    distances/step-00000000.npz   distances of step 0, of the newest sample, and of the newest saved checkpoint
    spool/step-00000064.npz       samples that wait for the worker
    pictures/*.png
    prompts.jsonl                 the prompts themselves, only with keep_prompts
    start-weights.npz             the trained weights that are followed, as they were when the run began
    journal.jsonl                 what was lost, thinned, decided; one JSON object a line
    worker.log  lock
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.errors import FolderBusyError, RecordError, described
from topo_callback.records.contents import check_run
from topo_callback.records.record import write_whole

_STEP_FILE = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,15})\.npz")
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
        self.run_file = path / "run.json"
        self.journal_file = path / "journal.jsonl"
        self.prompts = path / "prompts.jsonl"
        self.worker_log = path / "worker.log"
        self.start_weights = path / "start-weights.npz"
        self._parts = (self.samples, self.distances, self.spool, self.pictures)
        self._lock: int | None = None

    @classmethod
    def new(cls, root: Path) -> TrajectoryFolder:
        """A folder with a fresh run id under `root`, made and named by `latest`; no random generator is touched."""
        run_id = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        folder = cls(root / run_id)
        for part in folder._parts:
            part.mkdir(parents=True)
        write_whole(root / "latest", (run_id + "\n").encode())
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
            if (candidate / "latest").is_file():
                name = (candidate / "latest").read_text(errors="replace").strip()
                plain = name == Path(name).name and name != ".." and len(name) < 200
                if plain and (candidate / name / "run.json").is_file():
                    return cls(candidate / name)
        below = sorted(str(found.parent.parent) for found in path.glob("*/topology/latest"))[:3]
        raise RecordError(
            f"no trajectory at {path}: expected a folder with run.json, or an output_dir with topology/latest in it"
            + (f", such as {', '.join(below)}" if below else "")
        )

    @property
    def run_id(self) -> str:
        return self.path.name

    def lock(self) -> None:
        """Become the one writer of this folder until `unlock` or the end of the process.

        Files that an earlier writer was killed in the middle of are removed: no record has their names. Empty folders
        that a copy of the run has lost are made.

        Raises:
            FolderBusyError: another process, or another callback of this one, is writing.
        """
        key = str(self.path.resolve())
        if key in _held:
            raise FolderBusyError(f"{self.path} is already being written by this process")
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning(
                    "%s: this file system has no locks (%s); take care of a second writer", self.path, described(error)
                )
                os.close(handle)
                _held.add(key)
                self._mend()
                return
            os.close(handle)
            raise FolderBusyError(
                f"{self.path} is being written by another process; wait for it, or use another output_dir"
            ) from error
        _held.add(key)
        self._lock = handle
        self._mend()

    def _mend(self) -> None:
        try:
            for part in (self.path, *self._parts):
                part.mkdir(exist_ok=True)
                for torn in part.glob(".*.tmp"):
                    torn.unlink(missing_ok=True)
        except OSError:
            self.unlock()
            raise

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        _held.discard(str(self.path.resolve()))

    def is_locked(self) -> bool:
        """Whether some process is writing this folder now."""
        if str(self.path.resolve()) in _held:
            return True
        if not (self.path / "lock").is_file():
            return False
        try:
            with open(self.path / "lock", "r+b") as handle:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # a folder that may not be written is not being written
            return error.errno == errno.EAGAIN or (error.errno == errno.EACCES and os.access(self.path, os.W_OK))
        return False

    def step_file(self, part: Path, step: int) -> Path:
        return part / f"step-{step:08d}.npz"

    def steps(self, part: Path) -> list[int]:
        """The steps with a file in one of the parts, ascending."""
        names = os.listdir(part) if part.is_dir() else []
        return sorted(int(match[1]) for match in map(_STEP_FILE.fullmatch, names) if match)

    def write_run(self, run: Mapping[str, Any]) -> None:
        write_whole(self.run_file, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())

    def read_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            RecordError: it is missing or damaged.
        """
        try:
            run = json.loads(self.run_file.read_text())
        except (OSError, ValueError, RecursionError) as error:
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
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **details}, sort_keys=True) + "\n"
        # one write to a descriptor in append mode: a kill leaves at most one torn last line
        descriptor = os.open(self.journal_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def journal(self) -> list[dict[str, Any]]:
        """The lines of the journal; torn or damaged lines are skipped."""
        entries = []
        text = self.journal_file.read_text(errors="replace") if self.journal_file.is_file() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                entries.append(entry)
        return entries

    def drop_after(self, step: int) -> list[int]:
        """Remove samples, distances and spooled samples of later steps; return the steps whose samples went."""
        dropped = [later for later in self.steps(self.samples) if later > step]
        for part in (self.samples, self.distances, self.spool):
            for later in self.steps(part):
                if later > step:
                    self.step_file(part, later).unlink(missing_ok=True)
        return dropped
