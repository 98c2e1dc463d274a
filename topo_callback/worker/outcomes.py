"""What comes of a task of the worker, and what the dispatcher's thread is told to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.snapshot import Snapshot


@dataclass(frozen=True)
class Lost:
    """A sample without a snapshot, and why."""

    step: int
    cause: str


@dataclass(frozen=True)
class Concluded:
    """One of the last things to be done for a run is done, or cannot be.

    Attributes:
        verdict: that was asked for; None for pictures and page, and where it could not be made.
    """

    verdict: Verdict | None = None


Outcome = Snapshot | Lost | Concluded


@dataclass(frozen=True)
class Call:
    """Something that uses the disk."""

    function: Callable[..., object]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class Task:
    kind: Literal["warm_up", "measure", "verdict", "draw", "page"]
    step: int  # of a measurement; -1 otherwise
    future: Future[Any]
    deadline: float
