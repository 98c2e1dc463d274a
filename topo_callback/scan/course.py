"""The course of a training that is followed: which checkpoints were read, and whether training has gone back since."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from topo_callback.errors import RecordError
from topo_callback.records.chain import sealed
from topo_callback.records.files import read_json
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.scan.settling import Files, Found, Settling, digest_of
from topo_callback.scan.unit import is_done, units_folder
from topo_callback.terminal import say
from topo_callback.wording import counted

_FILE = "followed.json"
_MANY_LOOKS = 30  # at a checkpoint that changes, until this is said, and after the stop file
_MOST_BYTES = 64 << 20
_PAST = "it is of the training before that went back; it waits until it is written anew"


@dataclass(frozen=True)
class _Read:
    """A checkpoint as it was read.

    Attributes:
        files: their state.
        digest: of its weights; empty when it was deleted before that was taken.
        past: training has gone back behind it since, and its record is dropped.
    """

    files: Files
    digest: str
    past: bool = False


@dataclass(frozen=True)
class Until:
    """When following ends; without any of these, by an interrupt only.

    Attributes:
        count: that many checkpoints are recorded, those of earlier calls included, and the base not.
        stop_file: that file is there. What is whole by then is still read.
        idle: so many seconds nothing has changed in the folder.
    """

    count: int | None = None
    stop_file: Path | None = None
    idle: float | None = None


class Ending:
    """Tells after each look whether following ends, and names what never comes to rest."""

    def __init__(self, until: Until) -> None:
        self._until, self._stopping, self._looks = until, False, 0
        self._changed, self._last = time.monotonic(), dict[int, Files]()
        self._waited: dict[int, int] = {}

    def before_look(self) -> None:
        stop = self._until.stop_file
        self._stopping = stop is not None and stop.exists()
        self._looks += self._stopping

    def after_look(self, found: Mapping[int, Found], settling: Settling, resting: bool, recorded: int) -> str:
        """Why it ends; empty while it goes on.

        Args:
            found: the checkpoints of this look.
            settling: knows their files.
            resting: whether some were read or left out; that takes its time, in which others may have come.
            recorded: checkpoints that are recorded.
        """
        until, state = self._until, {step: settling.files(step) for step in found}
        if resting or state != self._last:
            self._changed, self._last = time.monotonic(), state
        self._waited = {step: self._waited.get(step, 0) + 1 for step in settling.moving}
        for step in (step for step, looks in self._waited.items() if looks == _MANY_LOOKS):
            say(f"{found[step].name} still changes; it is read when its files are the same at two looks")
        if until.count is not None and recorded >= until.count:
            return f"{counted(recorded, 'checkpoint')} {'is' if recorded == 1 else 'are'} recorded"
        if self._stopping and (self._looks > _MANY_LOOKS or (self._looks > 1 and not settling.moving)):
            return f"{until.stop_file} is there; remove it to go on"
        if until.idle is not None and time.monotonic() - self._changed >= until.idle:
            return f"nothing has changed for {until.idle:g} s"
        return ""


@dataclass
class Followed:
    """What came of following a folder.

    Attributes:
        folder: of the trajectory; None while nothing was read.
        name: of the trajectory.
        steps: that are recorded.
        read: steps read now, some perhaps twice.
        skipped: name -> why it was left out, or is not whole.
        ended: why it ended; empty while it goes on.
    """

    folder: Path | None
    name: str
    steps: tuple[int, ...] = ()
    read: list[int] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    ended: str = ""


class CheckpointsRead:
    """What was read of which checkpoint, kept beside the trajectory.

    A checkpoint that is written anew, with other weights, says that training was resumed before it or has begun again:
    its record and all later ones are dropped, and those later checkpoints wait until they are written anew, too.

    Args:
        folder: of the trajectory.
        base: whether step 0 is a model beside the checkpoints.
        leave_out: called with a checkpoint that is not read as it is, and the reason.
    """

    def __init__(self, folder: TrajectoryFolder, base: bool, leave_out: Callable[[Found, str], None]) -> None:
        self._folder, self._base, self._leave_out = folder, base, leave_out
        self._file = units_folder(folder.path) / _FILE
        self._read: dict[int, _Read] = {}

    def load(self) -> None:
        """Go on with what an earlier process left; nothing where there is none."""
        try:
            content = read_json(self._file, _MOST_BYTES)
            self._read = {int(step): _known(entry) for step, entry in content.items()}
        except FileNotFoundError:
            return
        except (OSError, RecordError, LookupError, TypeError, ValueError, AttributeError):
            say(f"{self._file.name} cannot be read: recorded checkpoints are taken for those that are there now")

    def note(self, each: Found, files: Files) -> None:
        """A checkpoint was read, in this state of its files.

        Raises:
            RecordError: it cannot be written down.
        """
        try:
            content = digest_of(each.folder)
        except OSError:  # deleted since; its record stays
            content = ""
        self._put(each.step, _Read(files, content))

    def is_new(self, each: Found, settling: Settling, is_whole: Callable[[Found], bool]) -> bool:
        """Whether one at rest has to be read. Of one that was written anew, its record and the later ones are dropped.

        Args:
            each: the checkpoint.
            settling: knows its files.
            is_whole: asked before records are dropped: of a checkpoint that is being deleted, parts are left. It leaves
                out what is not whole.

        Raises:
            RecordError: the folder cannot be written.
        """
        files, recorded, known = settling.files(each.step), is_done(self._folder, each.step), self._read.get(each.step)
        try:
            if known is not None and known.files != files and known.digest != digest_of(each.folder):
                if recorded and not is_whole(each):
                    return False
                if recorded:
                    self._go_back(each)
                del self._read[each.step]
                return True
            if known is None and recorded:  # read by a scan, or killed before it was noted
                self.note(each, files)
        except FileNotFoundError:  # since the look
            return False
        except OSError as error:
            self._leave_out(each, f"its weights cannot be read ({error.strerror or error})")
            return False
        if known is not None:
            self._put(each.step, replace(known, files=files))
            if known.past:
                self._leave_out(each, _PAST)
                return False
        if not recorded:
            return True
        settling.judge(each.step)
        return False

    def in_order(self, found: dict[int, Found], new: list[Found]) -> list[Found]:
        """What is to be read, ascending. A record compares with earlier ones: one that comes late moves all later ones,
        and where some of these are gone, it is left out."""
        recorded = self._folder.steps(self._folder.samples)
        late = [each for each in new if recorded and each.step < recorded[-1]]
        if not late:
            return new
        mine = [step for step in recorded if step > 0 or not self._base]
        gone = [step for step in mine if not self.holds(found, step)]
        if gone:
            for each in late:
                said = f"it came after step {recorded[-1]} was recorded, and step {gone[0]} can no longer be read again"
                self._leave_out(each, said)
            return [each for each in new if each not in late]
        say(f"{late[0].name} came after step {recorded[-1]}: all are of one training, it is supposed, and read again")
        with sealed(self._folder, "resuming", wrote=(self._folder.run_file.name,), run=True, after=-1):
            self._folder.note("resumed", step=mine[0], dropped=self._folder.drop_after(-1))
        return sorted([*new, *(found[step] for step in mine)], key=lambda each: each.step)

    def holds(self, found: dict[int, Found], step: int) -> bool:
        """Whether the checkpoint of a step is still the one that was read."""
        known = self._read.get(step)
        try:
            return known is not None and step in found and digest_of(found[step].folder) == known.digest
        except OSError:
            return False

    def _go_back(self, each: Found) -> None:
        units = units_folder(self._folder.path)
        self._read = {step: replace(read, past=read.past or step > each.step) for step, read in self._read.items()}
        self._write()  # before the records go: killed in between, it is found out again
        with sealed(self._folder, "resuming", wrote=(self._folder.run_file.name,), run=True, after=each.step - 1):
            dropped = self._folder.drop_after(each.step - 1)
            for step in self._folder.steps(units):
                if step >= each.step:
                    self._folder.step_file(units, step).unlink(missing_ok=True)
            self._folder.note("resumed", step=each.step, dropped=dropped)
        say(f"{each.name} was written anew: the records of steps {_listed(dropped)} are dropped")

    def _put(self, step: int, read: _Read) -> None:
        if self._read.get(step) != read:
            self._read[step] = read
            self._write()

    def _write(self) -> None:
        content = {str(step): asdict(each) for step, each in sorted(self._read.items())}
        try:
            self._file.parent.mkdir(exist_ok=True)  # object storage keeps no empty folder
            write_whole(self._file, json.dumps(content).encode())
        except OSError as error:
            raise RecordError(f"{self._file} cannot be written ({error.strerror or error})") from error


def _known(entry: Any) -> _Read:
    files = tuple((str(name), int(size), int(time)) for name, size, time in entry["files"])
    return _Read(files, str(entry["digest"]), bool(entry["past"]))


def _listed(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:5]))
    return f"{shown} and {len(steps) - 5} later ones" if len(steps) > 5 else shown or "none"
