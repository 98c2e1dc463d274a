"""A worker that starts before its run: it compiles and loads what measuring needs while model and data are loaded.

There is at most one in a process. The first run that needs a worker takes it; without a run it ends with the callback
that it was started for, and with the process.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from pathlib import Path

from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN, described
from topo_callback.worker.executor import WorkerExecutor, default_threads
from topo_callback.worker.task import warm_up

logger = logging.getLogger("topo_callback")


class _Waiting:
    """The worker that no run has taken yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: WorkerExecutor | None = None
        self.process = 0  # a fork has its parent's memory, and not its worker


_waiting = _Waiting()


def start_early(owner: object, config: TopologyConfig) -> None:
    """Start a worker that warms up, unless one waits already, or another rank than this one will need it.

    Args:
        owner: when it is gone and no run has taken the worker, the worker ends.
        config: threads and engines.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    with _waiting.lock:
        if _waiting.executor is not None and _waiting.process == os.getpid():
            return
        try:
            ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            threads = config.threads or default_threads(ranks_here, 0)
            executor = WorkerExecutor(None, threads=threads, memory_bytes=config.worker_bytes)
            executor.submit(warm_up, config.engine, config.zigzag_engine)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - the run will start a worker of its own
            logger.debug("no worker ahead of the run: %s", described(error))
            return
        _waiting.executor, _waiting.process = executor, os.getpid()
    weakref.finalize(owner, _end, executor).atexit = False  # the process takes the worker with it


def take_early(log_file: Path, *, threads: int, memory_bytes: int | None) -> WorkerExecutor:
    """The worker that has been warming up, or a new one where there is none."""
    with _waiting.lock:
        executor, _waiting.executor = _waiting.executor, None
        usable = _waiting.process == os.getpid()
    if executor is None or not usable or not executor.has_worker:
        return WorkerExecutor(log_file, threads=threads, memory_bytes=memory_bytes)
    executor.enter_run(log_file, threads=threads, memory_bytes=memory_bytes)
    return executor


def end_early() -> None:
    """End the worker that no run has taken, if there is one."""
    executor = _waiting.executor
    if executor is not None:
        _end(executor)


def _end(executor: WorkerExecutor) -> None:
    with _waiting.lock:
        if _waiting.executor is not executor:
            return
        _waiting.executor = None
        usable = _waiting.process == os.getpid()
    if usable:
        executor.shutdown()
