"""LiveSink: one line at the foot of a terminal that follows the run: step, answers, structure, newest event."""

from __future__ import annotations

import io
import math
import shutil
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from topo_callback.dynamics.course import ANSWERS, STRUCTURE
from topo_callback.dynamics.reorganisation import event_words, is_measured
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import PREFIX, TextStream, is_wide
from topo_callback.wording import plain_percent, rounded

BARS = "▁▂▃▄▅▆▇█"
_LOWEST, _HIGHEST = 0.25, 8.0  # velocities of the lowest and the highest bar, on a logarithmic scale
_FAST = 2.0
_LENGTH = 24  # samples in the sparkline


def sparkline(velocities: Sequence[float]) -> str:
    """One bar for each velocity, on a fixed logarithmic scale from 1/4 to 8, so bars mean the same in every run."""
    span = math.log(_HIGHEST / _LOWEST)
    places = [math.log(max(velocity, 1e-300) / _LOWEST) / span for velocity in velocities]
    return "".join(BARS[round((len(BARS) - 1) * min(max(place, 0.0), 1.0))] for place in places)


class LiveSink:
    """Keeps one line under the trainer's progress bar; where the output is no terminal it does nothing.

    The line is a bar of tqdm's, which the trainer draws with as well, so neither writes over the other. It is gone when
    the run ends; what is to stay is printed by `ConsoleSink`.

    Args:
        stream: where to write; None is the standard error of the moment.
        wide: whether the line also has the velocities; None: where `TOPO_WIDE=1` is in the environment.
    """

    def __init__(self, stream: TextStream | None = None, *, wide: bool | None = None) -> None:
        self._stream = stream
        self._wide = is_wide() if wide is None else wide
        self._bar: Any = None
        self._velocities: deque[float] = deque(maxlen=_LENGTH)
        self._event = ""

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        self.finish(folder)
        self._velocities.clear()
        self._event = ""
        stream: Any = sys.stderr if self._stream is None else self._stream
        if getattr(stream, "isatty", lambda: False)():
            from tqdm import tqdm

            self._bar = tqdm(total=0, bar_format="{desc}", leave=False, file=stream)
            self._show(Text("waiting for the first sample", style="dim"))
        return {}

    def log(self, snapshot: Snapshot) -> None:
        velocity = snapshot.provenance.get("velocity")
        if velocity is not None:
            self._velocities.append(float(velocity))
        for event in snapshot.provenance.get("events", ()):
            self._event = event_words(event["kind"], event["explanation"], measured=is_measured(event))
        if self._bar is not None:
            self._show(self._line(snapshot))

    def finish(self, folder: Path) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, snapshot: Snapshot) -> Text:
        line = Text(f"step {snapshot.step}")
        for words, name in (("answers moved", ANSWERS), ("structure kept", STRUCTURE)):
            value = snapshot.median(name)
            if value is not None:
                line.append(f"  {words} {plain_percent(value)}")
        if self._wide and self._velocities:
            newest = self._velocities[-1]
            style = "bold yellow" if newest >= _FAST else "cyan"
            line.append("  velocity ").append(sparkline(tuple(self._velocities)), style=style)
            line.append(f" {rounded(newest)}x the usual", style=style)
        if self._event:
            line.append("  ").append(self._event, style="bold")
        return line

    def _show(self, line: Text) -> None:
        line = Text.assemble((PREFIX, "dim"), line)
        line.truncate(shutil.get_terminal_size().columns - 1, overflow="ellipsis")
        console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=1 << 15)
        with console.capture() as shown:
            console.print(line, end="", soft_wrap=True)
        self._bar.set_description_str(shown.get())
