"""The dispatcher's side of its thread: it uses the disk, feeds the worker one task at a time, and watches it.

One queue carries everything that can happen to the thread: a new sample, a finished task, something to be called, the
wish to stop. No lock that the training thread takes is held while the disk is used.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Literal

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import FolderBusyError, RecordError, described
from topo_callback.records.chain import CLOSED, Chain
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.held import Open
from topo_callback.records.record import read_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import show_if_asked
from topo_callback.worker.executor import WorkerExecutor, at_exit
from topo_callback.worker.self_check import EngineCheckError
from topo_callback.worker.spool import Call, Concluded, Lost, Outcome, Spool, Task
from topo_callback.worker.task import conclude_run, draw_run, measure_spooled, warm_up, write_run_page

_MOST_DEATHS = 3
_RETRY_SECONDS = 5.0
# what a disk refuses for a while; any other error of a task is a death
_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EFBIG}
)
_LAST = {"verdict": conclude_run, "draw": draw_run, "page": write_run_page}  # what is done for a run at its end
_WARM_UP_SECONDS = 600.0  # compiling every kernel on a slow machine

logger = logging.getLogger("topo_callback")


class DispatcherThread:
    """Spools samples, runs tasks with a deadline, restarts a dead worker, and gives up after three deaths in a row.

    Attributes:
        stopped: why monitoring ended before its time; None while it goes on.
        waiting: samples left in the spool, once `settle` has come to its end.
    """

    def __init__(
        self,
        folder: TrajectoryFolder,
        config: TopologyConfig,
        executor: WorkerExecutor | Executor,
        *,
        threads: int,
        on_exit: Callable[[], None],
        observe: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self.stopped: str | None = None
        self.waiting = 0
        self._folder = folder
        self._config = config
        self._executor = executor
        self._threads = threads
        self._messages: queue.SimpleQueue[Sample | Call | str] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._pending = 0
        self._changed = threading.Condition()
        self._spool = Spool(folder, config.spool_bytes)
        self._chain: Chain | None = None
        self._running: Task | None = None
        self._warm = False
        self._last: deque[str] = deque()
        self._deaths = 0
        self._retry_at = 0.0
        self._warned_disk = False
        self._run_json: Mapping[str, Any] = {}
        self._newest = -1  # step whose snapshot has been handed on
        self._remade_for = -1  # step that was tried again after its folder had been gone
        self._ending = False
        self._settled = threading.Event()
        self._exit_registered = False
        self._on_exit = on_exit
        self._observe = observe  # called with each snapshot, here
        self._thread = threading.Thread(target=self._run, name="topo-dispatcher", daemon=True)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._end_worker()
            self._seal(CLOSED, None)
            self._folder.unlock()

    def _turn(self) -> bool:
        """Do what the next message asks for, and what has become possible; whether to go on."""
        try:
            message = self._messages.get(timeout=self._patience())
        except queue.Empty:
            message = "look"
        try:
            if message == "stop":
                self._lose_held("the run ended before the sample could be written to disk")
                return False
            if isinstance(message, str) and message in _LAST:
                self._last.append(message)
            elif isinstance(message, Sample):
                self._hold(message)
            elif isinstance(message, Call):
                self._call(message)
            self._flush_held()
            self._check_running()
            self._start_next()
        except BaseException as error:  # noqa: BLE001 - whatever is wrong with monitoring, training goes on
            self._stop(described(error))
            show_if_asked(error)
        return message != "stop"

    def _call(self, call: Call) -> None:
        try:
            call.function(*call.arguments, **call.options)
        except (OSError, RecordError) as error:
            logger.debug("%s: %s", getattr(call.function, "__name__", "a call"), described(error))

    def _settle(self, finished: bool) -> None:
        """What is left to do when nothing more is waited for, but for the last lines of the journal."""
        self._ending = True
        self._retry_at = 0.0
        self._flush_held()
        self._lose_held("the run ended before the sample could be written to disk")
        self._check_running()
        self._running = None
        self._end_worker()
        try:
            self._hand_on_recorded()
            self.waiting = len(self._folder.steps(self._folder.spool))
        except (OSError, RecordError) as error:
            logger.debug("the folder cannot be looked at: %s", described(error))
        if finished:
            self._note("finished", waiting=self.waiting)
        self._settled.set()

    def _hand_on_recorded(self) -> None:
        """Hand on what the worker recorded and had no time to report."""
        for step in self._folder.steps(self._folder.samples):
            if step > self._newest:
                try:
                    snapshot = Snapshot.from_record(*read_record(self._folder.step_file(self._folder.samples, step)))
                except (RecordError, OSError) as error:
                    logger.debug("record of step %d not handed on: %s", step, described(error))
                    continue
                self._observe(snapshot)
                self._outcomes.put(snapshot)

    def _end_worker(self) -> None:
        if isinstance(self._executor, WorkerExecutor):
            self._executor.shutdown()

    def _patience(self) -> float | None:
        """Seconds until something must be looked at without a message."""
        times = []
        if self._running is not None:
            times.append(self._running.deadline)
        idle = self._running is None and self.stopped is None and not self._ending
        waiting = idle and self._spool.next_step() is not None
        if self._spool.held or waiting:
            times.append(self._retry_at)
        return max(0.01, min(times) - time.monotonic()) if times else None

    def _hold(self, sample: Sample) -> None:
        if self.stopped is not None:
            self._lose(sample.step, f"monitoring had stopped: {self.stopped}")
        elif not self._spool.hold(sample):
            self._lose(sample.step, "the disk takes no samples and the memory set aside for them is full")

    def _flush_held(self) -> None:
        while self._spool.held and time.monotonic() >= self._retry_at:
            try:
                dropped = self._spool.flush()
            except (OSError, RecordError) as error:
                if isinstance(error, IsADirectoryError):
                    self._lose(self._spool.refuse(), "something else has the name of its file in the spool")
                    continue
                if not (isinstance(error, FileNotFoundError) and self._remade()):
                    self._disk_trouble(error)
                    return
            else:
                if dropped is not None:
                    self._lose(dropped, f"thinned: the spool holds {self._spool.bytes} bytes", event="thinned")

    def _remade(self) -> bool:
        """Make again what has been deleted of the folder; whether the folder is whole now."""
        try:
            missing = self._folder.remake(self._run_json)
        except (OSError, RecordError, FolderBusyError) as error:
            self._disk_trouble(error)
            return False
        if missing:
            running = set() if self._running is None else {self._running.step}
            for step in self._spool.forget_all_but(running | set(self._folder.steps(self._folder.spool))):
                self._lose(step, "its file was deleted")
            logger.warning("%s: %s had been deleted and is made again", self._folder.path, ", ".join(missing))
            self._note("remade", missing=missing)
        return True

    def _disk_trouble(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        if not self._warned_disk:
            self._warned_disk = True
            logger.warning(
                "cannot write to %s (%s); training goes on, recent samples are kept in memory and retried",
                self._folder.path,
                described(error),
            )

    def _check_running(self) -> None:
        task = self._running
        if task is None:
            return
        if task.future.done():
            self._running = None
            self._finish(task)
        elif time.monotonic() >= task.deadline:
            self._running = None
            task.future.cancel()
            self._death(task, f"no result within {self._config.deadline_seconds:g} s")

    def _finish(self, task: Task) -> None:
        error = CancelledError() if task.future.cancelled() else task.future.exception()
        result = None if error is not None else task.future.result()
        if task.kind == "measure" and isinstance(result, Snapshot):
            self._deaths = 0
            self._newest = max(self._newest, task.step)
            self._spool.measured(task.step)
            self._seal("sample", Open(), step=task.step)
            self._observe(result)
            self._resolve(result)
        elif task.kind in _LAST and error is None:
            self._resolve(Concluded(result if isinstance(result, Verdict) else None))
        elif isinstance(error, EngineCheckError):
            self._stop(str(error))
        elif isinstance(error, FileNotFoundError) and self._left_the_spool(task):
            self._spool.measured(task.step)
            self._lose(task.step, f"its file left the spool: {described(error)}")
        elif isinstance(error, FileNotFoundError) and task.kind == "measure" and task.step != self._remade_for:
            self._remade_for = task.step  # a folder that was deleted in the meantime is made again before the next try
        elif isinstance(error, OSError) and error.errno in _DISK_ERRORS and task.kind == "measure":
            self._disk_trouble(error)
        elif error is not None:
            show_if_asked(error)
            self._death(task, getattr(error, "described", None) or described(error))
        elif task.kind != "warm_up":
            self._death(task, f"the worker returned {type(result).__name__} instead of a snapshot")

    def _left_the_spool(self, task: Task) -> bool:
        return task.kind == "measure" and not self._folder.step_file(self._folder.spool, task.step).exists()

    def _death(self, task: Task, cause: str) -> None:
        """A task that failed: its sample is lost (its file stays for `topo-callback finish`), the worker restarted."""
        if isinstance(self._executor, WorkerExecutor):
            self._executor.kill()
        if task.kind in _LAST:
            self._note(f"no_{task.kind}", cause=cause)
            self._resolve(Concluded())
        elif task.kind == "measure":
            self._spool.give_up(task.step)
            self._lose(task.step, cause)
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                self._stop(f"{_MOST_DEATHS} samples in a row were lost, the last one by {cause}")

    def _lose(self, step: int, cause: str, event: str = "lost") -> None:
        self._note(event, step=step, cause=cause)
        self._resolve(Lost(step, cause))

    def _lose_held(self, cause: str) -> None:
        for step in self._spool.abandon():
            self._lose(step, cause)

    def _stop(self, reason: str) -> None:
        if self.stopped is not None:
            return
        self._note("stopped", reason=reason)
        self._lose_held(f"monitoring stopped: {reason}")
        with self._changed:
            self.stopped = reason
            self._changed.notify_all()
        logger.warning("monitoring stopped, training goes on: %s", reason)

    def _resolve(self, outcome: Outcome) -> None:
        self._outcomes.put(outcome)
        with self._changed:
            self._pending -= 1
            self._changed.notify_all()

    def _note(self, event: str, **details: Any) -> None:
        try:
            self._folder.note(event, **details)
        except (OSError, RecordError) as error:
            logger.debug("journal entry %s %s not written: %s", event, details, described(error))

    def _seal(self, event: str, is_open: Open | None, **details: Any) -> None:
        try:
            self._chain = self._chain or Chain.read(self._folder)
            self._chain.seal(event, is_open, **details)
        except (OSError, RecordError) as error:
            logger.debug("no link could be added to the chain: %s", described(error))

    def _start_next(self) -> None:
        if self._running is not None or self.stopped is not None or self._ending or time.monotonic() < self._retry_at:
            return
        path = str(self._folder.path)
        if not self._warm:
            self._warm = True
            engines = self._config.engine, self._config.zigzag_engine
            self._submit("warm_up", -1, warm_up, *engines, self._config.subsamples, False)
        elif self._spool.next_step() is not None and not self._remade():
            return
        elif (step := self._spool.next_step()) is not None:
            self._submit("measure", step, measure_spooled, path, step, self._threads)
        elif self._last and not self._spool.held:
            kind: Any = self._last.popleft()
            self._submit(kind, -1, _LAST[kind], path)

    def _submit(
        self,
        kind: Literal["warm_up", "measure", "verdict", "draw", "page"],
        step: int,
        function: Callable[..., Any],
        *arguments: Any,
    ) -> None:
        future: Future[Any]
        try:
            future = self._executor.submit(function, *arguments)
        except BaseException as error:  # noqa: BLE001 - a broken executor of the user's is a death like any other
            future = Future()
            future.set_exception(error)
        if not self._exit_registered:
            # after the executor registered its own hook, so that ours runs before it
            self._exit_registered = True
            at_exit(self._on_exit)
        seconds = max(self._config.deadline_seconds, _WARM_UP_SECONDS if kind == "warm_up" else 0)
        self._running = Task(kind, step, future, time.monotonic() + seconds)
        future.add_done_callback(lambda _: self._messages.put("look"))
