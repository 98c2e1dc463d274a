"""Recorder: the first rank's way from samples to files and sinks."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.dynamics.dominance import DominanceWatch
from topo_callback.dynamics.rules import KIND as RULE
from topo_callback.dynamics.rules import Rule
from topo_callback.dynamics.series import training_of
from topo_callback.dynamics.training import OF_TRAINING
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import USERS_OWN, LateError, RecordError, described
from topo_callback.records.files import read_plain, refuse_link
from topo_callback.records.folder import TrajectoryFolder, writing_key
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.training_steps import Row
from topo_callback.records.waiting import LEAST_SECONDS, Patience
from topo_callback.sinks.protocol import Sink
from topo_callback.terminal import show_if_asked
from topo_callback.watching.actions import Actions, EventFunction
from topo_callback.watching.schedule import Pace
from topo_callback.watching.steps_record import StepsRecord
from topo_callback.worker.dispatcher import Dispatcher
from topo_callback.worker.early import take_early
from topo_callback.worker.executor import WorkerExecutor, at_exit
from topo_callback.worker.failed_measures import FailedMeasures
from topo_callback.worker.spool import Concluded, Lost
from topo_callback.worker.task import conclude_run

_MOST_OF_A_PICTURE = 64 << 20  # bytes
logger = logging.getLogger("topo_callback")

_SETTLE_SECONDS = 5.0  # for a disk to take what it has been given, after the drain
_INTERRUPTED_SECONDS = 1.0  # the same after an interrupt

_open_recorders: weakref.WeakValueDictionary[str, Recorder] = weakref.WeakValueDictionary()


def close_left_open(key: str) -> None:
    """Close what a training run of this process that ended with an exception left open on a folder.

    Args:
        key: the folder's `writing_key`.
    """
    recorder = _open_recorders.get(key)
    if recorder is not None:
        recorder.close(drain_seconds=0.0)


class Recorder:
    """Hands samples to the worker and finished numbers to the sinks. No call raises an Exception."""

    def __init__(
        self,
        folder: TrajectoryFolder,
        config: TopologyConfig,
        sinks: Sequence[Sink],
        executor: WorkerExecutor | Executor | None,
        *,
        threads: int,
        on_event: Sequence[EventFunction] = (),
        rules: Sequence[Rule] = (),
    ) -> None:
        self.folder = folder
        self._config = config
        self._sinks = list(sinks)
        self._on_event = on_event
        self._rules = tuple(rules)
        self.pace = Pace()
        self.actions = self._actions(())
        self._dominance = DominanceWatch(self.note)
        self._verdict: Verdict | None = None
        self._warned_loss = False
        self._failed_measures = FailedMeasures()
        self._closed = False
        self._disk_late = False
        self._steps: set[int] = set()
        self._handed_over: set[int] = set()  # without an outcome yet
        if executor is None:
            executor = take_early(folder.worker_log, threads=threads, memory_bytes=config.worker_bytes)
        self._dispatcher = Dispatcher(
            folder, config, executor, threads=threads, on_exit=self.close_at_exit, observe=self._observe
        )
        self._training = StepsRecord(folder, self._dispatcher.tell, references=config.references, rules=self._rules)

    def start(self, patience: Patience | None = None) -> None:
        """Start sinks and worker, first with what an earlier process of this run left in the spool.

        Args:
            patience: how long to wait for the disk.

        Raises:
            RecordError, OSError: the folder cannot be read. LateError: the disk does not answer in time.
        """
        kept = (patience or Patience(LEAST_SECONDS)).ask(_kept_of, self.folder)
        _open_recorders[kept.key] = self
        trackers: dict[str, Any] = {}
        for sink in list(self._sinks):
            facts = self._call(sink, "start", kept.run, self.folder.path)
            trackers.update(facts if isinstance(facts, Mapping) else {})
        self.actions = self._actions(kept.events)
        self._dominance = DominanceWatch(self.note, kept.journal)
        self._steps = {*kept.recorded, *kept.waiting}
        at_exit(self.close_at_exit)
        self._dispatcher.start(kept.run, kept.waiting, max(kept.recorded, default=-1))
        self._training.begin()
        self._dispatcher.describe({**kept.run, "trackers": {**kept.run.get("trackers", {}), **trackers}})

    @property
    def stopped(self) -> str | None:
        """Why monitoring ended before its time; None while it goes on."""
        return self._dispatcher.stopped

    def has(self, step: int) -> bool:
        """Whether a step is already recorded or waits in the spool."""
        return step in self._steps

    def put(self, sample: Sample) -> None:
        """Hand over a sample; returns at once."""
        self._steps.add(sample.step)
        self._handed_over.add(sample.step)
        self._dispatcher.put(sample)

    def put_steps(self, rows: Sequence[Row]) -> None:
        """Hand over what training said at optimizer steps; returns at once."""
        self._training.put(rows)

    def put_logged(self, rows: Sequence[Row]) -> None:
        """Hand over what the trainer has logged; returns at once."""
        if rows:
            self._training.put_logged(rows)

    def _observe(self, snapshot: Snapshot) -> None:
        self._training.observe(snapshot)

    def note(self, event: str, **details: Any) -> None:
        """Write a decision to the journal; returns at once."""
        self._dispatcher.note(event, **details)

    def tell(self, function: Callable[..., object], /, *arguments: Any) -> None:
        """Have something called that uses the disk, on a thread that may wait for it; returns at once."""
        self._dispatcher.tell(function, *arguments)

    def poll(self) -> None:
        """Forward what has finished to the sinks."""
        self.actions.take(self._training.found())
        for outcome in self._dispatcher.outcomes():
            if isinstance(outcome, (Snapshot, Lost)):
                self._handed_over.discard(outcome.step)
            if isinstance(outcome, Snapshot):
                self._send(outcome)
                self._failed_measures.observe(outcome)
                self.pace.observe(outcome.provenance.get("velocity"))
                self.actions.take(outcome.provenance.get("events", ()))
            elif isinstance(outcome, Concluded):
                self._verdict = outcome.verdict or self._verdict
            elif isinstance(outcome, Lost) and not self._warned_loss and self.stopped is None:
                self._warned_loss = True
                logger.warning(
                    "sample of step %d was lost: %s (later losses go to %s only)",
                    outcome.step,
                    outcome.cause,
                    self.folder.journal_file,
                )

    def close(self, *, finished: bool = False, drain_seconds: float | None = None, goes_on: bool = False) -> None:
        """Wait for pending samples, verdict, pictures and page as long as the configuration allows, end the worker.

        A disk that does not answer is waited for 5 s longer. An interrupt ends the wait at once.

        Args:
            finished: the run came to its end, as opposed to being interrupted.
            drain_seconds: longest wait for pending samples; None: what the configuration allows.
            goes_on: the run is started over in the same folder, which measures what waits.
        """
        if self._closed:
            return
        self._closed = True
        seconds = self._config.drain_seconds if drain_seconds is None else drain_seconds
        left = 0.0
        try:
            if finished:
                self._dispatcher.conclude(page=self._config.page)
            self._dispatcher.drain(seconds)
            settled = self._dispatcher.settle(finished=finished, seconds=_SETTLE_SECONDS)
            self.poll()
            left = _SETTLE_SECONDS if settled else 0.0
            self._say_what_waits(settled, goes_on)
            self._conclude(expected=finished and settled)
            self._finish_sinks(settled)
        except USERS_OWN:
            left = _INTERRUPTED_SECONDS
            logger.warning(
                "interrupted: what still waits in %s is measured by `topo-callback finish %s`",
                self.folder.spool,
                self.folder.path,
            )
            raise
        except BaseException as error:  # noqa: BLE001 - the end of monitoring is never the end of a run
            logger.warning("monitoring ended with %s", described(error))
            show_if_asked(error)
        finally:
            self._dispatcher.close(left)

    def close_at_exit(self) -> None:
        """End what a run that broke off left open, when the interpreter ends; no sample is waited for."""
        try:
            self.close(drain_seconds=0.0)
        except KeyboardInterrupt:
            return  # the process is ending already

    def _say_what_waits(self, settled: bool, goes_on: bool) -> None:
        waiting = self._dispatcher.waiting
        if not settled:
            steps = ", ".join(map(str, sorted(self._handed_over)))
            logger.warning(
                "the disk of %s does not answer; training goes on without what was still to be written there%s",
                self.folder.path,
                f" (samples without a record: steps {steps}; `topo-callback finish` does those in the spool)"
                if steps
                else "",
            )
        elif waiting and not goes_on:
            logger.warning(
                "%d %s to be measured; `topo-callback finish %s` does it, for the record on disk",
                waiting,
                "samples still wait" if waiting > 1 else "sample still waits",
                self.folder.path,
            )

    def _conclude(self, *, expected: bool) -> None:
        """Tell the sinks that tell it how the run came out; where the worker was too late to say, as far as it got."""
        if self._verdict is None and expected and self._sinks:
            with contextlib.suppress(OSError, RecordError, LateError):
                self._verdict = Patience(_SETTLE_SECONDS).ask(conclude_run, str(self.folder.path))
        if self._verdict is not None and self._verdict.samples:
            for sink in list(self._sinks):
                if hasattr(sink, "conclude"):
                    self._call(sink, "conclude", self._verdict)

    def _finish_sinks(self, settled: bool) -> None:
        """Sinks may read the whole folder here: where the disk does not answer, they are not waited for."""
        reachable = settled and self._answers(_read_pictures, self.folder, None)
        patience = Patience(_SETTLE_SECONDS)
        for sink in list(self._sinks):
            if reachable:
                self._call(sink, "finish", self.folder.path)
                continue
            try:
                patience.ask(self._call, sink, "finish", self.folder.path)
            except LateError:
                logger.warning("%s is left as it is: it waits for the disk", type(sink).__name__)

    def _answers(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Whether what sinks are about to read can be read now; a disk that was late is not asked again."""
        if self._disk_late:
            return False
        try:
            Patience(_SETTLE_SECONDS).ask(function, *arguments)
        except LateError:
            self._disk_late = True
            logger.warning("the disk of %s does not answer; trackers get no more pictures", self.folder.path)
            return False
        except (OSError, RecordError) as error:
            logger.debug("pictures: %s", described(error))
            return False
        return True

    def _send(self, snapshot: Snapshot) -> None:
        self._dominance.take(snapshot)
        pictures = snapshot.provenance.get("pictures", ())
        if self._sinks and pictures and not self._answers(_read_pictures, self.folder, tuple(pictures)):
            snapshot = replace(snapshot, provenance={**snapshot.provenance, "pictures": []})
        for sink in list(self._sinks):
            self._call(sink, "log", snapshot)

    def _actions(self, known: Sequence[Mapping[str, Any]]) -> Actions:
        return Actions(
            self._config,
            on_event=self._on_event,
            note=self.note,
            tell=self._tell_event,
            alert=self._alert,
            known=known,
            rules=self._rules,
        )

    def _tell_event(self, event: Event) -> None:
        for sink in list(self._sinks):
            if hasattr(sink, "event"):
                self._call(sink, "event", event)

    def _alert(self, event: Event) -> None:
        for sink in list(self._sinks):
            if hasattr(sink, "alert"):
                self._call(sink, "alert", event, self._config.alert_cooldown_seconds)

    def _call(self, sink: Sink, method: str, *arguments: Any) -> Any:
        """Call a sink; one that raises gets no further calls."""
        try:
            return getattr(sink, method)(*arguments)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - a sink may raise anything; training does not hear of it
            self._sinks.remove(sink)
            self.note("sink_dead", sink=type(sink).__name__, method=method, cause=described(error))
            show_if_asked(error)
            logger.warning(
                "%s failed in %s (%s) and gets no further numbers; the record in %s goes on",
                type(sink).__name__,
                method,
                described(error),
                self.folder.path,
            )
            return None


