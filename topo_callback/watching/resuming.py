"""Resuming: which folder a run goes on with, what must not have changed, and what its record says of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topo_callback.capture.batches import PADDED, ROWS
from topo_callback.errors import ConfigurationError, LateError, RecordError, described
from topo_callback.reading_conditions import changed_conditions, differences_of_reading
from topo_callback.records.chain import seal_run
from topo_callback.records.files import MOST_OF_A_NAME, read_json
from topo_callback.records.folder import TrajectoryFolder, named_beside, writing_key
from topo_callback.records.held import Open
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.record import read_record, write_whole
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.training_steps import bytes_up_to
from topo_callback.records.waiting import LEAST_SECONDS, Patience
from topo_callback.setting_changes import changed_settings
from topo_callback.watching.recorder import close_left_open

logger = logging.getLogger("topo_callback")
_MARK = "topo_callback.json"  # the file that a checkpoint gets, behind its own name where it is a file


def open_folder(
    root: Path,
    run: Mapping[str, Any],
    step: int,
    *,
    checkpoint: Path,
    again: Path | None = None,
    patience: Patience | None = None,
) -> TrajectoryFolder:
    """The locked folder of a run: its own when it is resumed at a later step than 0, a new one otherwise.

    A record that is damaged is left as it is, and the run gets a new folder beside it, whose journal says why. Records
    of steps that are done anew are dropped. run.json is written.

    Args:
        root: where the folders of runs are.
        run: content of run.json.
        step: optimizer steps already done.
        checkpoint: the folder of the checkpoint of that step, which says whose it is; it need not exist.
        again: the folder of the same run when the trainer starts it over with a smaller batch.
        patience: how long to wait for the disk.

    Raises:
        ConfigurationError: the run to be resumed had another probe, or settings that change what the numbers mean.
        FolderBusyError: another process is writing the folder.
        OSError: no folder can be made. LateError: the disk does not answer in time.
    """
    patience = patience or Patience(LEAST_SECONDS)
    damage = ""
    if again or step > 0:
        found = patience.ask(_own_record, root, checkpoint, again)
        damage = found.damage
        if found.folder is not None and not damage:
            _refuse_other_run(found.run, run)
            close_left_open(found.key)  # may finish trackers, so here
            try:
                return patience.ask(_go_on, found, run, step, undo=TrajectoryFolder.unlock)
            except (RecordError, OSError) as error:
                if isinstance(error, LateError):
                    raise
                damage = described(error)
        if damage:
            logger.warning("the trajectory of this run cannot be continued, a new one begins: %s", damage)
    return patience.ask(_begin, root, run, step, damage, undo=TrajectoryFolder.unlock)


@dataclass(frozen=True)
class _Found:
    """What there is of a run that goes on.

    Attributes:
        folder: its folder; None where there is none.
        run: content of run.json.
        key: the folder in the eyes of `close_left_open`.
        damage: why the folder cannot be gone on with; "" where it can.
    """

    folder: TrajectoryFolder | None
    run: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    damage: str = ""


def _own_record(root: Path, checkpoint: Path, again: Path | None) -> _Found:
    folder = TrajectoryFolder(again) if again else _folder_to_resume(root, checkpoint)
    if folder is None:
        unreadable = (root / "latest").exists()
        return _Found(None, damage=f"{root / 'latest'} does not name the folder of a run" if unreadable else "")
    try:
        run = folder.read_run()
        return _Found(folder, run, writing_key(folder.path), _damage(run))
    except (RecordError, OSError) as error:
        return _Found(folder, damage=described(error))


def _damage(run: Mapping[str, Any]) -> str:
    """What is missing in run.json that going on relies on; "" when nothing is."""
    probe, reading, trackers = run.get("probe"), run.get("reading"), run.get("trackers", {})
    if not isinstance(probe, Mapping) or not isinstance(probe.get("hash"), str):
        return "run.json is damaged: it has no probe"
    if not isinstance(reading, Mapping) or not isinstance(trackers, Mapping):
        return "run.json is damaged: it does not say how the model was read"
    return ""


def _go_on(found: _Found, run: Mapping[str, Any], step: int) -> TrajectoryFolder:
    folder = found.folder
    assert folder is not None
    folder.lock()
    try:
        odd = folder.misplaced()
        if odd is not None:
            raise RecordError(f"{folder.path}: {odd} is not a regular file")
        last = step if step > 0 else -1
        # fails where one is damaged, and then nothing is changed
        bytes_up_to(folder.training_steps, last)
        bytes_up_to(folder.logged, last, LOGGED_COLUMNS)
        # first, since it fails where the journal is no file, and then nothing has been dropped
        dropped = [each for each in folder.steps(folder.samples) if each > last]
        folder.note("resumed", step=step, dropped=dropped, **_rounded_otherwise(found.run, run))
        seal_run(folder, "resuming", Open(run=True, after=last), wrote=(folder.journal_file.name,))
        folder.drop_after(last)
        folder.write_run({**found.run, **run, "run_id": folder.run_id})
        seal_run(folder, "resumed", Open(run=True))
    except BaseException:
        folder.unlock()
        raise
    return folder


def _rounded_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """For the journal and the log: what rounds otherwise from here on, though it alters nothing else."""
    found = [f"{each.condition.words} {each.first}, now {each.second}" for each in changed_conditions(before, now)]
    if not found:
        return {}
    logger.warning("from here on numbers are rounded otherwise than before: %s", "; ".join(found))
    return {"rounded_otherwise": found}


def _begin(root: Path, run: Mapping[str, Any], step: int, damage: str) -> TrajectoryFolder:
    folder = TrajectoryFolder.new(root)
    folder.lock()
    try:
        folder.write_run({**run, "run_id": folder.run_id})
        folder.note("started", step=step, dropped=[], **({"beside": damage} if damage else {}))
        seal_run(folder, "began", Open(run=True))
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


def start_sample(folder: TrajectoryFolder) -> Sample | None:
    """The first sample whose means are still there, recorded or in the spool; None in a folder without one."""
    found = [(step, part) for part in (folder.distances, folder.spool) for step in folder.steps(part)]
    for step, part in sorted(found, key=lambda each: each[0]):
        try:
            return Sample.read(folder.step_file(part, step))
        except (RecordError, OSError):
            continue
    return None


def mark_checkpoint(checkpoint: Path, folder: TrajectoryFolder, step: int) -> None:
    """Leave the run's id with a checkpoint, so that resuming from it continues this run and no other.

    Nothing is done where there is no such checkpoint. One that is a file gets its mark beside it.

    Raises:
        OSError: the checkpoint cannot be written.
    """
    if checkpoint.exists():
        folder.note("saved", step=step)
        write_whole(_mark_of(checkpoint), (json.dumps({"run_id": folder.run_id}) + "\n").encode())


def _mark_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.{_MARK}") if checkpoint.is_file() else checkpoint / _MARK


def recorded_batches(root: Path, checkpoint: Path) -> tuple[int | None, str]:
    """Prompts per forward pass of the run that a checkpoint belongs to, and how they share one; None and "padded" where
    there is none, or it is damaged."""
    found = _own_record(root, checkpoint, None)
    reading = {} if found.damage or found.folder is None else found.run["reading"]
    size, rows = reading.get("probe_batch"), reading.get("rows")  # the latter is not in records of old
    return size if type(size) is int and size > 0 else None, rows if rows in ROWS else PADDED


def _folder_to_resume(root: Path, checkpoint: Path) -> TrajectoryFolder | None:
    """The folder of the run that saved a checkpoint; the newest one where the checkpoint does not say."""
    try:
        named = named_beside(root, read_json(_mark_of(checkpoint), MOST_OF_A_NAME)["run_id"])
    except (OSError, RecordError, LookupError, TypeError):
        named = None
    if named is not None and named.is_dir():
        return TrajectoryFolder(named)
    try:
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
    groups = before["probe"].get("groups")  # records of old have none, whatever their rows say: they get them from here
    if groups is not None and groups != now["probe"].get("groups"):
        raise ConfigurationError(
            "this run is resumed with other groups of the probe's prompts; give those that it was begun with, or "
            "another folder=... to start a new trajectory"
        )
    if all(run.get("directions") for run in (before, now)) and before["directions"] != now["directions"]:
        raise ConfigurationError(
            "this run is resumed with other directions: the files hold other vectors, or have other names; give those "
            "that it was begun with, or another folder=... to start a new trajectory"
        )
    for each in differences_of_reading(before, now, "numbers", "prompts"):
        raise ConfigurationError(
            f"this run is resumed with another {each.condition.words}: its trajectory has {each.first}, now it is "
            f"{each.second}; resume it as it was begun, or give another folder=... to start a new trajectory"
        )
    for name, (there, given) in changed_settings(before, now).items():
        raise ConfigurationError(
            f"this run is resumed with another setting: its trajectory has {name}={there!r}, now it is {given!r}; give "
            "the same setting, or another folder=... to start a new trajectory"
        )
