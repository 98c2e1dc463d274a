"""Sinks: where finished numbers go, beside the trajectory folder.

A sink is any object with the three methods of `Sink`. The names are looked up on first use, so that no tracker is
imported before it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.sinks.console import ConsoleSink
    from topo_callback.sinks.defaults import default_sinks
    from topo_callback.sinks.gauges import OpenTelemetrySink, PrometheusSink
    from topo_callback.sinks.headline import depth_numbers, layer_numbers
    from topo_callback.sinks.live import LiveSink
    from topo_callback.sinks.mlflow import MlflowSink
    from topo_callback.sinks.protocol import MemorySink, Sink
    from topo_callback.sinks.tensorboard import TensorBoardSink
    from topo_callback.sinks.tracker import TrackerSink
    from topo_callback.sinks.trackio import TrackioSink
    from topo_callback.sinks.wandb import WandbSink

__all__ = [
    "ConsoleSink",
    "LiveSink",
    "MemorySink",
    "MlflowSink",
    "OpenTelemetrySink",
    "PrometheusSink",
    "Sink",
    "TensorBoardSink",
    "TrackerSink",
    "TrackioSink",
    "WandbSink",
    "default_sinks",
    "depth_numbers",
    "layer_numbers",
]

_HOME = {
    "ConsoleSink": "console",
    "LiveSink": "live",
    "MemorySink": "protocol",
    "MlflowSink": "mlflow",
    "OpenTelemetrySink": "gauges",
    "PrometheusSink": "gauges",
    "Sink": "protocol",
    "TensorBoardSink": "tensorboard",
    "TrackerSink": "tracker",
    "TrackioSink": "trackio",
    "WandbSink": "wandb",
    "default_sinks": "defaults",
    "depth_numbers": "headline",
    "layer_numbers": "headline",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
