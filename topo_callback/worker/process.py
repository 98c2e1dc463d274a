"""What happens inside the worker process: the end with its parent, its limits, and one task after the other."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from topo_callback.errors import RecordError, described
from topo_callback.terminal import DEBUG

_WATCH_SECONDS = 1.0
_LENGTH = struct.Struct("<Q")
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux

# what the interpreter of the worker is started with; the first message says where modules are
BOOTSTRAP = """
import sys, socket, struct, pickle
channel = socket.socket(fileno=int(sys.argv[1]))
def take(size):
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            sys.exit()
        data += part
    return data
sys.path[:], parent, memory_bytes = pickle.loads(take(struct.unpack("<Q", take(8))[0]))
from topo_callback.worker.process import start_worker, work
start_worker(parent, memory_bytes)
work(channel)
"""


def send(channel: socket.socket, message: bytes) -> None:
    """Send one message.

    Raises:
        OSError: the other end is gone; no signal is raised.
    """
    channel.settimeout(None)
    flags = getattr(socket, "MSG_NOSIGNAL", 0)
    channel.sendall(_LENGTH.pack(len(message)) + message, flags)


def receive(channel: socket.socket) -> bytes | None:
    """The next message; None when the other end is gone."""
    header = _exactly(channel, _LENGTH.size)
    return None if header is None else _exactly(channel, _LENGTH.unpack(header)[0])


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts, missing = [], size
    while missing:
        part = channel.recv(min(missing, 1 << 20))
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def start_worker(parent: int, memory_bytes: int | None) -> None:
    """Let the process end when the trainer ends, keep it out of the terminal's way, and limit its memory.

    What a system does not allow (a limit of memory on macOS) is said in the log, and the worker goes on without it.

    Args:
        parent: process id of the trainer.
        memory_bytes: address space of the process; None: no limit.
    """
    os.environ.pop(DEBUG, None)  # what is printed here ends on disk
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends the worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _say_without_words()
    _say_started()
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    _step_back()


def end_and_print_as(parent: int) -> None:
    """What holds for the worker holds for a process that it starts: it ends with the worker, and prints no words.

    Its limit of memory and its priority are the worker's anyway.

    Args:
        parent: process id of the worker.
    """
    _end_with(parent)
    _say_without_words()


def enter_run(log_file: str, memory_bytes: int, folder: str) -> None:
    """Go on for a run, in a worker that was started before it: print into its log, under its limit of memory.

    Args:
        folder: where the trainer is by now; the paths of a run may be relative.
    """
    from topo_callback.records.files import open_plain

    os.chdir(folder)
    _limit_memory(memory_bytes)
    try:
        log = open_plain(Path(log_file), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except (OSError, RecordError):
        return  # as in a worker that is started where there can be no such file
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    _say_started()


def _say_started() -> None:
    print(f"worker {os.getpid()} started {time.strftime('%Y-%m-%d %H:%M:%S')}", file=sys.stderr, flush=True)  # noqa: T201


def work(channel: socket.socket) -> None:
    """Do the tasks that come through a socket, until the other end is gone."""
    while (message := receive(channel)) is not None:
        try:
            send(channel, _answer(message))
        except OSError:
            return


def _answer(message: bytes) -> bytes:
    """(result, error, the error described) of a task, pickled."""
    from topo_callback.errors import described

    try:
        function, arguments = pickle.loads(message)
        return pickle.dumps((function(*arguments), None, None), protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - told to the trainer
        place = described(error)
        try:
            answer = pickle.dumps((None, error, place))
            pickle.loads(answer)
        except Exception:  # noqa: BLE001 - an error that cannot travel is described
            return pickle.dumps((None, RuntimeError(place), place))
        return answer


def _end_with(parent: int) -> None:
    """End this process with its parent, however the parent ended, and also while this process is stopped."""
    if sys.platform == "linux":
        try:
            # tied to the thread of the parent that started this process, which lives as long as this process
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError) as error:
            print(f"no signal at the parent's death: {type(error).__name__}", file=sys.stderr, flush=True)  # noqa: T201

    _watch(parent)


def _say_without_words() -> None:
    """What Python itself prints of errors and warnings goes to the log by type and place only."""

    def say(error: BaseException | None) -> None:
        if error is not None:
            print(described(error), file=sys.stderr, flush=True)  # noqa: T201

    def warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        print(f"{category.__name__} in {Path(filename).name}:{lineno}", file=sys.stderr, flush=True)  # noqa: T201

    sys.excepthook = lambda kind, error, trace: say(error)
    threading.excepthook = lambda raised: say(raised.exc_value)
    sys.unraisablehook = lambda raised: say(raised.exc_value)
    warnings.showwarning = warned  # type: ignore[assignment]


def _watch(parent: int) -> None:
    """End this process soon after its parent, however the parent ended."""

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(0)

    threading.Thread(target=end_with_parent, name="topo-parent-watch", daemon=True).start()


def _limit_memory(memory_bytes: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ValueError, OSError) as error:
        print(f"no limit of memory: {described(error)}", file=sys.stderr, flush=True)  # noqa: T201


def _step_back() -> None:
    """Let the trainer go first: for processors, and for memory when the system has to end a process."""
    try:
        os.nice(5)
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError as error:
        print(f"priority as the trainer's: {described(error)}", file=sys.stderr, flush=True)  # noqa: T201
