"""A sink that keeps what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.records.snapshot import Snapshot


class MemorySink:
    """Keeps what it is given, so that tests can look at it.

    Attributes:
        run: content of run.json; None before the start.
        folder: the trajectory folder; None before the start.
        snapshots: every snapshot that was logged, in order.
        finished: how often the end was announced.
    """

    def __init__(self) -> None:
        self.run: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.snapshots: list[Snapshot] = []
        self.finished = 0

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        self.run = dict(run)
        self.folder = folder
        return {}

    def log(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def finish(self, folder: Path) -> None:
        self.finished += 1

    @property
    def steps(self) -> list[int]:
        """The steps of the logged snapshots."""
        return [snapshot.step for snapshot in self.snapshots]
