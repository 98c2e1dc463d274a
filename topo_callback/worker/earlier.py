"""Which records of earlier samples a new one needs: those its layers are compared with, and those in its zigzags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from topo_callback.errors import RecordError
from topo_callback.measuring.comparing import Part, parts_of
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot


@dataclass(frozen=True)
class _Outline:
    """What of a record says whether it is needed."""

    layers: tuple[int, ...]
    parts: frozenset[Part]


def compared_steps(folder: TrajectoryFolder, steps: Sequence[int]) -> set[int]:
    """The first and the newest of these steps in which each layer, and each other part that is compared, is valid.

    Usually these are two; records are read from both ends only as far as some part is still looked for.

    Args:
        steps: recorded ones, ascending.
    """
    return _covering(folder, steps) | _covering(folder, steps[::-1])


def zigzag_steps(folder: TrajectoryFolder, steps: Sequence[int], window: int | None) -> list[int]:
    """The steps, ascending, that the zigzags over time need: of each layer the newest ones in which it is ok.

    Args:
        steps: recorded ones, ascending.
        window: samples in a zigzag, the one that is being measured included; None: all.
    """
    if window is None:
        return list(steps)
    left: dict[int, int] = {}
    wanted = []
    for step in reversed(steps):
        outline = _outline_of(folder, step)
        if outline is None:
            continue
        for layer in outline.layers:
            left.setdefault(layer, window - 1)
        ok = [layer for kind, layer in outline.parts if kind == "cloud" and layer is not None and left[layer] > 0]
        if ok:
            wanted.append(step)
        for layer in ok:
            left[layer] -= 1
        if not any(left.values()):
            break
    return wanted[::-1]


def _covering(folder: TrajectoryFolder, steps: Sequence[int]) -> set[int]:
    """The earliest of the steps, in the order given, that have each part that some of them has."""
    found: set[int] = set()
    seen: set[Part] = set()
    newest = _outline_of(folder, max(steps, default=0))
    of_model = {part for part in (newest.parts if newest else ()) if part[1] is None}  # which an early one may not have
    for step in steps:
        outline = _outline_of(folder, step)
        if outline is None:
            continue
        if outline.parts - seen:
            found.add(step)
            seen |= outline.parts
        kinds = {"cloud", *(kind for kind, _ in seen if kind == "tokens")}
        if of_model <= seen and all((kind, layer) in seen for kind in kinds for layer in outline.layers):
            break
    return found


def _outline_of(folder: TrajectoryFolder, step: int) -> _Outline | None:
    path = folder.step_file(folder.samples, step)
    try:
        return _outline(str(path), path.stat().st_mtime_ns)
    except (RecordError, OSError):
        return None


@lru_cache(maxsize=1 << 16)
def _outline(path: str, written: int) -> _Outline:
    """Of one record, read once; `written` tells a record from one done anew."""
    snapshot = Snapshot.from_record(*read_record(Path(path)))
    return _Outline(snapshot.layers, parts_of(snapshot))
