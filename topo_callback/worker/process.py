"""What happens inside the worker process before its first task."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from topo_callback.errors import described
from topo_callback.terminal import DEBUG

_WATCH_SECONDS = 1.0


def start_worker(parent: int, log_file: str, memory_bytes: int | None) -> None:
    """Cut the process loose from the trainer's terminal, limit its memory, and let it end when the trainer ends.

    What a system does not allow (a limit of memory on macOS) is said in the log, and the worker goes on without it.

    Args:
        parent: process id of the trainer.
        log_file: everything the worker prints goes here; when it cannot be opened, nowhere.
        memory_bytes: address space of the process; None: no limit.
    """
    os.environ.pop(DEBUG, None)  # what is printed here ends on disk
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends the worker
    _redirect_output(log_file)
    _say_without_words()
    _watch(parent)
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    _step_back()


def _redirect_output(log_file: str) -> None:
    """Point stdin, stdout and stderr away, so that a pipe of the trainer is never held open by the worker."""
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    for spare in (null, log):
        os.close(spare)
    print(f"worker {os.getpid()} started {time.strftime('%Y-%m-%d %H:%M:%S')}", file=sys.stderr, flush=True)  # noqa: T201


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
