"""Persistent homology of a cloud and zigzag persistence of a sequence of neighbour graphs.

The names are looked up on first use, so that importing a barcode loads no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute

if TYPE_CHECKING:
    from topo_callback.homology.barcode import Barcode
    from topo_callback.homology.representatives import zigzag_cycles
    from topo_callback.homology.rips import rips_persistence
    from topo_callback.homology.zigzag import zigzag_persistence

__all__ = ["Barcode", "rips_persistence", "zigzag_cycles", "zigzag_persistence"]

_HOME = {
    "Barcode": "barcode",
    "rips_persistence": "rips",
    "zigzag_cycles": "representatives",
    "zigzag_persistence": "zigzag",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)
