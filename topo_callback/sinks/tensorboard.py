"""TensorBoardSink: the headline of every snapshot, and pictures, as TensorBoard events."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import MissingExtraError
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import (
    EVENT_KEY,
    VERDICT_KEY,
    depth_numbers,
    layer_numbers,
    pictures_of,
    pictures_of_the_run,
)

_DESCRIBED = ("config", "config_hash", "layers", "model", "reading", "versions")


class TensorBoardSink:
    """Writes `topology/<measure>` and `topology_layers/<measure>.L07` at the step of each sample.

    The events are a TensorBoard run of their own, in `topology` inside of the folder in which this process's trainer
    writes its events: TensorBoard reads one growing file in a folder, so a second one beside the trainer's would hide
    the trainer's. Where there is no such folder it is `topology-<run id>`, under TENSORBOARD_LOGGING_DIR, else under
    `<output_dir>/runs`, else in the trajectory folder. A run that is resumed at an earlier step hides its own later
    events, and no others.

    Args:
        log_dir: the folder for `topology-<run id>` instead.

    Raises:
        MissingExtraError: at the start, when tensorboard is not installed.
    """

    def __init__(self, log_dir: str | Path | None = None) -> None:
        self._log_dir = None if log_dir is None else Path(log_dir)
        self._writer: Any = None
        self._folder = Path()
        self._description: dict[str, Any] = {}
        self._last_step = 0

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Get ready; the file is opened with the first snapshot, when the trainer's folder is there."""
        _import_writer()  # up to seconds that belong before training
        self._writer = None
        self._folder = folder
        self._description = {key: run[key] for key in _DESCRIBED if key in run}
        return {}

    def log(self, snapshot: Snapshot) -> None:
        """The headline and the pictures of one snapshot, at its step."""
        if self._writer is None:
            self._open(snapshot.step)
        self._last_step = snapshot.step
        for key, value in {**depth_numbers(snapshot), **layer_numbers(snapshot)}.items():
            if math.isfinite(value):
                self._writer.add_scalar(key, value, snapshot.step)
        self._add_images(pictures_of(self._folder, snapshot.provenance.get("pictures", ())), snapshot.step)
        self._writer.flush()

    def event(self, event: Event) -> None:
        """The event in words, under `topology/event`."""
        if self._writer is None:
            self._open(event.known_at)
        self._writer.add_text(EVENT_KEY, event.said, event.known_at)
        self._writer.flush()

    def conclude(self, verdict: Verdict) -> None:
        """The verdict in words, under `topology/verdict`."""
        if self._writer is not None:
            self._writer.add_text(VERDICT_KEY, f"```\n{verdict}\n```", self._last_step)

    def finish(self, folder: Path) -> None:
        """Add the pictures of the whole run, at the step of the last sample, and close the file."""
        if self._writer is None:
            return
        self._add_images(pictures_of_the_run(folder), self._last_step)
        self._writer.close()
        self._writer = None

    def _open(self, step: int) -> None:
        root = self._root()
        trainers = None if self._log_dir is not None else _written_here(root)
        folder = root / f"topology-{self._folder.name}" if trainers is None else trainers / "topology"
        again = any(folder.glob("events.out.tfevents.*"))
        self._writer = _import_writer()(str(folder), purge_step=step if again else None)
        self._writer.add_text("topology/run", f"```json\n{json.dumps(self._description, indent=1)}\n```", step)

    def _root(self) -> Path:
        if self._log_dir is not None:
            return self._log_dir
        if os.environ.get("TENSORBOARD_LOGGING_DIR"):
            return Path(os.environ["TENSORBOARD_LOGGING_DIR"]).expanduser()
        beside = self._folder.parent.parent / "runs"  # of <output_dir>/topology/<run id>
        return beside if beside.is_dir() else self._folder / "tensorboard"

    def _add_images(self, pictures: Mapping[str, Path], step: int) -> None:
        from matplotlib.image import imread

        for key, path in pictures.items():
            self._writer.add_image(key, imread(path), step, dataformats="HWC")


def _written_here(root: Path) -> Path | None:
    """The folder below in which this process has begun a file of events, by the names that TensorBoard gives them; the
    newest, if it has begun several. None where there is none."""
    files = root.glob(f"*/events.out.tfevents.*.{os.getpid()}.*")
    newest = max(files, key=lambda file: (file.stat().st_mtime_ns, file.name), default=None)
    return None if newest is None else newest.parent


def _import_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoardSink needs the package tensorboard; install it with: pip install tensorboard"
        ) from error
    return SummaryWriter
