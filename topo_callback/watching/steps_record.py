"""StepsRecord: what training says at its optimizer steps, written and looked at on the thread that uses the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
from collections.abc import Callable, Sequence
from typing import Any

from topo_callback.dynamics.identity import identity_of
from topo_callback.dynamics.references import References
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.rules import Rule, RuleWatch, numbers_of
from topo_callback.dynamics.series import logged_of, training_of
from topo_callback.dynamics.training import TrainingWatch
from topo_callback.errors import RecordError, TopologyError, described
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.training_steps import Row, StepsWriter, TrainingSteps

_BOTH = 2  # samples: the second one has numbers that compare with the first
logger = logging.getLogger("topo_callback")


class StepsRecord:
    """Takes rows from the training thread, and gives it the events that they show.

    Looking takes some 2 ms of that other thread for any number of new rows, and rows come twice a second at most; the
    worker may be busy with a sample for longer than an alert should wait.

    Args:
        folder: of the run.
        tell: has something called on the thread that uses the disk, in its turn, and returns at once.
        references: file of the runs that this one is judged against.
        rules: of one's own, which look at samples, too.
    """

    def __init__(
        self,
        folder: TrajectoryFolder,
        tell: Callable[..., None],
        *,
        references: str | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        self._rules: RuleWatch | None = RuleWatch(rules) if rules else None
        self._first: list[Snapshot] = []
        self._folder, self._tell, self._references = folder, tell, references
        self._writer = StepsWriter(folder.training_steps)
        self._logged = StepsWriter(folder.logged, LOGGED_COLUMNS)
        self._newest_logged: float | None = None
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
        self._tell(self._take_logged, rows)

    def observe(self, snapshot: Snapshot) -> None:
        """Look at a sample that has been measured; called on the thread that uses the disk, in the order of steps."""
        if self._rules is not None and self._rules.reads_samples:
            self._by_rules(self._take_sample, snapshot)

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
        if self._rules is not None:
            self._by_rules(self._know_by_rules, self._rules)

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

    def _take_logged(self, rows: Sequence[Row]) -> None:
        if self._newest_logged is None:
            logged = logged_of(self._folder)
            self._newest_logged = -1.0 if logged is None else float(logged.step[-1])
        # a trainer that goes on from a step may evaluate there once more
        rows = [row for row in rows if row[0] is not None and row[0] > self._newest_logged]
        self._newest_logged = max([self._newest_logged, *(row[0] for row in rows if row[0] is not None)])
        if self._rules is not None:
            self._by_rules(self._rules.take_logged, TrainingSteps.of(rows, LOGGED_COLUMNS))
        self._logged.append(rows)

    def _know_by_rules(self, rules: RuleWatch) -> list[Event]:
        logged = logged_of(self._folder)
        found = [] if logged is None else rules.take_logged(logged)
        for step in self._folder.steps(self._folder.samples) if rules.reads_samples else ():
            with contextlib.suppress(RecordError, OSError):  # a damaged sample says nothing
                path = self._folder.step_file(self._folder.samples, step)
                found += self._take_sample(Snapshot.from_record(*read_record(path)).without_arrays())
        return found

    def _take_sample(self, snapshot: Snapshot) -> list[Event]:
        assert self._rules is not None
        if len(self._first) < _BOTH:  # which have everything that a run has
            self._first.append(snapshot.without_arrays())
            unknown = self._rules.unknown(numbers_of(self._first)) if len(self._first) == _BOTH else {}
            for name, said in unknown.items():
                logger.warning("rule %r never comes true: %s", name, said)
                with contextlib.suppress(RecordError, OSError):  # a full disk costs no rule
                    self._folder.note("rule_unknown", rule=name, cause=said)
        return self._rules.take_sample(snapshot)

    def _by_rules(self, take: Callable[..., list[Event]], given: Any) -> None:
        """Hand on what rules say; a fault of ours costs the rules, and nothing else."""
        try:
            for event in take(given):
                self._found.put(dataclasses.asdict(event))
        except Exception as error:  # noqa: BLE001 - as below
            self._rules = None
            logger.warning("rules of your own are no longer looked at: %s", described(error))

    def _look_at(self, steps: TrainingSteps) -> None:
        """Events that are known already are told again, of a run that goes on: they are acted on once."""
        try:
            for event in [] if self._watch is None else self._watch.take(steps):
                self._found.put(dataclasses.asdict(event))
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the events; the steps are recorded all the same
            self._watch = None
            logger.warning("events of training steps are no longer looked for: %s", described(error))
        if self._rules is not None:
            self._by_rules(self._rules.take_steps, steps)
