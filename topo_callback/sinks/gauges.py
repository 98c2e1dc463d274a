"""The newest numbers of a run as gauges, for Grafana: in a file for Prometheus, or through OpenTelemetry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.records.record import write_whole
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import DEPTH_MEASURES, LAYER_MEASURES, verdict_numbers

_HELP = {
    "topo_callback_step": ("gauge", "Optimizer step of the newest sample."),
    "topo_callback_measure": ("gauge", "A number for the whole depth, or the median over layers."),
    "topo_callback_layer_measure": ("gauge", "A number of one layer."),
    "topo_callback_events_total": ("counter", "Events found so far, by kind."),
    "topo_callback_verdict": ("gauge", "A number of the verdict on the finished run."),
}
_Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _newest(snapshot: Snapshot) -> _Samples:
    """The headline of a sample."""
    found: _Samples = {("topo_callback_step", ()): float(snapshot.step)}
    for measure in DEPTH_MEASURES:
        value = snapshot.median(measure)
        if value is not None:
            found["topo_callback_measure", (("measure", measure),)] = value
    for measure in LAYER_MEASURES:
        for layer, value in snapshot.numbers.get(measure, {}).items():
            if layer is not None:
                labels = (("measure", measure), ("layer", str(layer)))
                found["topo_callback_layer_measure", labels] = value
    return found


def _of_verdict(verdict: Verdict) -> _Samples:
    return {
        ("topo_callback_verdict", (("number", key.removeprefix("topology/")),)): value
        for key, value in verdict_numbers(verdict).items()
        if not isinstance(value, str)
    }


class PrometheusSink:
    """Replaces one text file at every sample, whole: point the textfile collector of node_exporter at its folder.

    The file holds the headline of the newest sample, how many events there were of each kind, and at the end the
    numbers of the verdict, each with the label `run`. Numbers that are not finite are left out.

    Args:
        file: its name ends in `.prom`, or the collector passes it by; its folder is there.

    Raises:
        ConfigurationError: another name, or no such folder.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        if self._file.suffix != ".prom":
            raise ConfigurationError(f"PrometheusSink: {file}; accepted: a file whose name ends in .prom")
        if not self._file.parent.is_dir():
            raise ConfigurationError(f"PrometheusSink: {self._file.parent} is not a folder; make it first")
        self._run = ""
        self._newest: _Samples = {}
        self._verdict: _Samples = {}
        self._events: Counter[str] = Counter()

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Remember whose numbers these are; nothing is written yet."""
        self._run = str(run.get("run_id") or folder.name)
        return {}

    def log(self, snapshot: Snapshot) -> None:
        """Replace the numbers of the sample before by those of this one."""
        self._newest = _newest(snapshot)
        self._write()

    def event(self, event: Event) -> None:
        """Count an event; it is in the file with the next sample."""
        self._events[event.kind] += 1

    def conclude(self, verdict: Verdict) -> None:
        """Add the numbers of the verdict."""
        self._verdict = _of_verdict(verdict)
        self._write()

    def finish(self, folder: Path) -> None:
        """Write the file once more: events may have come since."""
        self._write()

    def _write(self) -> None:
        write_whole(self._file, "".join(self._lines()).encode())

    def _lines(self) -> Iterator[str]:
        events: _Samples = {
            ("topo_callback_events_total", (("kind", kind),)): float(count) for kind, count in self._events.items()
        }
        samples = {**self._newest, **events, **self._verdict}
        for name, (kind, said) in _HELP.items():
            found = {labels: value for (metric, labels), value in samples.items() if metric == name}
            if found:
                yield f"# HELP {name} {said}\n# TYPE {name} {kind}\n"
            for labels, value in found.items():
                if math.isfinite(value):
                    said_labels = ",".join(f'{key}="{_escaped(text)}"' for key, text in (("run", self._run), *labels))
                    yield f"{name}{{{said_labels}}} {value!r}\n"


class OpenTelemetrySink:
    """Sets gauges `topo_callback.step`, `.measure`, `.layer_measure` and `.verdict`, and counts `topo_callback.events`.

    They have the names and labels of `PrometheusSink`, with the attribute `run`, and go where the process's own
    `MeterProvider` sends them: none is set up here. Numbers that are not finite are left out.

    Args:
        meter: None: of the provider that is set when the run begins.

    Raises:
        MissingExtraError: at the start, when opentelemetry is not installed.
    """

    def __init__(self, meter: Any = None) -> None:
        self._meter = meter
        self._run = ""
        self._gauges: dict[str, Any] = {}

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Make the instruments; nothing is set yet."""
        self._run = str(run.get("run_id") or folder.name)
        meter = self._meter or _opentelemetry().get_meter("topo_callback")
        for name, (kind, said) in _HELP.items():
            make = meter.create_counter if kind == "counter" else meter.create_gauge
            self._gauges[name] = make(_dotted(name), description=said)
        return {}

    def log(self, snapshot: Snapshot) -> None:
        """Set the gauges to the numbers of this sample."""
        self._set(_newest(snapshot))

    def event(self, event: Event) -> None:
        """Count an event."""
        self._gauges["topo_callback_events_total"].add(1, {"run": self._run, "kind": event.kind})

    def conclude(self, verdict: Verdict) -> None:
        """Set the numbers of the verdict."""
        self._set(_of_verdict(verdict))

    def finish(self, folder: Path) -> None:
        """Nothing: the provider is the user's."""

    def _set(self, samples: _Samples) -> None:
        for (name, labels), value in samples.items():
            if math.isfinite(value):
                self._gauges[name].set(value, {"run": self._run, **dict(labels)})


def _dotted(name: str) -> str:
    return f"topo_callback.{name.removeprefix('topo_callback_').removesuffix('_total')}"


def _opentelemetry() -> Any:
    try:
        return import_module("opentelemetry.metrics")
    except ImportError as error:
        raise MissingExtraError(
            "OpenTelemetrySink needs the package opentelemetry-api: pip install opentelemetry-sdk"
        ) from error


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
