"""A hook at the end of the interpreter that runs while threads and executors still work."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any


def at_exit(method: Callable[[], None]) -> None:
    """Call a bound method when the interpreter ends, in this process only, if its object still lives then.

    `atexit` comes too late: by then executors have been joined, and a task that hangs would hang the exit. The hook
    that `concurrent.futures` and loky use comes earlier and calls the newest registration first.
    """
    reference: Any = weakref.WeakMethod(method)
    process = os.getpid()

    def call() -> None:
        found = reference()
        if found is not None and os.getpid() == process:
            found()

    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(call)
    except RuntimeError:
        return  # the interpreter is already ending: the caller's own close comes next
