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
from topo_callback.sinks.tracker import CALLS, TrackerSink
from topo_callback.sinks.trackio import TrackioSink
from topo_callback.sinks.wandb import WandbSink

TRACKERS: Mapping[str, Callable[[], Sink]] = MappingProxyType(
    {"wandb": WandbSink, "tensorboard": TensorBoardSink, "trackio": TrackioSink, "mlflow": MlflowSink}
)
"""Name in `report_to`, which is also that of the package -> its sink."""


_NO_TRACKERS = ("none", "all", "codecarbon")  # what `report_to` may name beside trackers


def without_sink(report_to: str | Iterable[str] | None) -> list[str]:
    """The trackers in `report_to` that get nothing: there is no sink for them, or none without their package."""
    named = [report_to] if isinstance(report_to, str) else list(report_to or ())
    served = (*TRACKERS, *_NO_TRACKERS, *filter(_is_installed, _joined()))
    return [name for name in dict.fromkeys(named) if name not in served]


def instead_of_a_sink(names: Iterable[str]) -> str:
    """What to do for trackers that get nothing, in words."""
    known = [name for name in names if name in CALLS]
    missing = [name for name in known if name in _joined()]
    given = [f"TrackerSink({name!r}, run=...)" for name in known if name not in missing]
    taken = f"sinks=[...] takes {' or '.join(given) if given else 'one of your own'}"
    return f"pip install {' '.join(missing)}, or {taken}" if missing else taken


def _joined() -> list[str]:
    """The trackers that one sink for all can join by itself."""
    return [name for name, calls in CALLS.items() if calls.running is not None]


def default_sinks(report_to: str | Iterable[str] | None) -> list[Sink]:
    """The terminal's two sinks, and one for each supported tracker in `TrainingArguments.report_to`.

    Supported are Weights & Biases, TensorBoard, Trackio, MLflow, Comet, ClearML and SwanLab, where they are installed;
    DVCLive, Neptune and Aim through `TrackerSink`, which is given their run. Except for TensorBoard, a
    sink joins the run that the trainer opens, at its own start or, where the trainer has not opened it yet, at the
    first snapshot. Other names in `report_to` have no sink (`without_sink`); the record on disk needs none.
    """
    named = {report_to} if isinstance(report_to, str) else set(report_to or ())
    sinks: list[Sink] = [ConsoleSink(), LiveSink()]
    sinks += [make() for name, make in TRACKERS.items() if named & {name, "all"} and _is_installed(name)]
    sinks += [TrackerSink(name) for name in _joined() if named & {name, "all"} and _is_installed(name)]
    return sinks


def _is_installed(package: str) -> bool:
    # a folder of that name in the working directory, such as W&B's own ./wandb, has a spec but no origin
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
