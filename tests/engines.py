"""Compiles the native engines once, before a test first starts a process that measures.

A worker that has to compile takes a minute, longer than a run waits at its end for unfinished samples. Tests that start
no such process never wait for this: the kernels that they call themselves are compiled one by one. Neither
counts towards the time limit of a test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# what tells the command of a process that measures: a script, our command, code that trains or has a worker
_MEASURES = re.compile(r"\.py\b|-m topo_callback|\btrain\(|Dispatcher|WorkerExecutor")


class Engines:
    """The compiled engines, in the cache on disk.

    Args:
        stamp: a file that is there once they are compiled, the same for all processes of one session of tests.
    """

    def __init__(self, stamp: Path) -> None:
        self.stamp = stamp
        self._ready = False

    def compile(self) -> None:
        """Compile the engines unless that is done; one process does, the others wait."""
        if self._ready:
            return
        code = "from topo_callback.worker.task import warm_up; warm_up('auto', 'auto', 2)"
        with time_limit_paused(), FileLock(f"{self.stamp}.lock"):
            if not self.stamp.exists():
                subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
                self.stamp.touch()
        self._ready = True

    def compile_when_needed(self, patch: pytest.MonkeyPatch) -> None:
        """From now on, compile before a worker, or another process that measures, is started from here."""
        from topo_callback.worker.executor import WorkerExecutor

        make, start, fork = WorkerExecutor.__init__, subprocess.Popen.__init__, ForkServerProcess.start

        def make_ready(executor: WorkerExecutor, *arguments: Any, **named: Any) -> None:
            self.compile()
            make(executor, *arguments, **named)

        def start_ready(process: subprocess.Popen[Any], args: Any, *arguments: Any, **named: Any) -> None:
            words = [args] if isinstance(args, (str, bytes, os.PathLike)) else args
            if _MEASURES.search(" ".join(map(os.fsdecode, words))):
                self.compile()
            start(process, args, *arguments, **named)

        def fork_ready(process: ForkServerProcess) -> None:
            self.compile()
            fork(process)

        patch.setattr(WorkerExecutor, "__init__", make_ready)
        patch.setattr(subprocess.Popen, "__init__", start_ready)
        patch.setattr(ForkServerProcess, "start", fork_ready)


@contextmanager
def limit_without_compilation() -> Iterator[None]:
    """The timer of pytest-timeout stands still while numba compiles in this process."""
    from numba.core import event

    class Pause(event.Listener):
        def __init__(self) -> None:
            self.left: list[float] = []  # of 0 s, which is no timer, for a kernel that another one calls

        def on_start(self, event: Any) -> None:
            self.left.append(signal.setitimer(signal.ITIMER_REAL, 0)[0])

        def on_end(self, event: Any) -> None:
            signal.setitimer(signal.ITIMER_REAL, self.left.pop())

    with event.install_listener("numba:compile", Pause()):
        yield


@contextmanager
def time_limit_paused() -> Iterator[None]:
    """The timer of pytest-timeout stands still meanwhile."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
