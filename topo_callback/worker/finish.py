"""Finish: measure what a run left in its spool, and write its page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from topo_callback.errors import USERS_OWN, RecordError, described
from topo_callback.records.chain import seal_files, sealed
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.worker.failed_measures import FailedMeasures
from topo_callback.worker.self_check import EngineCheckError
from topo_callback.worker.task import draw_run, measure_spooled, write_run_page


@dataclass(frozen=True)
class Finished:
    """What `finish_folder` did.

    Attributes:
        folder: the trajectory folder.
        measured: steps that now have a record.
        failed: step -> why its sample could not be measured; its file is still in the spool.
        undrawn: why the pictures of the run could not be drawn; None when they were.
        unwritten: the same of its page; None, too, where the run is to have none.
    """

    folder: Path
    measured: tuple[int, ...]
    failed: dict[int, str]
    undrawn: str | None = None
    unwritten: str | None = None


def finish_folder(path: str | Path) -> Finished:
    """Measure every sample that still waits in the spool, in this process, draw the run's pictures, write its page.

    May be interrupted and called again.

    Raises:
        RecordError: no trajectory there. FolderBusyError: the run is still going on. EngineCheckError: an engine
            answers a known question wrongly, so that nothing is measured.
    """
    folder = TrajectoryFolder.find(Path(path))
    folder.lock()
    try:
        with sealed(folder, "finish"):
            finished = _measure(folder)
    finally:
        folder.unlock()
    with seal_files(folder.path, (folder.page.name,), "page"):
        return replace(finished, unwritten=_page(folder))  # which says whether a process writes the folder


def _measure(folder: TrajectoryFolder) -> Finished:
    measured: list[int] = []
    failed: dict[int, str] = {}
    undrawn = None
    failures = FailedMeasures()
    for step in folder.steps(folder.spool):
        try:
            failures.observe(measure_spooled(str(folder.path), step))
        except EngineCheckError:
            raise
        except RecordError as error:
            failed[step] = str(error)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever is in one file, the others are measured
            failed[step] = described(error)
        else:
            measured.append(step)
            folder.note("recovered", step=step)
    try:
        draw_run(str(folder.path))
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - the numbers are recorded all the same
        undrawn = described(error)
    return Finished(folder.path, tuple(measured), failed, undrawn)


def _page(folder: TrajectoryFolder) -> str | None:
    """Write the page, if there is something to show and it is wanted; why that failed."""
    try:
        if folder.read_run()["config"].get("page", True) and folder.steps(folder.samples):
            write_run_page(str(folder.path), at_its_end=False)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - the numbers are recorded all the same
        return described(error)
    return None
