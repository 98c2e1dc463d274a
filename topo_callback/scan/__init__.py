"""Scan: trajectories from checkpoints that are there already. Importing it loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.scan.affinity import affinity_of, write_affinity
    from topo_callback.scan.course import Followed, Until
    from topo_callback.scan.finding import find_series
    from topo_callback.scan.following import Follower
    from topo_callback.scan.prompts import Prompts
    from topo_callback.scan.scanning import Manner, Scanned, scan

__all__ = [
    "Followed", "Follower", "Manner", "Prompts", "Scanned", "Until", "affinity_of", "find_series", "scan",
    "write_affinity",
]  # fmt: skip

_HOME = {
    "Followed": "course",
    "Follower": "following",
    "Manner": "scanning",
    "Prompts": "prompts",
    "Scanned": "scanning",
    "Until": "course",
    "affinity_of": "affinity",
    "find_series": "finding",
    "scan": "scanning",
    "write_affinity": "affinity",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
