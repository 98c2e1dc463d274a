"""A second process that compiles beside the worker, where nothing is compiled yet and there are two processors.

Kernels of barcodes and those of zigzags call one another nowhere, and compiling either takes about as long. The worker
does the former, the second process the latter, through the cache on disk: the worker then loads them. The second
process goes on with distances between barcodes, which no first sample needs, and with representative cycles, which only
the page needs. One that fails or is late costs nothing but time, since the worker compiles what it does not find.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any, Literal

import numpy as np

from topo_callback.errors import described

Kernels = Literal["zigzags", "distances"]

_LONGEST_SECONDS = 200.0  # what is left of a warm-up's ten minutes must do for compiling all in the worker

_CODE = """
import json, sys
sys.path[:], parent, engine = json.loads(sys.argv[1])
from topo_callback.worker.second_compiler import compile_second_half
from topo_callback.worker.process import end_and_print_as
end_and_print_as(parent)
compile_second_half(engine)
"""


class SecondCompiler:
    """The second process, or none; for use in a `with` statement, whose failure ends the process.

    It has the limits, the priority and the errors' stream of this one, and ends with it. There is none where something
    is compiled already, where nothing can be kept, on a single processor, or without the native zigzag.

    Args:
        zigzag_engine: as in the configuration.

    Attributes:
        is_there: whether there is one.
    """

    def __init__(self, zigzag_engine: str) -> None:
        self._process = _start(zigzag_engine)
        self._said = b""
        self.is_there = self._process is not None

    def wait_for(self, kernels: Kernels) -> None:
        """Return when these are compiled, or will not be."""
        if self._process is None or self._process.stdout is None:
            return
        out = self._process.stdout.fileno()
        ends = time.monotonic() + _LONGEST_SECONDS
        while kernels.encode() not in self._said and wait([out], max(ends - time.monotonic(), 0)):
            said = os.read(out, 64)
            if not said:
                return  # it failed
            self._said += said

    def go_on(self) -> None:
        """Leave the process alone until it has compiled the rest."""
        if self._process is not None:  # the thread takes leave of it, so that no zombie is left
            threading.Thread(target=self._process.communicate, name="second compiler", daemon=True).start()

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> SecondCompiler:
        return self

    def __exit__(self, kind: object, *others: object) -> None:
        if kind is not None:
            self.end()


def _start(zigzag_engine: str) -> subprocess.Popen[bytes] | None:
    from topo_callback.homology.jit_kernels import nothing_is_compiled
    from topo_callback.homology.machine import allowed_threads

    if zigzag_engine not in ("auto", "native") or allowed_threads() < 2 or not nothing_is_compiled():
        return None
    given = json.dumps([[each or os.getcwd() for each in sys.path], os.getpid(), zigzag_engine])
    command = [sys.executable, "-P", "-c", _CODE, given]
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        print(f"no second process compiles: {described(error)}", file=sys.stderr, flush=True)  # noqa: T201
        return None


def compile_second_half(zigzag_engine: Any) -> None:
    """Compile zigzags, distances between barcodes and cycles, for the types of real samples; prints what it has."""
    from topo_callback.homology.barcode_distances import wasserstein_distance
    from topo_callback.homology.representatives import representative_cycles
    from topo_callback.worker.self_check import check_zigzag

    with no_collection():
        check_zigzag(zigzag_engine)
        _say("zigzags")
        components, loops = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.5, 1.0], [1.0, 2.0]])
        for bars in (components, loops):
            wasserstein_distance(bars, bars)
        _say("distances")
        square = np.array([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]], np.float32)
        representative_cycles(square)


def _say(kernels: Kernels) -> None:
    print(kernels, flush=True)  # noqa: T201


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Compiling makes millions of objects and hardly any cycles; searching them for garbage takes a seventh of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
