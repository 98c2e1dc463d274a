"""A second process that compiles beside the worker, where nothing is compiled yet and there are two processors.

Kernels of barcodes and those of zigzags call one another nowhere, and compiling either takes about as long. The worker
does the former, the second process the latter, through the cache on disk: the worker then loads them. A second process
that fails or is late costs nothing but time, since the worker compiles what it does not find.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from topo_callback.errors import described

_LONGEST_SECONDS = 200.0  # what is left of a warm-up's ten minutes must do for compiling all in the worker

_CODE = """
import json, sys
sys.path[:], parent, engine = json.loads(sys.argv[1])
from topo_callback.worker.second_compiler import compile_zigzags
from topo_callback.worker.process import end_and_print_as
end_and_print_as(parent)
compile_zigzags(engine)
"""


@contextlib.contextmanager
def second_compiler(zigzag_engine: str) -> Iterator[None]:
    """Have the kernels of zigzags and of distances between barcodes compiled meanwhile, and wait for them at the end.

    The process has the limits, the priority and the streams of this one, and ends with it. There is none where
    something is compiled already, where nothing can be kept, on a single processor, or without the native zigzag.

    Args:
        zigzag_engine: as in the configuration.
    """
    process = _start(zigzag_engine)
    try:
        yield
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LONGEST_SECONDS)
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _start(zigzag_engine: str) -> subprocess.Popen[bytes] | None:
    from topo_callback.homology.jit_kernels import nothing_is_compiled
    from topo_callback.homology.machine import allowed_threads

    if zigzag_engine not in ("auto", "native") or allowed_threads() < 2 or not nothing_is_compiled():
        return None
    given = json.dumps([[each or os.getcwd() for each in sys.path], os.getpid(), zigzag_engine])
    try:
        return subprocess.Popen([sys.executable, "-P", "-c", _CODE, given], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"no second process compiles: {described(error)}", file=sys.stderr, flush=True)  # noqa: T201
        return None


def compile_zigzags(zigzag_engine: Any) -> None:
    """Compile the kernels of zigzags and of distances between barcodes, for the types of real samples."""
    from topo_callback.homology.barcode_distances import wasserstein_distance
    from topo_callback.worker.self_check import check_zigzag

    check_zigzag(zigzag_engine)
    components, loops = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.5, 1.0], [1.0, 2.0]])
    for bars in (components, loops):
        wasserstein_distance(bars, bars)
