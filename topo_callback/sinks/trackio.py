"""TrackioSink: the headline of every snapshot, pictures, events and verdict, in the Trackio run of the trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import (
    EVENT_KEY,
    STEP_KEY,
    depth_numbers,
    layer_numbers,
    pictures_of,
    pictures_of_the_run,
    verdict_numbers,
)


class TrackioSink:
    """Logs to the run that the trainer opened, to a given run, or to a run of its own.

    Trackio numbers the rows of a run and makes that its step; naming a step would move the numbers of the trainer's
    next rows. So a row here names none and carries `topology/step`, the axis to choose for these keys. The trainer
    finishes its run before other callbacks hear of the end; the run is kept here and takes the last rows all the same.

    Args:
        run: a Trackio run; None joins the current one, looked up at the start or, when there is none yet, at the first
            snapshot. A run that was not opened here is not finished here, unless it already was.
        project: open an own run in this project instead; it is finished at the end.

    Raises:
        ConfigurationError: both a run and a project.
        MissingExtraError: at the start, when trackio is not installed.
    """

    def __init__(self, run: Any = None, *, project: str | None = None) -> None:
        if run is not None and project is not None:
            raise ConfigurationError(
                "TrackioSink got both run= and project=; give the run to join, or the project of a new one"
            )
        self._given = run
        self._project = project
        self._run: Any = None
        self._folder = Path()
        self._last_step = 0

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Join or open the Trackio run.

        Returns:
            {"trackio": {"id", "name", "project", "url"}}, or {} when no run is open yet.
        """
        trackio = _import_trackio()
        self._folder = folder
        self._run = self._given
        if self._run is None and self._project is not None:
            current = trackio.context_vars.current_run.get()
            config = {"topology_run_id": folder.name, "topology_config_hash": run.get("config_hash")}
            self._run = trackio.init(
                self._project, f"topology-{folder.name}", config=config, auto_log_gpu=False, auto_log_cpu=False
            )
            trackio.context_vars.current_run.set(current)  # `trackio.log` goes on meaning the trainer's
        return self._bind(trackio)

    def log(self, snapshot: Snapshot) -> None:
        """One row: the headline, and the pictures drawn for this snapshot.

        Raises:
            TopologyError: no Trackio run is open.
        """
        trackio = _import_trackio()
        if self._run is None and not self._bind(trackio):
            raise TopologyError(
                "no Trackio run is open; let the trainer report to 'trackio', call trackio.init() before training, or "
                "use TrackioSink(project=...)"
            )
        numbers = {**depth_numbers(snapshot), **layer_numbers(snapshot)}
        row: dict[str, Any] = {key: value for key, value in numbers.items() if math.isfinite(value)}
        pictures = pictures_of(self._folder, snapshot.provenance.get("pictures", ()))
        self._last_step = snapshot.step
        self._run.log({STEP_KEY: snapshot.step, **row, **_images(trackio, pictures)})

    def event(self, event: Event) -> None:
        """A row with the event in words, under `topology/event`."""
        if self._run is not None or self._bind(_import_trackio()):
            self._run.log({STEP_KEY: event.known_at, EVENT_KEY: event.said})

    def conclude(self, verdict: Verdict) -> None:
        """A row with the numbers of the verdict and its text, under `topology/<name>`."""
        if self._run is not None:
            self._run.log({STEP_KEY: self._last_step, **verdict_numbers(verdict)})

    def finish(self, folder: Path) -> None:
        """Log the pictures of the whole run, and finish the run if it is an own one or has been finished already."""
        if self._run is None:
            return
        trackio = _import_trackio()
        images = _images(trackio, pictures_of_the_run(folder))
        if images:
            self._run.log({STEP_KEY: self._last_step, **images})
        if self._project is not None or trackio.context_vars.current_run.get() is not self._run:
            self._run.finish()
        self._run = None

    def _bind(self, trackio: Any) -> dict[str, Any]:
        self._run = trackio.context_vars.current_run.get() if self._run is None else self._run
        if self._run is None:
            return {}
        return {"trackio": {name: getattr(self._run, name, None) for name in ("id", "name", "project", "url")}}


def _images(trackio: Any, pictures: Mapping[str, Path]) -> dict[str, Any]:
    return {key: trackio.Image(str(path), caption=path.stem) for key, path in pictures.items()}


def _import_trackio() -> Any:
    try:
        return import_module("trackio")
    except ImportError as error:
        raise MissingExtraError(
            "TrackioSink needs the package trackio; install it with: pip install trackio"
        ) from error
