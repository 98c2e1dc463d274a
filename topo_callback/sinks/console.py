"""ConsoleSink: one line of progress for every snapshot, and at the end what became of the model's behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.dynamics.behaviour import Move, behaviour_words
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import TextStream, say

_MISSING = "-"


@dataclass(frozen=True)
class _Column:
    """A column: its two title lines, and how a snapshot's cell reads."""

    upper: str
    lower: str
    cell: Callable[[Snapshot], str]

    @property
    def width(self) -> int:
        return max(len(self.upper), len(self.lower), 7)

    def align(self, text: str) -> str:
        return text.rjust(self.width)


class ConsoleSink:
    """Prints the few numbers that matter, aligned, under a header that explains them.

    Lines go to standard error, between the trainer's progress bars where it draws any.

    Args:
        stream: where to write; None is the standard error of the moment.
    """

    def __init__(self, stream: TextStream | None = None) -> None:
        self._stream = stream
        self._explained = False
        self._behaviour = ""

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        self._explained = False
        self._behaviour = ""
        return {}

    def log(self, snapshot: Snapshot) -> None:
        if not self._explained:
            self._explained = True
            self._explain(len(snapshot.layers))
        self._behaviour = behaviour_words(snapshot)
        line = "  ".join(column.align(column.cell(snapshot)) for column in _COLUMNS)
        invalid = [str(layer) for layer, status in snapshot.status.items() if status.startswith("invalid")]
        self._write(f"{line}  invalid layers: {', '.join(invalid)}" if invalid else line)

    def finish(self, folder: Path) -> None:
        if self._behaviour:
            self._write(self._behaviour)

    def _explain(self, layers: int) -> None:
        numbers = f"medians over {layers} layers" if layers > 1 else "numbers of the one layer"
        self._write("'answers' is the KL divergence of the next tokens after the prompts from the start, in nats;")
        self._write(f"{numbers}; 'moved' is the 2-Wasserstein distance between H1 barcodes,")
        self._write("in units of the median distance between prompts")
        self._write("  ".join(column.align(column.upper) for column in _COLUMNS))
        self._write("  ".join(column.align(column.lower) for column in _COLUMNS))

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


def _answers(snapshot: Snapshot) -> str:
    move = Move.of(snapshot, "next_token_kl")
    return _MISSING if move is None else move.brief


def _worker_seconds(snapshot: Snapshot) -> str:
    seconds = snapshot.provenance.get("seconds", {}).get("all")
    return _MISSING if seconds is None else f"{seconds:.1f} s"


_COLUMNS = (
    _Column("", "step", lambda snapshot: str(snapshot.step)),
    _Column("answers", "moved", _answers),
    _Column("moved since", "last sample", _rounded("wasserstein_h1.previous")),
    _Column("moved from", "the start", _rounded("wasserstein_h1.first")),
    _Column("neighbours", "kept", _share("mutual_knn.first")),
    _Column("loops", "(H1 bars)", _count("h1_bars")),
    _Column("shared", "over depth", _share("depth_similarity_h1")),
    _Column("worker", "time", _worker_seconds),
)
