"""topo_callback: how a language model's representations reorganise while it is fine-tuned.

Importing the package loads neither torch nor transformers nor an engine; each name loads what it needs on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.callback import TopologyCallback
    from topo_callback.config import TopologyConfig
    from topo_callback.dynamics.reorganisation import Event
    from topo_callback.errors import (
        ConfigurationError,
        FolderBusyError,
        MissingExtraError,
        ProbeError,
        RecordError,
        TopologyError,
        UnsupportedModelError,
    )
    from topo_callback.homology.barcode import Barcode
    from topo_callback.loop import Watch, watch
    from topo_callback.probe.parallel import ParallelProbe
    from topo_callback.probe.probe import Probe
    from topo_callback.records.snapshot import Snapshot
    from topo_callback.sinks.protocol import MemorySink
    from topo_callback.trajectory import Trajectory

__all__ = [
    "Barcode",
    "ConfigurationError",
    "Event",
    "FolderBusyError",
    "MemorySink",
    "MissingExtraError",
    "ParallelProbe",
    "Probe",
    "ProbeError",
    "RecordError",
    "Snapshot",
    "TopologyCallback",
    "TopologyConfig",
    "TopologyError",
    "Trajectory",
    "UnsupportedModelError",
    "Watch",
    "watch",
]

_HOME = {
    "Barcode": "homology.barcode",
    "ConfigurationError": "errors",
    "Event": "dynamics.reorganisation",
    "FolderBusyError": "errors",
    "MemorySink": "sinks.protocol",
    "MissingExtraError": "errors",
    "ParallelProbe": "probe.parallel",
    "Probe": "probe.probe",
    "ProbeError": "errors",
    "RecordError": "errors",
    "Snapshot": "records.snapshot",
    "TopologyCallback": "callback",
    "TopologyConfig": "config",
    "TopologyError": "errors",
    "Trajectory": "trajectory",
    "UnsupportedModelError": "errors",
    "Watch": "loop",
    "watch": "loop",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory((*globals(), "__version__"), _HOME)
