"""The live line: in a pseudo-terminal it follows the run and goes away; elsewhere nothing is written."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pty
import re
from pathlib import Path

import pytest
from trajectories import make_snapshots

from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks import ConsoleSink, LiveSink
from topo_callback.sinks.live import BARS, sparkline

EVENT = {"kind": "late_reorganisation", "explanation": "layers 1-2 moved 6.2x what the weights' path predicts"}


def snapshots() -> list[Snapshot]:
    """Two samples with velocities 1 and 5, the second with an event."""
    first, second, *_ = make_snapshots()
    return [
        dataclasses.replace(first, provenance={"velocity": 1.0}),
        dataclasses.replace(second, provenance={"velocity": 5.0, "events": [EVENT]}),
    ]


def shown(tmp_path: Path, *, finish: bool = True, wide: bool = True) -> str:
    """What arrives at a terminal of 80 columns when both terminal sinks follow a run."""
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as stream:
        sinks = (ConsoleSink(stream), LiveSink(stream, wide=wide))
        for sink in sinks:
            sink.start({}, tmp_path)
        for snapshot in snapshots():
            for sink in sinks:
                sink.log(snapshot)
        if finish:
            for sink in sinks:
                sink.finish(tmp_path)
    received = b""
    with contextlib.suppress(OSError):  # that is how a pseudo-terminal says that the other side is closed
        while part := os.read(reading, 1 << 16):
            received += part
    os.close(reading)
    return received.decode()


def test_the_line_has_step_velocities_and_the_newest_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    received = shown(tmp_path)
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", received)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain) if "velocity" in line]
    first, second = snapshots()
    kept = second.median("mutual_knn.first")
    assert kept is not None
    assert lines[0] == f"topology | step {first.step}  velocity {sparkline((1.0,))} 1x the usual"
    start = f"topology | step {second.step}  structure kept {100 * kept:.0f} %  velocity {sparkline((1.0, 5.0))} 5x the"
    assert lines[-1].startswith(start)
    assert lines[-1].endswith("…")
    assert len(lines[-1]) == 79  # never wider than the terminal: a broken line could not be taken back
    assert "\x1b[1;33m" in received  # twice the usual and more stands out


def test_velocities_are_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    received = shown(tmp_path, wide=False)
    assert "velocity" not in received
    assert "late reorganisation: layers 1-2 moved" in received


def test_nothing_of_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = _screen(shown(tmp_path))
    assert not any("velocity" in line for line in screen)
    said = sum(line.startswith("topology | ") for line in screen)
    assert said == 9  # the header of the console, two samples, record and page
    assert any("velocity" in line for line in _screen(shown(tmp_path, finish=False)))


def test_quiet_when_not_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = LiveSink(stream)
    assert sink.start({}, tmp_path) == {}
    for snapshot in snapshots():
        sink.log(snapshot)
    sink.finish(tmp_path)
    assert stream.getvalue() == ""


def test_bars_have_a_fixed_scale() -> None:
    assert sparkline([0.0, 0.25, 8.0, 1e9]) == BARS[0] * 2 + BARS[-1] * 2
    assert sparkline([1.0, 2.0]) == sparkline([1.0]) + sparkline([2.0])
    heights = [BARS.index(bar) for bar in sparkline([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])]
    assert heights == sorted(set(heights))


def _screen(received: str) -> list[str]:
    """The lines that a terminal shows after carriage returns and spaces have gone over one another."""
    lines = [""]
    column = 0
    for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.|\n", received, flags=re.DOTALL):
        if part == "\x1b[A":
            raise AssertionError("the line moves up")
        if part.startswith("\x1b"):
            continue
        if part == "\r":
            column = 0
        elif part == "\n":
            lines.append("")
        else:
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
