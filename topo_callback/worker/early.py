"""A worker that starts before its run: it compiles and loads what measuring needs while model and data are loaded.

There is at most one in a process. The first run that needs a worker takes it; without a run it ends with the last of
the callbacks that it was started for, and with the process.
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

# what launchers call a process that is not the first
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


class _Waiting:
    """The worker that no run has taken yet, and those who wait for it.

    Garbage may be collected anywhere, also under the lock: what a collection calls does not wait for it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: WorkerExecutor | None = None
        self.owners: weakref.WeakSet[object] = weakref.WeakSet()
        self.process = 0  # a fork has its parent's memory, and not its worker

    def take(self) -> WorkerExecutor | None:
        """The worker, which waits no longer; None where there is none of this process. Called under the lock."""
        executor, self.executor = self.executor, None
        return executor if self.process == os.getpid() else None


_waiting = _Waiting()


def start_early(owner: object, config: TopologyConfig) -> None:
    """Start a worker that warms up, unless one waits already, or another rank than this one will need it.

    Args:
        owner: when it and all others who asked are gone and no run has taken the worker, the worker ends.
        config: threads and engines.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    with _waiting.lock:
        if _waiting.process != os.getpid():
            _waiting.executor, _waiting.process = None, os.getpid()
            _waiting.owners = weakref.WeakSet()
        _waiting.owners.add(owner)
        if _waiting.executor is None:
            try:
                ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
                threads = config.threads or default_threads(ranks_here, 0)
                executor = WorkerExecutor(None, threads=threads, memory_bytes=config.worker_bytes)
                executor.submit(warm_up, config.engine, config.zigzag_engine, config.subsamples, False)
            except USERS_OWN:
                raise
            except BaseException as error:  # noqa: BLE001 - the run will start a worker of its own
                logger.debug("no worker ahead of the run: %s", described(error))
                return
            _waiting.executor = executor
    weakref.finalize(owner, _owner_gone).atexit = False  # the process takes the worker with it


def take_early(log_file: Path, *, threads: int, memory_bytes: int | None) -> WorkerExecutor:
    """The worker that has been warming up, or a new one where there is none."""
    with _waiting.lock:
        executor = _waiting.take()
    if executor is None or not executor.has_worker:
        return WorkerExecutor(log_file, threads=threads, memory_bytes=memory_bytes)
    executor.enter_run(log_file, threads=threads, memory_bytes=memory_bytes)
    return executor


def end_early() -> None:
    """End the worker that no run has taken, if there is one."""
    with _waiting.lock:
        executor = _waiting.take()
    if executor is not None:
        executor.shutdown()


def _owner_gone() -> None:
    """End the worker if nobody is left who asked for it. A collection of garbage calls it, and waits for nothing."""
    if any(True for _ in _waiting.owners) or not _waiting.lock.acquire(blocking=False):
        return  # under the lock somebody starts it or takes it
    try:
        executor = _waiting.take()
    finally:
        _waiting.lock.release()
    if executor is not None:
        executor.abandon()