@dataclass(frozen=True)
class _Kept:
    """What a folder holds when a run begins or goes on.

    Attributes:
        run: content of run.json.
        journal: all of it.
        events: those in it, known by the newest recorded sample or training step.
        recorded: steps.
        waiting: steps in the spool -> bytes.
        key: the folder in the eyes of `close_left_open`.
    """

    run: dict[str, Any]
    journal: list[dict[str, Any]]
    events: list[dict[str, Any]]
    recorded: list[int]
    waiting: dict[int, int]
    key: str


def _kept_of(folder: TrajectoryFolder) -> _Kept:
    recorded = folder.steps(folder.samples)
    newest = max(recorded, default=-1)
    journal = folder.journal()
    training = training_of(folder)
    last = -1 if training is None else int(training.step[-1])
    # rules look at steps and at samples, and neither goes beyond the step that the run goes on from
    until = dict.fromkeys(OF_TRAINING, last) | {RULE: max(last, newest)}
    events = [entry for entry in journal if _is_event(entry) and entry["known_at"] <= until.get(entry["kind"], newest)]
    return _Kept(folder.read_run(), journal, events, recorded, folder.waiting(), writing_key(folder.path))


def _read_pictures(folder: TrajectoryFolder, names: Sequence[str] | None) -> None:
    """Read what sinks are about to read, so that it has answered and is in memory; None: all pictures."""
    refuse_link(folder.pictures)
    found = (
        [path.name for path in folder.pictures.glob("*.png")] if names is None else [Path(name).name for name in names]
    )
    for name in found:
        with contextlib.suppress(OSError, RecordError):
            read_plain(folder.pictures / name, _MOST_OF_A_PICTURE)


def _is_event(entry: Mapping[str, Any]) -> bool:
    """Whether a line of the journal is an event with all that makes it one; a damaged line is none."""
    texts, numbers, layers = ("kind", "level"), ("known_at", "first_step"), entry.get("layers")
    return (
        entry["event"] == "event"
        and all(isinstance(entry.get(name), str) for name in texts)
        and all(isinstance(entry.get(name), int) for name in numbers)
        and isinstance(layers, list)
        and all(isinstance(layer, int) for layer in layers)
    )
