"""Recorder: the first rank's way from samples to files and sinks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.errors import RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.protocol import Sink
from topo_callback.watching.actions import Actions, EventFunction
from topo_callback.watching.dominance import DominanceWatch
from topo_callback.watching.pace import Pace
from topo_callback.worker.at_exit import at_exit
from topo_callback.worker.dispatcher import Dispatcher, Lost
from topo_callback.worker.executor import WorkerExecutor

logger = logging.getLogger("topo_callback")


_open_recorders: weakref.WeakValueDictionary[str, Recorder] = weakref.WeakValueDictionary()


def close_left_open(folder: Path) -> None:
    """Close what a training run of this process that ended with an exception left open on a folder."""
    recorder = _open_recorders.get(str(folder.resolve()))
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
    ) -> None:
        self.folder = folder
        self._config = config
        self._sinks = list(sinks)
        self._on_event = on_event
        self.pace = Pace()
        self.actions = self._actions(())
        self._dominance = DominanceWatch(self.note)
        self._warned_loss = False
        self._closed = False
        self._steps: set[int] = set()
        self._newest_sent = -1
        if executor is None:
            executor = WorkerExecutor(folder.worker_log, threads=threads, memory_bytes=config.worker_bytes)
        self._dispatcher = Dispatcher(folder, config, executor, threads=threads, on_exit=self.close)

    def start(self) -> None:
        """Start sinks and worker, first with what an earlier process of this run left in the spool."""
        run = self.folder.read_run()
        _open_recorders[str(self.folder.path.resolve())] = self
        trackers: dict[str, Any] = {}
        for sink in list(self._sinks):
            facts = self._call(sink, "start", run, self.folder.path)
            trackers.update(facts if isinstance(facts, Mapping) else {})
        self.folder.write_run({**run, "trackers": {**run.get("trackers", {}), **trackers}})
        journal = self.folder.journal()
        recorded = self.folder.steps(self.folder.samples)
        self.actions = self._actions(
            [each for each in journal if each["event"] == "event" and recorded and each["known_at"] <= recorded[-1]]
        )
        self._dominance = DominanceWatch(self.note, journal)
        self._steps = set(recorded) | set(self.folder.steps(self.folder.spool))
        self._newest_sent = max(recorded, default=-1)
        at_exit(self.close)
        self._dispatcher.start(self.folder.steps(self.folder.spool))

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
        self._dispatcher.put(sample)

    def note(self, event: str, **details: Any) -> None:
        """Write a decision to the journal; returns at once."""
        if not self._closed:
            self._dispatcher.note(event, **details)
            return
        try:
            self.folder.note(event, **details)
        except OSError as error:
            logger.debug("journal entry %s not written: %s", event, error)

    def poll(self) -> None:
        """Forward what has finished to the sinks."""
        for outcome in self._dispatcher.outcomes():
            if isinstance(outcome, Snapshot):
                self._send(outcome)
                self.pace.observe(outcome.provenance.get("velocity"))
                self.actions.take(outcome.provenance.get("events", ()))
            elif isinstance(outcome, Lost) and not self._warned_loss and self.stopped is None:
                self._warned_loss = True
                logger.warning(
                    "sample of step %d was lost: %s (later losses go to %s only)",
                    outcome.step,
                    outcome.cause,
                    self.folder.journal_file,
                )

    def close(self, *, finished: bool = False, drain_seconds: float | None = None) -> None:
        """Draw the pictures of the run, wait for pending samples as long as the configuration allows, end the worker.

        Args:
            finished: the run came to its end, as opposed to being interrupted.
            drain_seconds: longest wait for pending samples; None: what the configuration allows.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if finished:
                self._dispatcher.draw_run()
            self._dispatcher.drain(self._config.drain_seconds if drain_seconds is None else drain_seconds)
            self._dispatcher.close()
            self.poll()
            self._send_recorded()
            waiting = len(self.folder.steps(self.folder.spool))
            if finished:
                self.note("finished", waiting=waiting)
            if waiting:
                logger.warning(
                    "%d samples still wait to be measured; `topo-callback finish %s` does it, for the record on disk",
                    waiting,
                    self.folder.path,
                )
            for sink in list(self._sinks):
                self._call(sink, "finish", self.folder.path)
        except Exception as error:  # noqa: BLE001 - the end of monitoring is never the end of a run
            logger.warning("monitoring ended with %s: %s", type(error).__name__, error)
        finally:
            self._dispatcher.close()  # again, where an interrupt came before it
            self.folder.unlock()

    def _send(self, snapshot: Snapshot) -> None:
        self._newest_sent = snapshot.step
        self._dominance.take(snapshot)
        for sink in list(self._sinks):
            self._call(sink, "log", snapshot)

    def _send_recorded(self) -> None:
        """Hand on what the worker recorded and had no time to report."""
        for step in self.folder.steps(self.folder.samples):
            if step > self._newest_sent:
                try:
                    snapshot = Snapshot.from_record(*read_record(self.folder.step_file(self.folder.samples, step)))
                except (RecordError, OSError) as error:
                    logger.debug("record of step %d not handed on: %s", step, error)
                    continue
                self._send(snapshot)

    def _actions(self, known: Sequence[Mapping[str, Any]]) -> Actions:
        return Actions(self._config, on_event=self._on_event, note=self.note, alert=self._alert, known=known)

    def _alert(self, event: Event) -> None:
        for sink in list(self._sinks):
            if hasattr(sink, "alert"):
                self._call(sink, "alert", event, self._config.alert_cooldown_seconds)

    def _call(self, sink: Sink, method: str, *arguments: Any) -> Any:
        """Call a sink; one that raises gets no further calls."""
        try:
            return getattr(sink, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - a sink may raise anything; training does not hear of it
            self._sinks.remove(sink)
            self.note("sink_dead", sink=type(sink).__name__, method=method, cause=f"{type(error).__name__}: {error}")
            logger.warning(
                "%s failed in %s (%s: %s) and gets no further numbers; the record in %s goes on",
                type(sink).__name__,
                method,
                type(error).__name__,
                error,
                self.folder.path,
            )
            return None
