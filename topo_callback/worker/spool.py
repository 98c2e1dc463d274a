"""The spool: samples that wait for the worker, in memory only until they are on disk; and what comes of each task."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot


@dataclass(frozen=True)
class Lost:
    """A sample without a snapshot, and why."""

    step: int
    cause: str


@dataclass(frozen=True)
class Concluded:
    """One of the last things to be done for a run is done, or cannot be.

    Attributes:
        verdict: that was asked for; None for pictures and page, and where it could not be made.
    """

    verdict: Verdict | None = None


Outcome = Snapshot | Lost | Concluded


@dataclass(frozen=True)
class Call:
    """Something that uses the disk."""

    function: Callable[..., object]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class Task:
    kind: Literal["warm_up", "measure", "verdict", "draw", "page"]
    step: int  # of a measurement; -1 otherwise
    future: Future[Any]
    deadline: float


_HELD_BYTES = 256 << 20


class Spool:
    """Samples on their way to the worker, oldest first, bounded in memory and on disk.

    Early samples have precedence over late ones: what has no place any more is what came last.

    Args:
        folder: the trajectory folder.
        limit: bytes that waiting samples may take on disk.
    """

    def __init__(self, folder: TrajectoryFolder, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._held: list[Sample] = []
        self._held_bytes = 0
        self._waiting: dict[int, int] = {}  # step -> bytes
        self._bytes = 0

    @property
    def held(self) -> bool:
        """Whether some sample is not on disk yet."""
        return bool(self._held)

    @property
    def bytes(self) -> int:
        """Bytes on disk, those of lost samples included: their files stay."""
        return self._bytes

    def next_step(self) -> int | None:
        """The earliest step that waits on disk."""
        return min(self._waiting, default=None)

    def hold(self, sample: Sample) -> bool:
        """Take a sample; False when the disk has refused so many that there is no memory for another."""
        if self._held and self._held_bytes + sample.nbytes > _HELD_BYTES:
            return False
        self._held.append(sample)
        self._held_bytes += sample.nbytes
        return True

    def flush(self) -> int | None:
        """Write the oldest held sample; its step when there was no place for it and it was dropped.

        Raises:
            OSError: the disk refuses; the sample is still held.
            RecordError: the spool is a symbolic link; the sample is still held.
        """
        sample = self._held[0]
        data = sample.encode()
        fits = self._bytes + len(data) <= self._limit
        if fits:
            write_whole(self._folder.step_file(self._folder.spool, sample.step), data)
            self.found(sample.step, len(data))
        self._held_bytes -= self._held.pop(0).nbytes
        return None if fits else sample.step

    def refuse(self) -> int:
        """Forget the oldest held sample, which can never be written; its step."""
        sample = self._held.pop(0)
        self._held_bytes -= sample.nbytes
        return sample.step

    def forget_all_but(self, steps: set[int]) -> list[int]:
        """Count the files of these steps only, since others have been deleted; the steps of those, ascending."""
        gone = sorted(set(self._waiting) - steps)
        for step in gone:
            self.measured(step)
        return gone

    def found(self, step: int, size: int) -> None:
        """A sample is on disk, written now or by an earlier process."""
        self._waiting[step] = size
        self._bytes += size

    def measured(self, step: int) -> None:
        """The file of a step has left the spool."""
        self._bytes -= self._waiting.pop(step, 0)

    def give_up(self, step: int) -> None:
        """A step is not tried again in this process; its file stays for `topo-callback finish`."""
        self._waiting.pop(step, None)

    def abandon(self) -> list[int]:
        """Forget the samples that never came to disk; their steps."""
        steps = [sample.step for sample in self._held]
        self._held, self._held_bytes = [], 0
        return steps
