"""topo_callback: how a language model's representations reorganise while it is fine-tuned.

Importing the package loads neither torch nor transformers nor an engine; each name loads what it needs on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.callback import TopologyCallback
    from topo_callback.config import TopologyConfig
    from topo_callback.homology.barcode import Barcode
    from topo_callback.probe.probe import Probe
    from topo_callback.records.snapshot import Snapshot
    from topo_callback.records.trajectory import Trajectory

__all__ = ["Barcode", "Probe", "Snapshot", "TopologyCallback", "TopologyConfig", "Trajectory"]

_HOME = {
    "Barcode": "homology.barcode",
    "Probe": "probe.probe",
    "Snapshot": "records.snapshot",
    "TopologyCallback": "callback",
    "TopologyConfig": "config",
    "Trajectory": "records.trajectory",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory((*globals(), "__version__"), _HOME)
