"""StepsRecord: what training says at its optimizer steps, written and looked at on the thread that uses the disk."""

from __future__ import annotations

import dataclasses
import logging
import queue
from collections.abc import Callable, Sequence
from typing import Any

from topo_callback.dynamics.identity import identity_of
from topo_callback.dynamics.references import References
from topo_callback.dynamics.series import training_of
from topo_callback.dynamics.training import TrainingWatch
from topo_callback.errors import TopologyError, described
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.training_steps import Row, StepsWriter, TrainingSteps

logger = logging.getLogger("topo_callback")


class StepsRecord:
    """Takes rows from the training thread, and gives it the events that they show.

    Looking takes some 2 ms of that other thread for any number of new rows, and rows come twice a second at most; the
    worker may be busy with a sample for longer than an alert should wait.

    Args:
        folder: of the run.
        tell: has something called on the thread that uses the disk, in its turn, and returns at once.
        references: file of the runs that this one is judged against.
    """

    def __init__(self, folder: TrajectoryFolder, tell: Callable[..., None], *, references: str | None = None) -> None:
        self._folder, self._tell, self._references = folder, tell, references
        self._writer = StepsWriter(folder.training_steps)
        self._logged = StepsWriter(folder.logged, LOGGED_COLUMNS)
        self._watch: TrainingWatch | None = TrainingWatch()
        self._found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def begin(self) -> None:
        """Look at the steps of before, of a run that goes on; returns at once."""
        self._tell(self._know)

    def put(self, rows: Sequence[Row]) -> None:
        """Hand over new steps; returns at once."""
        self._tell(self._take, rows)

    def put_logged(self, rows: Sequence[Row]) -> None:
        """Hand over what the trainer has logged; returns at once."""
        self._tell(self._logged.append, rows)

    def found(self) -> list[dict[str, Any]]:
        """The events since the last call, as JSON objects; never waits."""
        found = []
        while not self._found.empty():
            found.append(self._found.get())
        return found

    def _know(self) -> None:
        self._watch = self._watch_for(self._references)
        training = training_of(self._folder)
        if training is not None:
            self._look_at(training)

    def _watch_for(self, references: str | None) -> TrainingWatch:
        """A watch that judges by these references, which the start of the run has checked."""
        if references is None:
            return TrainingWatch()
        try:
            known = References.load(references)
            unsaid = known.unsaid(identity_of(self._folder.read_run()))
            return TrainingWatch(known.course, measured=not unsaid)
        except (TopologyError, OSError) as error:
            logger.warning("changes of training are judged by the run alone: %s", described(error))
            return TrainingWatch()

    def _take(self, rows: Sequence[Row]) -> None:
        self._look_at(TrainingSteps.of(rows))
        self._writer.append(rows)

    def _look_at(self, steps: TrainingSteps) -> None:
        """Events that are known already are told again, of a run that goes on: they are acted on once."""
        try:
            for event in [] if self._watch is None else self._watch.take(steps):
                self._found.put(dataclasses.asdict(event))
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the events; the steps are recorded all the same
            self._watch = None
            logger.warning("events of training steps are no longer looked for: %s", described(error))
