"""What a Prometheus scraper reads of a run, by its own parser, and what OpenTelemetry's own reader does."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Event
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError
from topo_callback.sinks import OpenTelemetrySink, PrometheusSink, Sink, layer_numbers

parser: Any = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
VERDICT = Verdict("finished", 6, 0, 16, answers_moved=Measured(0.2, 0.03), course="answers", over=True, moved=True)


def read(file: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Name of a metric -> values of its labels but the run -> value."""
    return {
        sample.name: {
            tuple(value for key, value in each.labels.items() if key != "run"): each.value
            for each in family.samples
        }
        for family in parser.text_string_to_metric_families(file.read_text())
        for sample in family.samples[:1]
    }  # fmt: skip


def test_the_file_has_the_newest_numbers_events_and_the_verdict(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = PrometheusSink(tmp_path / "run.prom")
    assert isinstance(sink, Sink)
    sink.start(folder.read_run(), folder.path)
    for snapshot in make_snapshots():
        sink.log(snapshot)
    sink.event(Event("change", "sequential", 3, 4, 5, (), 2.0, None, "it changed"))
    sink.event(Event("change", "sequential", 9, 9, 9, (), 2.0, None, "it changed again"))
    sink.conclude(VERDICT)
    sink.finish(folder.path)
    found = read(tmp_path / "run.prom")
    newest = make_snapshots()[-1]
    assert found["topo_callback_step"] == {(): STEPS[-1]}
    assert found["topo_callback_measure"]["h1_bars",] == newest.median("h1_bars")
    assert len(found["topo_callback_layer_measure"]) == len(layer_numbers(newest))
    measure = "mutual_knn.first"
    assert found["topo_callback_layer_measure"][measure, str(LAYERS[1])] == newest.numbers[measure][LAYERS[1]]
    assert found["topo_callback_events_total"] == {("change",): 2.0}
    assert found["topo_callback_verdict"]["answers_moved",] == 0.2
    assert f'run="{folder.run_id}"' in (tmp_path / "run.prom").read_text()
    # another user's exporter reads it, and no half-written file is left beside it
    assert stat.S_IMODE((tmp_path / "run.prom").stat().st_mode) & 0o044 == 0o044
    assert [path.name for path in tmp_path.glob("*.prom*")] == ["run.prom"]


@pytest.mark.parametrize(
    ("name", "said"), [("run.txt", "accepted: a file whose name ends in .prom"), ("no/run.prom", "is not a folder")]
)
def test_a_file_that_no_collector_would_read_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PrometheusSink(tmp_path / name)


def test_opentelemetry_has_the_same_numbers(tmp_path: Path) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics", reason="opentelemetry-sdk is not installed")
    reader = sdk.export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    folder = write_trajectory(tmp_path / "topology")
    sink = OpenTelemetrySink(provider.get_meter("test"))
    assert isinstance(sink, Sink)
    sink.start(folder.read_run(), folder.path)
    for snapshot in make_snapshots():
        sink.log(snapshot)
    sink.event(Event("change", "sequential", 3, 4, 5, (), 2.0, None, "it changed"))
    sink.conclude(VERDICT)
    sink.finish(folder.path)
    found = {
        (metric.name, *(str(value) for key, value in sorted(point.attributes.items()) if key != "run")): point.value
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if point.attributes["run"] == folder.run_id
    }
    newest = make_snapshots()[-1]
    assert found["topo_callback.step",] == STEPS[-1]
    assert found["topo_callback.measure", "h1_bars"] == newest.median("h1_bars")
    by_layer = newest.numbers["mutual_knn.first"]
    assert found["topo_callback.layer_measure", str(LAYERS[1]), "mutual_knn.first"] == by_layer[LAYERS[1]]
    assert found["topo_callback.events", "change"] == 1
    assert found["topo_callback.verdict", "answers_moved"] == 0.2
    provider.shutdown()
