"""Resuming: which folder a run goes on with, what must not have changed, and what its record says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.capture.batches import PADDED, ROWS
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.setting_changes import changed_settings, deciding_settings
from topo_callback.watching.recorder import close_left_open

_DECIDING = deciding_settings()  # a resumed run keeps them
_MARK = "topo_callback.json"  # the file that a checkpoint gets


def open_folder(
    root: Path, run: Mapping[str, Any], step: int, *, checkpoint: Path, again: Path | None = None
) -> TrajectoryFolder:
    """The locked folder of a run: its own when it is resumed at a later step than 0, a new one otherwise.

    Records of steps that are done anew are dropped. run.json is written.

    Args:
        root: where the folders of runs are.
        run: content of run.json.
        step: optimizer steps already done.
        checkpoint: the folder of the checkpoint of that step, which says whose it is; it need not exist.
        again: the folder of the same run when the trainer starts it over with a smaller batch.

    Raises:
        ConfigurationError: the run to be resumed had another probe, or settings that change what the numbers mean.
        FolderBusyError: another process is writing the folder.
    """
    folder = TrajectoryFolder(again) if again else _folder_to_resume(root, checkpoint) if step > 0 else None
    if folder is None:
        folder = TrajectoryFolder.new(root)
        before: dict[str, Any] = {}
    else:
        before = folder.read_run()
        _refuse_other_run(before, run)
        close_left_open(folder.path)
    folder.lock()
    try:
        dropped = folder.drop_after(step if step > 0 else -1)
        folder.write_run({**before, **run, "run_id": folder.run_id})
        folder.note("resumed" if before else "started", step=step, dropped=dropped)
    except BaseException:
        folder.unlock()
        raise
    return folder


def last_facts(folder: TrajectoryFolder) -> Mapping[str, Any]:
    """The facts of the newest sample that is recorded or waits in the spool; none when there is no sample."""
    recorded, waiting = folder.steps(folder.samples), folder.steps(folder.spool)
    for step in sorted({*recorded, *waiting}, reverse=True):
        try:
            if step in waiting:
                return Sample.read(folder.step_file(folder.spool, step)).facts
            facts: Mapping[str, Any] = Snapshot.from_record(
                *read_record(folder.step_file(folder.samples, step))
            ).provenance["facts"]
            return facts
        except (RecordError, OSError, LookupError):
            continue
    return {}


def mark_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Leave the run's id with a checkpoint, so that resuming from it continues this run and no other.

    Raises:
        OSError: the checkpoint cannot be written.
    """
    (checkpoint / _MARK).write_text(json.dumps({"run_id": folder.name}) + "\n")


def recorded_batches(root: Path, checkpoint: Path) -> tuple[int | None, str]:
    """Prompts per forward pass of the run that a checkpoint belongs to, and how they share one; None and "padded" where
    there is none."""
    folder = _folder_to_resume(root, checkpoint)
    if folder is None:
        return None, PADDED
    reading = folder.read_run()["reading"]
    rows = reading.get("rows")  # not in records of old
    return int(reading["probe_batch"]), rows if rows in ROWS else PADDED


def _folder_to_resume(root: Path, checkpoint: Path) -> TrajectoryFolder | None:
    """The folder of the run that saved a checkpoint; the newest one where the checkpoint does not say."""
    try:
        run_id = json.loads((checkpoint / _MARK).read_text())["run_id"]
    except (OSError, ValueError, LookupError):
        run_id = None
    try:
        if isinstance(run_id, str) and run_id == Path(run_id).name and (root / run_id).is_dir():
            return TrajectoryFolder.find(root / run_id)
        return TrajectoryFolder.find(root)
    except RecordError:
        return None


def _refuse_other_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before["probe"]["hash"], now["probe"]["hash"]
    if old != new:
        raise ConfigurationError(
            f"this run is resumed with another probe: its trajectory has probe {old}, now it is {new}; give the same "
            "probe, or another folder=... to start a new trajectory"
        )
    for name, (there, given) in changed_settings(before, now).items():
        raise ConfigurationError(
            f"this run is resumed with another setting: its trajectory has {name}={there!r}, now it is {given!r}; give "
            "the same setting, or another folder=... to start a new trajectory"
        )
