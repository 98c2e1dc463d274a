"""What comes of a task of the worker, and what the dispatcher's thread is told to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from topo_callback.records.snapshot import Snapshot


@dataclass(frozen=True)
class Lost:
    """A sample without a snapshot, and why."""

    step: int
    cause: str


@dataclass(frozen=True)
class RunPictures:
    """The pictures of the whole run are drawn."""

    names: tuple[str, ...]


Outcome = Snapshot | Lost | RunPictures


@dataclass(frozen=True)
class Call:
    """Something that uses the disk."""

    function: Callable[..., object]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class Task:
    kind: Literal["warm_up", "measure", "draw"]
    step: int  # of a measurement; -1 otherwise
    future: Future[Any]
    deadline: float
