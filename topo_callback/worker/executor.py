"""The built-in executor: one loky process of our own that can be killed and started again."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from topo_callback.worker.process import start_worker

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerExecutor:
    """One worker process, started at the first task and again after `kill`.

    It is not loky's shared reusable executor, which belongs to everyone in the process. The worker is spawned, not
    forked, never imports the user's script, sees no GPU, and ends within seconds of the trainer.
    """

    def __init__(self, log_file: Path, *, threads: int, memory_bytes: int | None) -> None:
        self.threads = threads
        self._log_file = log_file
        self._memory_bytes = memory_bytes if memory_bytes is not None else _half_of_memory()
        self._pool: Any = None
        self._ended = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run a function of an importable module in the worker."""
        if self._ended:
            raise RuntimeError("the worker has been shut down")
        if self._pool is None:
            self._pool = self._start()
        future: Future[Any] = self._pool.submit(function, *arguments)
        return future

    def kill(self) -> None:
        """End the worker at once, with whatever it is doing; the next task starts a new one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def shutdown(self) -> None:
        """End the worker for good."""
        self._ended = True
        self.kill()

    def _start(self) -> Any:
        from loky import ProcessPoolExecutor
        from loky.backend import get_context

        environment = dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        environment["CUDA_VISIBLE_DEVICES"] = ""
        return ProcessPoolExecutor(
            max_workers=1,
            context=get_context("loky"),
            initializer=start_worker,
            initargs=(os.getpid(), str(self._log_file), self._memory_bytes),
            env=environment,
        )


def default_threads(ranks_here: int, loader_workers: int) -> int:
    """Threads for the worker: at most a quarter of the processors, out of those that ranks and data loaders leave."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = available - ranks_here * (1 + loader_workers)
    return max(1, min(free, available // 4))


def _half_of_memory() -> int:
    """Half of the machine's memory, or of the container's where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return max(1 << 28, min(limits) // 2)
