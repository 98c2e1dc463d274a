"""The sinks a run gets without being asked: the terminal, and the trackers that its trainer reports to."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from topo_callback.sinks.console import ConsoleSink
from topo_callback.sinks.protocol import Sink
from topo_callback.sinks.wandb import WandbSink


def default_sinks(report_to: str | Iterable[str] | None) -> list[Sink]:
    """A line per sample on the terminal, and a sink for each supported tracker in `TrainingArguments.report_to`.

    Today that is Weights & Biases, where it is installed. Its sink joins the run that the trainer opens, at its own
    start or, where the trainer has not opened it yet, at the first snapshot.
    """
    named = {report_to} if isinstance(report_to, str) else set(report_to or ())
    sinks: list[Sink] = [ConsoleSink()]
    if named & {"wandb", "all"} and _is_installed("wandb"):
        sinks.append(WandbSink())
    return sinks


def _is_installed(package: str) -> bool:
    # a folder of that name in the working directory, such as W&B's own ./wandb, has a spec but no origin
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
