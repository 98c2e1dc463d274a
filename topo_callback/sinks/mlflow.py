"""MlflowSink: the headline of every snapshot, and pictures, in the MLflow run of the trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import MissingExtraError, TopologyError
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import (
    PICTURES_KEY,
    depth_numbers,
    layer_numbers,
    pictures_of_the_run,
    verdict_numbers,
)

_MOST_OF_A_TAG = 5000  # letters, under the oldest servers


class MlflowSink:
    """Logs `topology/<measure>` and `topology_layers/<measure>.L07` with the sample's step, to an MLflow run.

    The trainer ends its run before other callbacks hear of the end of training; a client of its own goes on writing to
    it. Numbers are sent in the background; pictures, which MLflow only takes while one waits, at the end of training.

    Args:
        run_id: an MLflow run; None joins the active one, looked up at the start or, when there is none yet, at the
            first snapshot. It is never ended here.

    Raises:
        MissingExtraError: at the start, when mlflow is not installed.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self._given = run_id
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._run_id: str | None = None
        self._client: Any = None
        self._tags: dict[str, str] = {}
        self._sent: list[Any] = []

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Join the MLflow run.

        Returns:
            {"mlflow": {"run_id", "experiment_id", "name"}}, or {} when no run is active yet.
        """
        mlflow = _import_mlflow()
        self._begin_anew()
        probe = run.get("probe", {}).get("hash")
        facts = {"run_id": folder.name, "config_hash": run.get("config_hash"), "probe_hash": probe}
        self._tags = {f"topology.{name}": str(value) for name, value in facts.items() if value is not None}
        return self._bind(mlflow)

    def log(self, snapshot: Snapshot) -> None:
        """The headline of one snapshot, at its step.

        Raises:
            TopologyError: no MLflow run is active.
        """
        mlflow = _import_mlflow()
        if self._client is None and not self._bind(mlflow):
            raise TopologyError(
                "no MLflow run is active; let the trainer report to 'mlflow', call mlflow.start_run() before training, "
                "or use MlflowSink(run_id=...)"
            )
        now = int(time.time() * 1000)
        metrics = [
            mlflow.entities.Metric(key, float(value), now, snapshot.step)
            for key, value in {**depth_numbers(snapshot), **layer_numbers(snapshot)}.items()
            if math.isfinite(value)
        ]
        # MLflow takes at most 1000 metrics at once
        for i in range(0, len(metrics), 1000):
            self._sent.append(self._client.log_batch(self._run_id, metrics[i : i + 1000], synchronous=False))

    def event(self, event: Event) -> None:
        """The event in words, as the tag `topology.event.<step>.<kind>`."""
        if self._client is not None:
            name = f"topology.event.{event.known_at}.{event.kind}"
            self._client.set_tag(self._run_id, name, event.said[:_MOST_OF_A_TAG], synchronous=False)

    def conclude(self, verdict: Verdict) -> None:
        """The numbers of the verdict and its text, as tags `topology.<name>`."""
        if self._client is not None:
            for key, value in verdict_numbers(verdict).items():
                name = key.replace("/", ".")
                self._client.set_tag(self._run_id, name, str(value)[:_MOST_OF_A_TAG], synchronous=False)

    def finish(self, folder: Path) -> None:
        """Wait for the numbers under way, then send pictures: of the whole run, and of the steps that have any."""
        if self._client is None:
            return
        for operation in self._sent:
            operation.wait()
        whole = set(pictures_of_the_run(folder).values())
        pictures = folder / "pictures"
        for path in sorted(pictures.glob("*.png")):
            if path.is_file() and not path.is_symlink():
                inside = PICTURES_KEY if path in whole else f"{PICTURES_KEY}/steps"
                self._client.log_artifact(self._run_id, str(path), inside)
        self._begin_anew()

    def _bind(self, mlflow: Any) -> dict[str, Any]:
        active = mlflow.active_run()
        run_id = self._given or (active.info.run_id if active is not None else None)
        if run_id is None:
            return {}
        self._run_id = run_id
        self._client = mlflow.MlflowClient()
        for name, value in self._tags.items():
            self._client.set_tag(run_id, name, value, synchronous=False)
        info = self._client.get_run(run_id).info
        return {"mlflow": {"run_id": run_id, "experiment_id": info.experiment_id, "name": info.run_name}}


def _import_mlflow() -> Any:
    try:
        return import_module("mlflow")
    except ImportError as error:
        raise MissingExtraError("MlflowSink needs the package mlflow; install it with: pip install mlflow") from error
