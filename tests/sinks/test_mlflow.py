"""What arrives in MLflow, read back with its client from a local database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sinks.tracked_run import train
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Event, Trajectory
from topo_callback.errors import MissingExtraError, TopologyError
from topo_callback.figures import draw_run_pictures, draw_sample_pictures
from topo_callback.sinks import MlflowSink, default_sinks, depth_numbers, layer_numbers

mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed")
pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no local database; mlflow is not installed")
# mlflow warns in its own modules
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def client(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An experiment of the test's own, and no active run before and after it."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(database)
    experiment = mlflow.create_experiment(tmp_path.name, artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=experiment)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    yield mlflow.MlflowClient()
    while mlflow.active_run() is not None:
        mlflow.end_run()


def history(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_numbers_and_pictures_arrive_at_the_steps_of_their_samples(client: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run_id = mlflow.start_run().info.run_id
    sink = MlflowSink()
    assert sink.start(folder.read_run(), folder.path)["mlflow"]["run_id"] == run_id
    snapshots = make_snapshots()
    for snapshot in snapshots[:-1]:
        sink.log(snapshot)
    mlflow.end_run()  # as the trainer does before other callbacks hear of the end
    sink.log(snapshots[-1])
    draw_sample_pictures(folder, snapshots[-1], [LAYERS[-1]])
    draw_run_pictures(folder)
    sink.finish(folder.path)
    expected: dict[str, list[tuple[int, float]]] = {}
    for snapshot in snapshots:
        for key, value in {**depth_numbers(snapshot), **layer_numbers(snapshot)}.items():
            expected.setdefault(key, []).append((snapshot.step, value))
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == set(expected)
    for key in ("topology/h1_bars", "topology/wasserstein_h1.previous", "topology_layers/median_distance.L06"):
        assert history(client, run_id, key) == expected[key]
    assert run.data.tags["topology.run_id"] == folder.run_id
    assert run.data.tags["topology.probe_hash"] == "0" * 64
    whole = {Path(each.path).name for each in client.list_artifacts(run_id, "topology_pictures")}
    assert whole >= {"trajectory.png", "steps"}
    steps = {Path(each.path).name for each in client.list_artifacts(run_id, "topology_pictures/steps")}
    assert f"barcode-L06-step-{STEPS[-1]:08d}.png" in steps


def test_a_run_opened_late_is_joined_at_the_first_snapshot(client: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    sink = MlflowSink()
    assert sink.start(folder.read_run(), folder.path) == {}
    with pytest.raises(TopologyError, match=r"mlflow\.start_run"):
        sink.log(make_snapshots()[0])
    run_id = mlflow.start_run().info.run_id
    sink.log(make_snapshots()[0])
    sink.finish(folder.path)
    assert mlflow.active_run().info.run_id == run_id
    assert len(history(client, run_id, "topology/h1_bars")) == 1


def test_events_are_tags(client: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run_id = mlflow.start_run().info.run_id
    sink = MlflowSink()
    sink.start(folder.read_run(), folder.path)
    sink.event(Event("explained", "observed", 60, 61, 80, (2,), 5.8, None, "the change of steps 60-61 has stayed"))
    sink.finish(folder.path)
    mlflow.flush_async_logging()
    tags = client.get_run(run_id).data.tags
    assert tags["topology.event.80.explained"] == "explained: the change of steps 60-61 has stayed"


def test_a_given_run_needs_not_be_active(client: Any, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    with mlflow.start_run() as run:
        pass
    sink = MlflowSink(run.info.run_id)
    sink.start(folder.read_run(), folder.path)
    sink.log(make_snapshots()[-1])
    sink.finish(folder.path)
    assert [step for step, _ in history(client, run.info.run_id, "topology/h1_bars")] == [STEPS[-1]]


@pytest.mark.parametrize("attached", [False, True])
def test_a_training_run_is_complete(attached: bool, client: Any, tmp_path: Path) -> None:
    train(tmp_path / "out", ["mlflow"], attached=attached)
    (experiment,) = client.search_experiments(filter_string=f"name = '{tmp_path.name}'")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [step for step, _ in history(client, run.info.run_id, "topology/median_distance")]
    assert steps == list(Trajectory.load(tmp_path / "out").steps)
    assert [step for step, _ in history(client, run.info.run_id, "loss")] == [2, 4]


def test_it_is_chosen_from_report_to_and_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert any(isinstance(sink, MlflowSink) for sink in default_sinks(["tensorboard", "mlflow"]))
    assert not any(isinstance(sink, MlflowSink) for sink in default_sinks("tensorboard"))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match="pip install mlflow"):
        MlflowSink().start({}, tmp_path)
