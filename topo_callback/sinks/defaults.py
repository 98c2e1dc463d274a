"""The sinks a run gets without being asked: the terminal, and the trackers that its trainer reports to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

from topo_callback.sinks.console import ConsoleSink
from topo_callback.sinks.live import LiveSink
from topo_callback.sinks.mlflow import MlflowSink
from topo_callback.sinks.protocol import Sink
from topo_callback.sinks.tensorboard import TensorBoardSink
from topo_callback.sinks.trackio import TrackioSink
from topo_callback.sinks.wandb import WandbSink

TRACKERS: Mapping[str, Callable[[], Sink]] = MappingProxyType(
    {"wandb": WandbSink, "tensorboard": TensorBoardSink, "trackio": TrackioSink, "mlflow": MlflowSink}
)
"""Name in `report_to`, which is also that of the package -> its sink."""


_NO_TRACKERS = ("none", "all", "codecarbon")  # what `report_to` may name beside trackers


def without_sink(report_to: str | Iterable[str] | None) -> list[str]:
    """The trackers in `report_to` that get nothing, because there is no sink for them."""
    named = [report_to] if isinstance(report_to, str) else list(report_to or ())
    return [name for name in dict.fromkeys(named) if name not in TRACKERS and name not in _NO_TRACKERS]


def default_sinks(report_to: str | Iterable[str] | None) -> list[Sink]:
    """The terminal's two sinks, and one for each supported tracker in `TrainingArguments.report_to`.

    Supported are Weights & Biases, TensorBoard, Trackio and MLflow, where they are installed. Except for TensorBoard, a
    sink joins the run that the trainer opens, at its own start or, where the trainer has not opened it yet, at the
    first snapshot. Other names in `report_to` have no sink (`without_sink`); the record on disk needs none.
    """
    named = {report_to} if isinstance(report_to, str) else set(report_to or ())
    sinks: list[Sink] = [ConsoleSink(), LiveSink()]
    sinks += [make() for name, make in TRACKERS.items() if named & {name, "all"} and _is_installed(name)]
    return sinks


def _is_installed(package: str) -> bool:
    # a folder of that name in the working directory, such as W&B's own ./wandb, has a spec but no origin
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
