"""ConsoleSink: one row for every snapshot, and at the end the verdict and where everything is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.course import ANSWERS, ROUNDING, STRUCTURE
from topo_callback.dynamics.reorganisation import is_measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import TextStream, is_wide, say
from topo_callback.wording import percent

_MISSING = "-"


@dataclass(frozen=True)
class _Column:
    """A column: its two title lines, and how a snapshot's cell reads."""

    upper: str
    lower: str
    cell: Callable[[Snapshot], str]
    least: int = 7

    @property
    def width(self) -> int:
        return max(len(self.upper), len(self.lower), self.least)

    def align(self, text: str) -> str:
        return text.rjust(self.width)


class ConsoleSink:
    """Prints the few numbers that matter, aligned, under a header that explains them, and the verdict at the end.

    Lines go to standard error, between the trainer's progress bars where it draws any.

    Args:
        stream: where to write; None is the standard error of the moment.
        wide: whether rows also have numbers of topology; None: where `TOPO_WIDE=1` is in the environment.
    """

    def __init__(self, stream: TextStream | None = None, *, wide: bool | None = None) -> None:
        self._stream = stream
        self._wide = is_wide() if wide is None else wide
        self._columns = _COLUMNS + _TOPOLOGY if self._wide else _COLUMNS
        self._explained = False
        self._told: set[tuple[Any, ...]] = set()

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        self._explained = False
        self._told.clear()
        return {}

    def log(self, snapshot: Snapshot) -> None:
        if not self._explained:
            self._explained = True
            self._explain(len(snapshot.layers))
        line = "  ".join(column.align(column.cell(snapshot)) for column in self._columns)
        invalid = [str(layer) for layer, status in snapshot.status.items() if status.startswith("invalid")]
        notes = [*self._news(snapshot), *([f"invalid layers: {', '.join(invalid)}"] if invalid else [])]
        self._write("  ".join([line, *(["; ".join(notes)] if notes else [])]))

    def conclude(self, verdict: Verdict) -> None:
        """The verdict, when the run has come to its end."""
        for line in verdict.lines():
            self._write(line)

    def finish(self, folder: Path) -> None:
        if not self._explained:
            return
        self._write(f"record  {folder}")
        page = TrajectoryFolder(folder).page
        made = f"{page}, or again: " if page.is_file() else ""
        self._write(f"page    {made}topo-callback report {shlex.quote(str(folder))}")

    def _news(self, snapshot: Snapshot) -> list[str]:
        """The events that no earlier row had; the lines that tell them in full are written as they are found."""
        found = []
        for event in snapshot.provenance.get("events", ()):
            key = event["kind"], event.get("level"), event.get("first_step")
            # training may be further than the sample whose row this is
            known = event.get("known_at", 0) <= snapshot.step
            if known and key not in self._told and is_measured(event):
                self._told.add(key)
                found.append(f"{event['kind'].replace('_', ' ')} at {event.get('first_step')}")
        return found

    def _explain(self, layers: int) -> None:
        self._write("answers moved: share of the next token's probability that went to other tokens since the start")
        of = f", median over {layers} layers" if layers > 1 else ""
        self._write(f"structure kept: share of each prompt's nearest neighbours that are those of the start{of}")
        if self._wide:
            self._write("'moved' is the 2-Wasserstein distance between H1 barcodes, in median distances of prompts")
        self._write("\N{PLUS-MINUS SIGN} is the 95 % interval over prompts")
        for titles in ([column.upper for column in self._columns], [column.lower for column in self._columns]):
            cells = [column.align(title) for column, title in zip(self._columns, titles, strict=True)]
            self._write("  ".join([*cells, *([] if titles[0] == "" else ["event"])]))

    def _write(self, text: str) -> None:
        say(text, self._stream)


def _rounded(measure: str) -> Callable[[Snapshot], str]:
    def cell(snapshot: Snapshot) -> str:
        value = snapshot.median(measure)
        return _MISSING if value is None else f"{value:.3f}"

    return cell


def _share(measure: str) -> Callable[[Snapshot], str]:
    def cell(snapshot: Snapshot) -> str:
        value = snapshot.median(measure)
        return _MISSING if value is None else f"{100 * value:.1f} %"

    return cell


def _count(measure: str) -> Callable[[Snapshot], str]:
    def cell(snapshot: Snapshot) -> str:
        value = snapshot.median(measure)
        return _MISSING if value is None else f"{value:.0f}"

    return cell


def _measured(name: str, rounding: float = 0.0) -> Callable[[Snapshot], str]:
    def cell(snapshot: Snapshot) -> str:
        found = Measured.of(snapshot, name)
        return _MISSING if found is None else percent(found.value, found.error, rounding)

    return cell


def _worker_seconds(snapshot: Snapshot) -> str:
    seconds = snapshot.provenance.get("seconds", {}).get("all")
    return _MISSING if seconds is None else f"{seconds:.1f} s"


_COLUMNS = (
    _Column("", "step", lambda snapshot: str(snapshot.step)),
    _Column("answers", "moved", _measured(ANSWERS, ROUNDING), 12),
    _Column("structure", "kept", _measured(STRUCTURE), 12),
)
_TOPOLOGY = (
    _Column("moved since", "last sample", _rounded("wasserstein_h1.previous")),
    _Column("moved from", "the start", _rounded("wasserstein_h1.first")),
    _Column("loops", "(H1 bars)", _count("h1_bars")),
    _Column("shared", "over depth", _share("depth_similarity_h1")),
    _Column("worker", "time", _worker_seconds),
)
