"""Lines on the terminal that keep out of the way of progress bars."""

from __future__ import annotations

import sys
from typing import TextIO

PREFIX = "topology | "


def say(text: str, stream: TextIO | None = None) -> None:
    """Write one line, by default to standard error, between the bars that tqdm draws there."""
    line = (PREFIX + text).rstrip()
    stream = sys.stderr if stream is None else stream
    bars = sys.modules.get("tqdm")
    if bars is not None:
        # a plain print would leave half a progress bar on the line; only bars of a loaded tqdm can be in the way
        bars.tqdm.write(line, file=stream)
    else:
        stream.write(line + "\n")
        stream.flush()
