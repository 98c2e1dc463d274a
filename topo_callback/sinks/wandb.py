"""WandbSink: the headline of every snapshot, pictures and the whole folder to Weights & Biases."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.reorganisation import OF_OTHERS
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import (
    DEPTH_MEASURES,
    EVENT_KEY,
    LAYER_MEASURES,
    STEP_KEY,
    TABLE_MEASURES,
    axis_numbers,
    depth_numbers,
    layer_numbers,
    verdict_numbers,
)

TABLE_KEY = "topology_table/layers"
EVENTS_KEY = "topology_table/events"
EVENT_COLUMNS = (
    "known_at", "kind", "level", "measured", "first_step", "last_step", "layers", "factor", "p_value", "explanation"
)  # fmt: skip
TABLE_ROWS = 10_000  # what W&B shows of one table
_PICTURES = "topology_pictures"
_CONFIG = ("config", "config_hash", "layers", "model", "reading", "versions")
_NOT_UPLOADED = frozenset({"spool", "distances", "words", "prompts.jsonl", "report.html", "lock", "worker.log"})
# W&B stores a picture or a table as one history key for each of these; each is caught by the trainer's `*` by itself
_IMAGE_FIELDS = ("_type", "caption", "format", "height", "path", "sha256", "size", "width")
_TABLE_FIELDS = (
    "_latest_artifact_path",
    "_type",
    "artifact_path",
    "increment_num",
    "log_mode",
    "ncols",
    "nrows",
    "path",
    "previous_increments_paths",
    "sha256",
    "size",
)


class WandbSink:
    """Logs to the run that the trainer opened, to a given run, or to a run of its own.

    The trainer defines every key as a function of `train/global_step`. A finished snapshot is of an earlier step than
    the trainer's newest row, so every key here is a function of `topology/step` instead, defined by its exact name (a
    pattern would lose against the trainer's `*`), and `train/global_step` is never written: the user's own logs keep
    their steps.

    Args:
        run: a W&B run; None joins `wandb.run`, looked up at the start or, when there is none yet, at the first
            snapshot. A run that was not opened here is not finished here.
        project: open an own run in this project instead; it is finished at the end.
        entity: owner of the own run.
        depth_measures: logged as `topology/<measure>`, at most 12.
        layer_measures: logged as `topology_layers/<measure>.L07`, at most 6.
        table: whether to log the table of layers, 10,000 rows at most, whose columns are the layer measures and
            `TABLE_MEASURES`, and the table of events.
        artifact: whether to upload the trajectory folder at the end.

    Raises:
        ConfigurationError: both a run and a project, or too many measures.
        MissingExtraError: at the start, when wandb is not installed.
    """

    def __init__(
        self,
        run: Any = None,
        *,
        project: str | None = None,
        entity: str | None = None,
        depth_measures: Sequence[str] = DEPTH_MEASURES,
        layer_measures: Sequence[str] = LAYER_MEASURES,
        table: bool = True,
        artifact: bool = True,
    ) -> None:
        if run is not None and project is not None:
            raise ConfigurationError(
                "WandbSink got both run= and project=; give the run to join, or the project of a new one"
            )
        for name, measures, most in (("depth_measures", depth_measures, 12), ("layer_measures", layer_measures, 6)):
            if len(measures) > most:
                raise ConfigurationError(f"{name} has {len(measures)} measures; accepted: at most {most}")
        self._given = run
        self._project = project
        self._entity = entity
        self._depth_measures = tuple(depth_measures)
        self._layer_measures = tuple(layer_measures)
        self._table_measures = tuple(dict.fromkeys((*layer_measures, *TABLE_MEASURES)))
        self._with_table = table
        self._with_artifact = artifact
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget an earlier run: a search over hyper-parameters starts the same sink once for each trial."""
        self._run = self._given
        self._bound = False
        self._table: Any = None
        self._events: Any = None
        self._rows = 0
        self._defined: set[str] = set()
        self._description: dict[str, Any] = {}
        self._folder: Path | None = None
        self._last_step = 0

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Join or open the W&B run.

        Returns:
            {"wandb": {"id", "name", "project", "entity", "path", "url", "offline"}}, or {} when no run is open yet.
        """
        wandb = _import_wandb()
        # W&B loads it with the first table or picture: a third of a second that belongs before training
        import pandas  # noqa: F401

        self._begin_anew()
        self._folder = folder
        # chosen by name: prompts and whatever else a record may hold stay out of W&B
        self._description = {key: run[key] for key in _CONFIG if key in run}
        self._description |= {"run_id": folder.name, "probe_hash": run.get("probe", {}).get("hash")}
        if self._run is None and self._project is not None:
            # beside the trainer's run, which stays the one that `wandb.log` means
            self._run = wandb.init(
                project=self._project,
                entity=self._entity,
                reinit="create_new",
                settings=_own_settings(wandb),
            )
        return self._bind(wandb)

    def log(self, snapshot: Snapshot) -> None:
        """One row: the headline, the pictures drawn for this snapshot, and the table.

        Raises:
            TopologyError: no W&B run is open.
        """
        wandb = _import_wandb()
        if not self._bound and not self._bind(wandb):
            raise TopologyError(
                "no W&B run is open: wandb.run is None; let the trainer report to 'wandb', call wandb.init() before "
                "training, or use WandbSink(project=...)"
            )
        numbers = {
            **depth_numbers(snapshot, self._depth_measures),
            **layer_numbers(snapshot, self._layer_measures),
        }
        row: dict[str, Any] = {key: value for key, value in numbers.items() if math.isfinite(value)}
        row.update(axis_numbers(snapshot))
        self._define(row)
        row.update(self._images(wandb, snapshot.provenance.get("pictures", ())))
        row.update(self._table_rows(wandb, snapshot))
        self._last_step = snapshot.step
        self._run.log({STEP_KEY: snapshot.step, **row})

    def event(self, event: Event) -> None:
        """A row of the table of events, and the newest one in the summary."""
        if not self._bound:
            return
        wandb = _import_wandb()
        self._run.summary[EVENT_KEY] = f"step {event.known_at}: {event.said}"
        if not self._with_table:
            return
        if self._events is None:
            self._events = wandb.Table(columns=list(EVENT_COLUMNS), log_mode="INCREMENTAL")
            self._define([EVENTS_KEY], _TABLE_FIELDS)
        fields = {**dataclasses.asdict(event), "layers": ", ".join(map(str, event.layers))}
        self._events.add_data(*(fields[name] for name in EVENT_COLUMNS))
        self._run.log({STEP_KEY: event.known_at, EVENTS_KEY: self._events})

    def alert(self, event: Event, cooldown_seconds: float) -> None:
        """A W&B alert: who follows the run is told by mail or chat."""
        if not self._bound:
            return
        wandb = _import_wandb()
        words = event.kind.replace("_", " ")
        level = wandb.AlertLevel.INFO if event.kind in OF_OTHERS else wandb.AlertLevel.WARN
        self._run.alert(
            title=f"topology: {words} ({event.level})"[:63],
            text=event.explanation,
            level=level,
            wait_duration=cooldown_seconds,
        )

    def conclude(self, verdict: Verdict) -> None:
        """The numbers of the verdict and its text, in the summary of the W&B run."""
        if self._bound:
            self._run.summary.update(verdict_numbers(verdict))

    def finish(self, folder: Path) -> None:
        """Log the pictures of the whole run, upload the folder, and finish the run if it is an own one."""
        if not self._bound:
            return
        wandb = _import_wandb()
        pictures = folder / "pictures"
        whole_run = sorted(path.name for path in pictures.glob("*.png") if not _STEP.search(path.stem))
        try:
            images = self._images(wandb, whole_run)
            if images:
                self._run.log({STEP_KEY: self._last_step, **images})
            if self._with_artifact:
                self._run.log_artifact(_artifact(wandb, folder))
        finally:
            if self._project is not None:
                self._run.finish()

    def _bind(self, wandb: Any) -> dict[str, Any]:
        """Describe the run to W&B and the W&B run to the record; {} while there is none."""
        self._run = wandb.run if self._run is None else self._run
        if self._run is None:
            return {}
        self._bound = True
        self._run.define_metric(STEP_KEY)
        self._run.config.update({"topology": self._description}, allow_val_change=True)
        offline = bool(self._run.offline)
        names = ("id", "name", "project", "entity", "path")
        facts = {name: getattr(self._run, name, None) for name in names}
        # asking an offline run for its address prints a warning
        return {"wandb": {**facts, "url": None if offline else self._run.url, "offline": offline}}

    def _define(self, keys: Iterable[str], fields: Sequence[str] = ()) -> None:
        """Define keys on `topology/step`, each once; `fields` are the parts in which W&B stores a medium."""
        for key in keys:
            if key not in self._defined:
                self._defined.add(key)
                self._run.define_metric(key, step_metric=STEP_KEY)
                for field in fields:
                    self._run.define_metric(f"{key}.{field}", step_metric=STEP_KEY, hidden=True)

    def _images(self, wandb: Any, names: Iterable[str]) -> dict[str, Any]:
        """The pictures of the folder that are there; the same picture of another step has the same key."""
        images: dict[str, Any] = {}
        for name in names:
            path = self._folder / "pictures" / Path(name).name if self._folder else Path(name)
            if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                key = f"{_PICTURES}/{_STEP.sub('', path.stem)}"
                images[key] = wandb.Image(str(path), caption=path.stem)
        self._define(images, _IMAGE_FIELDS)
        return images

    def _table_rows(self, wandb: Any, snapshot: Snapshot) -> dict[str, Any]:
        """The table with one more row for each layer; nothing once it is full."""
        if not self._with_table or self._rows + len(snapshot.layers) > TABLE_ROWS:
            return {}
        if self._table is None:
            columns = ["step", "layer", "status", *self._table_measures]
            self._table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
        for layer in snapshot.layers:
            values = [snapshot.number(measure, layer) for measure in self._table_measures]
            self._table.add_data(snapshot.step, layer, snapshot.status[layer], *values)
        self._rows += len(snapshot.layers)
        self._define([TABLE_KEY], _TABLE_FIELDS)
        return {TABLE_KEY: self._table}


_STEP = re.compile(r"-step-\d+$")
_INIT_SECONDS = 30.0  # longest wait for the server at the start of an own run ...
_FINISH_SECONDS = 120.0  # ... and for uploads at its end; what is left stays on disk for `wandb sync`


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            "WandbSink needs the package wandb; install it with: pip install 'topo_callback[wandb]'"
        ) from error
    return wandb


def _own_settings(wandb: Any) -> Any:
    """Settings under which a run of our own neither waits long for a server nor, at its end, for ever."""
    settings = {"init_timeout": _INIT_SECONDS, "finish_timeout": _FINISH_SECONDS}
    # an older W&B has no limit to the wait at the end
    known = {name: seconds for name, seconds in settings.items() if name in wandb.Settings.model_fields}
    return wandb.Settings(**known)


def _artifact(wandb: Any, folder: Path) -> Any:
    """The folder as an artifact, without what is bulky, temporary or about this machine."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name)[:100]
    artifact = wandb.Artifact(name=f"topology-{name}", type="topology")
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_file() and not path.is_symlink() and not hidden and inside.parts[0] not in _NOT_UPLOADED:
            artifact.add_file(str(path), name=inside.as_posix())
    return artifact
