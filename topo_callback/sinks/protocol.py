"""What a sink is: three calls, made on the training thread, none of which can stop training; and one that keeps all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.snapshot import Snapshot


@runtime_checkable
class Sink(Protocol):
    """Where finished numbers go. Any object with these three methods will do; no base class is needed.

    A sink whose method raises an Exception gets no further calls in that run; one warning says so.

    A sink that keeps events may also have a method `event(event)`: it is called once for each `Event` that is found in
    the run, see `topo_callback.dynamics`. One that has alerts may have `alert(event, cooldown_seconds)`, called after
    it for those whose error rate is known, and for rules of one's own that ask for it. And one that says how it all
    came out may have `conclude(verdict)`, called once before `finish` with the `Verdict` on a run that came to its end.
    """

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Called once before the first snapshot.

        Args:
            run: content of run.json: run id, configuration, probe hash, layers, model, versions.
            folder: the trajectory folder of this run.

        Returns:
            JSON-compatible facts to keep beside the trajectory, such as the tracker's run id.
        """

    def log(self, snapshot: Snapshot) -> None:
        """Called once for every finished snapshot, in the order of their steps."""

    def finish(self, folder: Path) -> None:
        """Called once at the end; the folder then holds the whole trajectory and its pictures."""


class MemorySink:
    """Keeps what it is given, so that tests can look at it.

    Attributes:
        run: content of run.json; None before the start.
        folder: the trajectory folder; None before the start.
        snapshots: every snapshot that was logged, in order.
        verdict: on the run, once it has come to its end.
        events: every event that was told, in order.
        finished: how often the end was announced.
    """

    def __init__(self) -> None:
        self.run: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.snapshots: list[Snapshot] = []
        self.verdict: Verdict | None = None
        self.events: list[Any] = []
        self.finished = 0

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        self.run = dict(run)
        self.folder = folder
        return {}

    def log(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def event(self, event: Any) -> None:
        self.events.append(event)

    def conclude(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def finish(self, folder: Path) -> None:
        self.finished += 1

    @property
    def steps(self) -> list[int]:
        """The steps of the logged snapshots."""
        return [snapshot.step for snapshot in self.snapshots]
