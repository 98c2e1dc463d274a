"""Recorder: the first rank's way from samples to files and sinks."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.protocol import Sink
from topo_callback.watching.actions import Actions, EventFunction
from topo_callback.watching.pace import Pace
from topo_callback.worker.at_exit import at_exit
from topo_callback.worker.dispatcher import Dispatcher, Lost
from topo_callback.worker.executor import WorkerExecutor

# settings that change what the numbers mean: a resumed run keeps them
_DECIDING = (
    "layers", "blocks", "pooling", "tap", "metric", "neighbours", "max_dimension", "landmarks", "subsamples",
    "subsample_size", "zigzag_dimension", "time_window", "seed",
)  # fmt: skip

_MARK = "topo_callback.json"  # the file that a checkpoint gets

logger = logging.getLogger("topo_callback")


def open_folder(
    root: Path, run: Mapping[str, Any], step: int, *, checkpoint: Path, again: Path | None = None
) -> TrajectoryFolder:
    """The locked folder of a run: its own when it is resumed at a later step than 0, a new one otherwise.

    Records of steps that are done anew are dropped. run.json is written.

    Args:
        root: where the folders of runs are.
        run: content of run.json.
        step: optimizer steps already done.
        checkpoint: the folder of the checkpoint of that step, which says whose it is; it need not exist.
        again: the folder of the same run when the trainer starts it over with a smaller batch.

    Raises:
        ConfigurationError: the run to be resumed had another probe, or settings that change what the numbers mean.
        FolderBusyError: another process is writing the folder.
    """
    folder = TrajectoryFolder(again) if again else _folder_to_resume(root, checkpoint) if step > 0 else None
    if folder is None:
        folder = TrajectoryFolder.new(root)
        before: dict[str, Any] = {}
    else:
        before = folder.read_run()
        _refuse_other_run(before, run)
        _close_left_open(folder)
    folder.lock()
    try:
        dropped = folder.drop_after(step if step > 0 else -1)
        folder.write_run({**before, **run, "run_id": folder.run_id})
        folder.note("resumed" if before else "started", step=step, dropped=dropped)
    except BaseException:
        folder.unlock()
        raise
    return folder


def last_facts(folder: TrajectoryFolder) -> Mapping[str, Any]:
    """The facts of the newest sample that is recorded or waits in the spool; none when there is no sample."""
    recorded, waiting = folder.steps(folder.samples), folder.steps(folder.spool)
    for step in sorted({*recorded, *waiting}, reverse=True):
        try:
            if step in waiting:
                return Sample.read(folder.step_file(folder.spool, step)).facts
            facts: Mapping[str, Any] = Snapshot.from_record(
                *read_record(folder.step_file(folder.samples, step))
            ).provenance["facts"]
            return facts
        except (RecordError, OSError, LookupError):
            continue
    return {}


def mark_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Leave the run's id with a checkpoint, so that resuming from it continues this run and no other.

    Raises:
        OSError: the checkpoint cannot be written.
    """
    (checkpoint / _MARK).write_text(json.dumps({"run_id": folder.name}) + "\n")


def recorded_batch_size(root: Path, checkpoint: Path) -> int | None:
    """Prompts per forward pass of the run that a checkpoint belongs to; None where there is none."""
    folder = _folder_to_resume(root, checkpoint)
    return None if folder is None else int(folder.read_run()["reading"]["probe_batch"])


def _folder_to_resume(root: Path, checkpoint: Path) -> TrajectoryFolder | None:
    """The folder of the run that saved a checkpoint; the newest one where the checkpoint does not say."""
    try:
        run_id = json.loads((checkpoint / _MARK).read_text())["run_id"]
    except (OSError, ValueError, LookupError):
        run_id = None
    try:
        if isinstance(run_id, str) and run_id == Path(run_id).name and (root / run_id).is_dir():
            return TrajectoryFolder.find(root / run_id)
        return TrajectoryFolder.find(root)
    except RecordError:
        return None


def _close_left_open(folder: TrajectoryFolder) -> None:
    """Close what a training run of this process that ended with an exception left open on the folder."""
    recorder = _open_recorders.get(str(folder.path.resolve()))
    if recorder is not None:
        recorder.close(drain_seconds=0.0)


def _refuse_other_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before["probe"]["hash"], now["probe"]["hash"]
    if old != new:
        raise ConfigurationError(
            f"this run is resumed with another probe: its trajectory has probe {old}, now it is {new}; give the same "
            "probe, or another folder=... to start a new trajectory"
        )
    for name in _DECIDING:
        if before["config"].get(name) != now["config"].get(name):
            raise ConfigurationError(
                f"this run is resumed with another setting: its trajectory has {name}={before['config'].get(name)!r}, "
                f"now it is {now['config'].get(name)!r}; give the same setting, or another folder=... to start a new "
                "trajectory"
            )


_open_recorders: weakref.WeakValueDictionary[str, Recorder] = weakref.WeakValueDictionary()


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
