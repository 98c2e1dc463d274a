"""Tasks that end a worker, or never end: importable by name, as the worker's own task is."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from typing import Any

import numpy as np

from topo_callback.worker.task import measure_spooled, warm_up


def _good(path: str, step: int) -> Any:
    return measure_spooled(path, step)


def killed(path: str, step: int, threads: int) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(path: str, step: int, threads: int) -> Any:
    ctypes.string_at(0)


def exits(path: str, step: int, threads: int) -> Any:
    os._exit(3)


def raises(path: str, step: int, threads: int) -> Any:
    raise RuntimeError("the engine is unwell")


def unpicklable(path: str, step: int, threads: int) -> Any:
    return (number for number in ())


def returns_nonsense(path: str, step: int, threads: int) -> Any:
    return "all is well"


def eats_memory(path: str, step: int, threads: int) -> Any:
    hoard = []
    while len(hoard) < 400:
        hoard.append(np.empty(256 << 20, dtype=np.uint8))


def out_of_maps(path: str, step: int, threads: int) -> Any:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def endless(path: str, step: int, threads: int) -> Any:
    while True:
        time.sleep(0.1)


def slow(path: str, step: int, threads: int) -> Any:
    time.sleep(0.2)
    return _good(path, step)


def killed_at_odd_steps(path: str, step: int, threads: int) -> Any:
    if step % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return _good(path, step)


def recorded_but_never_reported(path: str, step: int, threads: int) -> Any:
    found = _good(path, step)
    if step == 1:
        endless(path, step, threads)
    return found


def endless_at_step_one(path: str, step: int, threads: int) -> Any:
    if step == 1:
        endless(path, step, threads)
    return _good(path, step)


def with_a_broken_engine(engine: str, zigzag_engine: str, subsamples: int, comparisons: bool) -> None:
    """A worker whose engine has lost H1, as three public engines do on a matrix with one NaN row."""
    import topo_callback.homology.rips as rips
    from topo_callback.homology.barcode import Barcode

    right = rips.rips_persistence

    def without_loops(*arguments: Any, **options: Any) -> Barcode:
        found = right(*arguments, **options)
        kept = found.dimension != 1
        return Barcode(found.dimension[kept], found.birth[kept], found.death[kept])

    rips.rips_persistence = without_loops  # type: ignore[assignment]
    warm_up(engine, zigzag_engine, subsamples, comparisons)
