"""Lines on the terminal that keep out of the way of progress bars."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any, Protocol, runtime_checkable

PREFIX = "topology | "
DEBUG, WIDE = "TOPO_DEBUG", "TOPO_WIDE"  # environment variables


@runtime_checkable
class TextStream(Protocol):
    """Something that takes text, such as `sys.stderr`."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


def is_wide() -> bool:
    """Whether rows on the terminal are to have numbers of topology, too."""
    return os.environ.get(WIDE, "") not in ("", "0")


def say(text: str, stream: TextStream | None = None) -> None:
    """Write one line, by default to standard error if there is one, between the bars that tqdm draws there."""
    line = (PREFIX + text).rstrip()
    if stream is None:
        stream = sys.stderr
    if stream is None:
        return  # a process without standard streams, such as a daemon
    bars = sys.modules.get("tqdm")
    if bars is not None:
        # a plain print would leave half a progress bar on the line; only bars of a loaded tqdm can be in the way
        bars.tqdm.write(line, file=stream)
    else:
        stream.write(line + "\n")
        stream.flush()


def show_if_asked(error: BaseException) -> None:
    """Print an error with its traceback where `TOPO_DEBUG=1` asks for it; it may quote prompts and keys.

    It goes to the descriptor of standard error, past what trackers put in the place of `sys.stderr` to keep a copy.
    """
    if os.environ.get(DEBUG, "") not in ("", "0"):
        text = "".join(traceback.format_exception(error))
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
