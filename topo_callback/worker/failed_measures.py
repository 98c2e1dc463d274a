"""Measures that failed, said once each: in the journal by whoever measures, on the terminal by who watches."""

from __future__ import annotations

import contextlib
import logging

from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.snapshot import Snapshot

logger = logging.getLogger("topo_callback")


def failed_measures(snapshot: Snapshot) -> dict[str, str]:
    """measure -> why it has no numbers in this sample, or not all; by type and place where it raised."""
    failed = snapshot.provenance.get("failed_measures")
    return {str(name): str(reason) for name, reason in failed.items()} if isinstance(failed, dict) else {}


def note_failed_measures(folder: TrajectoryFolder, snapshot: Snapshot) -> None:
    """Write a line to the journal for each measure that failed for the first time; what the disk refuses is left."""
    failed = failed_measures(snapshot)
    if not failed:
        return
    with contextlib.suppress(OSError):
        known = {entry.get("measure") for entry in folder.journal() if entry["event"] == "measure_failed"}
        for name, reason in failed.items():
            if name not in known:
                folder.note("measure_failed", step=snapshot.step, measure=name, cause=reason)


class FailedMeasures:
    """Warns of each measure that failed, once."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def observe(self, snapshot: Snapshot) -> None:
        """Look at the newest sample."""
        for name, reason in failed_measures(snapshot).items():
            if name not in self._known:
                self._known.add(name)
                logger.warning(
                    "the measure %r failed at step %d: %s (its numbers are missing; later failures are in the record)",
                    name,
                    snapshot.step,
                    reason,
                )
