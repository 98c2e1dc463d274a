"""What a sink is: three calls, made on the training thread, none of which can stop training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from topo_callback.records.snapshot import Snapshot


@runtime_checkable
class Sink(Protocol):
    """Where finished numbers go. Any object with these three methods will do; no base class is needed.

    A sink whose method raises an Exception gets no further calls in that run; one warning says so.

    A sink that has alerts may also have a method `alert(event, cooldown_seconds)`: it is called once for each `Event`
    that is found in the run, see `topo_callback.dynamics`.
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
