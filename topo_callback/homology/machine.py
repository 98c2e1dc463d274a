"""What there is of the machine: cores, memory, threads without the global interpreter lock, a folder for caches.

BLAS is kept to one thread meanwhile: the threads that OpenBLAS keeps for a product wait actively for the next one and
take the cores from what comes between. Of 2,000 points, selecting neighbours took 7.1 ms beside them and 4.0 without.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from threadpoolctl import ThreadpoolController

_taken = threading.Lock()


def allowed_threads() -> int:
    """How many cores this process may use, fewer than the machine has where it is bound to some; at least one."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def cache_folder() -> Path:
    """The folder of this package among the user's caches, which need not be there yet.

    On Linux `topo_callback` in $XDG_CACHE_HOME, else in ~/.cache; elsewhere where the system keeps caches.
    """
    from platformdirs import user_cache_path

    return user_cache_path("topo_callback", appauthor=False)


class ThreadTeam:
    """Runs one function for each member at once; the calling thread is member 0. A context manager.

    Plain threads rather than numba's parallel regions, which abort the process when several threads enter them.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self._pool = ThreadPoolExecutor(members - 1) if members > 1 else None

    def run(self, work: Callable[[int], object]) -> None:
        """Call work(0), ..., work(members - 1) at once and wait for all; the first exception is raised."""
        others = [self._pool.submit(work, member) for member in range(1, self.members)] if self._pool else []
        try:
            work(0)
        finally:
            failures = [future.exception() for future in others]
        for failure in failures:
            if failure is not None:
                raise failure

    def __enter__(self) -> ThreadTeam:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown()


def triangle_shares(rows: int, members: int) -> list[tuple[int, int]]:
    """Ranges of rows that split the entries above the diagonal of a square matrix evenly."""
    # what lies above row r is r * rows - r**2 / 2 entries; solved for equal parts
    ends = [round(rows * (1 - (1 - member / members) ** 0.5)) for member in range(members + 1)]
    return list(pairwise(ends))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Every product in this process takes one thread.

    The number is one for the whole process, so only one thread at a time lowers it and restores it; for another one, or
    a second time, this does nothing. A BLAS that threadpoolctl does not know (Accelerate) is left as it is, and one
    built with OpenMP takes one thread only when called from here.
    """
    if not _taken.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _taken.release()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def memory_here() -> int:
    """Bytes of the machine's memory, or of the container's where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return min(limits)
