"""Lines on the terminal that keep out of the way of progress bars."""

from __future__ import annotations

import sys
from typing import Any, Protocol, runtime_checkable

PREFIX = "topology | "


@runtime_checkable
class TextStream(Protocol):
    """Something that takes text, such as `sys.stderr`."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


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
