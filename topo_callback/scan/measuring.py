"""Measuring the samples of a scan in order of step, when all of them are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.homology.machine import allowed_threads
from topo_callback.records.chain import sealed
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.snapshot import Snapshot
from topo_callback.scan.checkpoint import Checkpoint
from topo_callback.scan.planning import Plan
from topo_callback.scan.unit import is_done, skipped_reason, units_folder
from topo_callback.worker.failed_measures import FailedMeasures
from topo_callback.worker.task import draw_run, measure_spooled


def unsettled(plan: Plan) -> list[int]:
    """The steps that were neither read nor left out with a reason yet, by any process."""
    return [
        checkpoint.step
        for checkpoint in plan.series.checkpoints
        if not is_done(plan.folder, checkpoint.step) and skipped_reason(plan.folder.path, checkpoint.step) is None
    ]


def out_of_order(plan: Plan) -> list[int]:
    """The recorded steps that come after one that was read only now: they have to be read again.

    Raises:
        ConfigurationError: one of them is not among the checkpoints of this scan.
    """
    folder = plan.folder
    waiting, recorded = folder.steps(units_folder(folder.path)), folder.steps(folder.samples)
    new = [step for step in waiting if step not in recorded]
    if not new or not recorded or new[0] > recorded[-1]:
        return []
    given = {checkpoint.step for checkpoint in plan.series.checkpoints}
    missing = [step for step in recorded if step not in given]
    if missing:
        raise ConfigurationError(
            f"step {new[0]} comes before recorded ones, which have to be measured again, and step {missing[0]} is not "
            "among the checkpoints given; name all of them, or give another --output-dir"
        )
    return recorded


def start_over(plan: Plan) -> None:
    """Drop all records, which compare with earlier samples; an earlier checkpoint has appeared.

    Raises:
        FolderBusyError: another process is measuring.
    """
    plan.folder.lock()
    try:
        with sealed(plan.folder, "resuming", wrote=(plan.folder.run_file.name,), run=True, after=-1):
            dropped = plan.folder.drop_after(-1)
            plan.folder.note("resumed", step=plan.series.checkpoints[0].step, dropped=dropped)
    finally:
        plan.folder.unlock()


def measure_series(plan: Plan, report: Callable[[Snapshot], None] = lambda snapshot: None) -> list[int]:
    """Turn the samples that wait into records, with the pictures of the run at the end; the steps measured.

    May be killed and called again.

    Args:
        plan: whose units are all settled.
        report: called with every snapshot that is done.

    Raises:
        FolderBusyError: another process is measuring. RecordError: the disk refuses, or a sample was damaged.
    """
    plan.folder.lock()
    try:
        return measure_locked(plan.folder, plan.run, plan.series.checkpoints, report)
    finally:
        plan.folder.unlock()


def measure_locked(
    folder: TrajectoryFolder,
    run: Mapping[str, Any],
    checkpoints: Sequence[Checkpoint],
    report: Callable[[Snapshot], None],
    *,
    to_be_continued: bool = False,
) -> list[int]:
    """`measure_series` by whoever holds the lock of the folder.

    Args:
        folder: of the trajectory.
        run: content of run.json.
        checkpoints: of which the journal is to say why they were left out, if they were.
        report: called with every snapshot that is done.
        to_be_continued: more checkpoints may come, so the journal does not say that the run is finished.

    Raises:
        RecordError: the disk refuses, or a sample was damaged.
    """
    try:
        with sealed(folder, "scan", wrote=(folder.run_file.name, folder.prompts.name), run=True):
            return _measure(folder, run, checkpoints, report, to_be_continued)
    except OSError as error:
        raise RecordError(
            f"{folder.path} cannot be written ({error.strerror or error}); what is done stays, run again to go on"
        ) from error


def _measure(
    folder: TrajectoryFolder,
    run: Mapping[str, Any],
    checkpoints: Sequence[Checkpoint],
    report: Callable[[Snapshot], None],
    to_be_continued: bool,
) -> list[int]:
    units = units_folder(folder.path)
    for torn in units.glob(".*.tmp"):
        torn.unlink(missing_ok=True)
    threads = int(run["config"].get("threads") or allowed_threads())
    _note_skipped(folder, checkpoints)
    waiting = sorted({*folder.steps(units), *folder.steps(folder.spool)})
    ended = [entry for entry in folder.journal() if entry["event"] in ("started", "resumed", "finished")]
    if waiting and ended and ended[-1]["event"] == "finished":
        folder.note("resumed", step=waiting[0], dropped=[])
    folder.write_run(run)
    failures = FailedMeasures()
    for step in waiting:
        unit = folder.step_file(units, step)
        if unit.exists():
            os.replace(unit, folder.step_file(folder.spool, step))
        try:
            snapshot = measure_spooled(str(folder.path), step, threads)
            failures.observe(snapshot)
        except RecordError as error:
            folder.step_file(folder.spool, step).unlink(missing_ok=True)
            raise RecordError(f"the sample of step {step} is damaged ({error}); run again to read it anew") from error
        report(snapshot)
    if to_be_continued:
        if waiting:
            draw_run(str(folder.path))
    elif waiting or not ended or ended[-1]["event"] != "finished":
        draw_run(str(folder.path))
        folder.note("finished", waiting=0)
    return waiting


def _note_skipped(folder: TrajectoryFolder, checkpoints: Sequence[Checkpoint]) -> None:
    """Name in the journal what was left out, once for each reason."""
    noted: Sequence[tuple[object, object]] = [
        (entry.get("step"), entry.get("cause")) for entry in folder.journal() if entry["event"] == "skipped"
    ]
    for checkpoint in checkpoints:
        cause = skipped_reason(folder.path, checkpoint.step)
        if cause is not None and (checkpoint.step, cause) not in noted:
            folder.note("skipped", step=checkpoint.step, checkpoint=checkpoint.label, cause=cause)
