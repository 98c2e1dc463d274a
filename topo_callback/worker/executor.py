"""The built-in executor: one process of our own that can be killed and started again, and ends with the interpreter."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from topo_callback.errors import RecordError, TopologyError
from topo_callback.homology.machine import allowed_threads, memory_here
from topo_callback.records.files import above_streams, open_plain
from topo_callback.worker.process import BOOTSTRAP, enter_run, receive, send

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_KILL_SECONDS = 5.0  # longest wait for a killed process, which one that waits for a disk may ignore


class TerminatedWorkerError(TopologyError, RuntimeError):
    """The worker ended before its task did."""


class WorkerExecutor:
    """One worker process, started at the first task and again after `kill`.

    The worker is a fresh interpreter, never a fork, and never imports the user's script. It sees no GPU, and is talked
    to over a pair of sockets: it needs no shared memory, no semaphore, no helper process and no standard stream. It is
    gone within 2 s of the trainer, however that ended; on Linux at once, also when it is stopped (SIGSTOP).
    """

    def __init__(self, log_file: Path | None, *, threads: int, memory_bytes: int | None) -> None:
        self.threads = threads
        self._log_file = log_file
        self._memory_bytes = memory_bytes if memory_bytes is not None else _half_of_memory()
        self._worker: _Worker | None = None
        self._ended = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run a function of an importable module in the worker; returns at once."""
        if self._ended:
            raise RuntimeError("the worker has been shut down")
        if self._worker is None:
            self._worker = _Worker(self._log_file, self.threads, self._memory_bytes)
        return self._worker.submit(function, arguments)

    @property
    def has_worker(self) -> bool:
        """Whether there is a process, as far as is known."""
        return self._worker is not None and self._worker.lives

    def enter_run(self, log_file: Path, *, threads: int, memory_bytes: int | None) -> None:
        """Go on for a run: the worker, if it has started, goes where this process is, and prints into this file.

        Its number of threads stays what it was until it is started again.
        """
        self.threads, self._log_file = threads, log_file
        self._memory_bytes = memory_bytes if memory_bytes is not None else _half_of_memory()
        if self._worker is not None and self.has_worker:
            self._worker.submit(enter_run, (str(log_file), self._memory_bytes, os.getcwd()))

    def kill(self, seconds: float = _KILL_SECONDS) -> None:
        """End the worker at once, whatever it is doing, and wait so long for it; the next task starts a new one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill(seconds)

    def shutdown(self) -> None:
        """End the worker for good."""
        self._ended = True
        self.kill()

    def abandon(self) -> None:
        """End the worker for good, without waiting for anything: as long as that takes there may still be a process."""
        self._ended = True
        if self._worker is not None:
            self._worker.end()


class _Worker:
    """One process, and the thread that starts it, gives it tasks in turn, and reaps it.

    The system ends the process with that very thread, so the thread lives as long as the process does.
    """

    def __init__(self, log_file: Path | None, threads: int, memory_bytes: int | None) -> None:
        self._log_file = log_file
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._tasks: queue.SimpleQueue[tuple[Future[Any], bytes] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self.ended = False
        self._thread = threading.Thread(target=self._serve, name="topo-worker", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, pickle.dumps((function, arguments))))
        if self.ended:  # nobody else takes it any more
            self._fail_all(TerminatedWorkerError("the worker has ended"))
        return future

    @property
    def lives(self) -> bool:
        """Whether it starts, or runs."""
        return not self.ended and (self._process is None or self._process.poll() is None)

    def kill(self, seconds: float) -> None:
        self.end()
        self._thread.join(seconds)

    def end(self) -> None:
        self._killed = True
        self._tasks.put(None)
        if self._process is not None:
            self._process.kill()

    def _serve(self) -> None:
        # Ctrl-C in a terminal goes to all processes there; the new one starts with this mask
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            ours, process = self._start()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the task
            self.ended = True
            self._fail_all(error)
            return
        self._process = process
        with ours:
            while not self._killed and (task := self._tasks.get()) is not None:
                if not _do(task, ours):
                    process.kill()  # at the end of the file it has ended, or is of no use
                    _fail(task[0], TerminatedWorkerError(_ending(process.wait())))
                    break
            process.kill()
        process.wait()
        self.ended = True
        self._fail_all(TerminatedWorkerError("the worker has been ended"))

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = map(_above_streams, socket.socketpair())
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self._threads)), "CUDA_VISIBLE_DEVICES": ""}
        log = _log(self._log_file)
        try:
            with theirs:
                process = subprocess.Popen(
                    [_python(), "-P", "-c", BOOTSTRAP, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                )
        except BaseException:
            ours.close()
            raise
        finally:
            if log >= 0:
                os.close(log)
        path = [each or os.getcwd() for each in sys.path]
        with contextlib.suppress(OSError):  # it ended at once, which the first task says
            send(ours, pickle.dumps((path, os.getpid(), self._memory_bytes)))
        return ours, process

    def _fail_all(self, error: BaseException) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                if task is not None:
                    _fail(task[0], error)


def _do(task: tuple[Future[Any], bytes], channel: socket.socket) -> bool:
    """Have a task done; whether there was an answer."""
    future, words = task
    if not future.set_running_or_notify_cancel():
        return True
    try:
        send(channel, words)
        answer = receive(channel)
    except OSError:
        return False
    if answer is None:
        return False
    try:
        result, error, place = pickle.loads(answer)
    except Exception as caught:  # noqa: BLE001 - an answer that can only be read over there
        result, error, place = None, caught, None
    if error is None:
        future.set_result(result)
    else:
        with contextlib.suppress(Exception):  # a class may refuse attributes
            error.described = place
        _fail(future, error)
    return True


def _fail(future: Future[Any], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        return  # given up before


def _ending(code: int) -> str:
    if code >= 0:
        return f"the worker exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the worker was ended by {name}"


def _above_streams(end: socket.socket) -> socket.socket:
    """The same socket under a number that no standard stream has, also where those are closed."""
    return socket.socket(fileno=above_streams(end.detach()))


def _log(path: Path | None) -> int:
    """A descriptor for what the worker prints; where there can be no such file, of nowhere."""
    if path is None:
        return subprocess.DEVNULL
    try:
        return open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except (OSError, RecordError):
        return subprocess.DEVNULL


def _python() -> str:
    from multiprocessing.spawn import get_executable

    return os.fsdecode(get_executable() or sys.executable)


def default_threads(ranks_here: int, loader_workers: int) -> int:
    """Threads for the worker: at most a quarter of the processors, out of those that ranks and data loaders leave."""
    available = allowed_threads()
    free = available - ranks_here * (1 + loader_workers)
    return max(1, min(free, available // 4))


def _half_of_memory() -> int:
    """Half of the machine's memory, or of the container's where that is less."""
    return max(1 << 30, memory_here() // 2)


def at_exit(method: Callable[[], None]) -> None:
    """Call a bound method when the interpreter ends, in this process only, if its object still lives then.

    `atexit` comes too late: by then executors have been joined, and a task that hangs would hang the exit. The hook
    that `concurrent.futures` and loky use comes earlier and calls the newest registration first.
    """
    reference: Any = weakref.WeakMethod(method)
    process = os.getpid()

    def call() -> None:
        found = reference()
        if found is not None and os.getpid() == process:
            found()

    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(call)
    except RuntimeError:
        return  # the interpreter is already ending: the caller's own close comes next
