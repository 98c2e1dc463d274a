"""The unit of work of a scan: one checkpoint in, one file out, whole or not at all; in this process or any other."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN, RecordError
from topo_callback.probe import Probe
from topo_callback.records.files import read_json
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.records.sample import Sample
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError
from topo_callback.scan.training_left import read_state, step_facts
from topo_callback.terminal import say

UNITS = "units"
_MOST_OF_A_REASON = 1 << 16  # bytes


@dataclass(frozen=True)
class Unit:
    """One checkpoint to be read.

    Attributes:
        checkpoint: what is read.
        folder: of the trajectory; its run.json says how.
        device: where the model goes.
        pictured: whether its sample gets pictures.
        allow_pickle: whether its weights may be pickled.
    """

    checkpoint: Checkpoint
    folder: str
    device: str = "cpu"
    pictured: bool = False
    allow_pickle: bool = False

    @property
    def step(self) -> int:
        return self.checkpoint.step


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes:
        unit: which one.
        reason: why the checkpoint was left out; None when it was read.
        process: id of the process that did it.
    """

    unit: Unit
    reason: str | None
    process: int


def units_folder(folder: Path) -> Path:
    """Where the samples of a scan wait until all of them are there."""
    return folder / UNITS


def is_done(folder: TrajectoryFolder, step: int) -> bool:
    """Whether the sample of a step is there: just read, on its way, or measured."""
    return any(
        folder.step_file(part, step).exists() for part in (units_folder(folder.path), folder.spool, folder.samples)
    )


def skipped_file(folder: Path, step: int) -> Path:
    return units_folder(folder) / f"step-{step:08d}.skipped.json"


def skipped_reason(folder: Path, step: int) -> str | None:
    """Why a step was left out, by whichever process tried it; None where it was not."""
    try:
        return str(read_json(skipped_file(folder, step), _MOST_OF_A_REASON)["cause"])
    except (OSError, RecordError, LookupError, TypeError):
        return None


def read_unit(unit: Unit, probe: Probe, parent: int | None = None) -> Outcome:
    """Read one checkpoint and leave its sample, or the reason why there is none, in the trajectory folder.

    Args:
        unit: what and where.
        probe: the prompts, whose hash run.json has.
        parent: process id of the scan when this is one of its processes: this one ends soon after it.

    Raises:
        RecordError: the folder cannot be written. Whatever is wrong with the checkpoint is a reason, not an error.
    """
    if parent is not None and parent == os.getppid():
        _end_with(parent)
    folder = TrajectoryFolder(Path(unit.folder))
    if is_done(folder, unit.step):
        return Outcome(unit, None, os.getpid())
    try:
        sample, reason = read_sample(unit, folder, probe), None
    except UnreadableCheckpointError as error:
        sample, reason = None, " ".join(str(error).split())
    try:
        if sample is not None:
            write_whole(folder.step_file(units_folder(folder.path), unit.step), sample.encode())
            skipped_file(folder.path, unit.step).unlink(missing_ok=True)
        else:
            text = json.dumps({"checkpoint": unit.checkpoint.label, "cause": reason})
            write_whole(skipped_file(folder.path, unit.step), text.encode())
    except OSError as error:
        raise RecordError(
            f"{folder.path} cannot be written ({error.strerror or error}); what is done stays, run again to go on"
        ) from error
    return Outcome(unit, reason, os.getpid())


def read_sample(unit: Unit, folder: TrajectoryFolder, probe: Probe) -> Sample:
    """One reading, by the same Reader as the callback's; nothing is written but what run.json learns of it.

    Raises:
        UnreadableCheckpointError: whatever is wrong with the checkpoint.
    """
    import torch

    from topo_callback.capture.conditions import Conditions, float32_products, run_under_autocast
    from topo_callback.capture.limits import model_limits
    from topo_callback.devices import return_cache
    from topo_callback.distributed.ranks import Ranks
    from topo_callback.errors import TopologyError, described
    from topo_callback.reader.reader import Reader, ReadingError
    from topo_callback.scan.opening import check_checkpoint, open_model
    from topo_callback.terminal import show_if_asked

    run = folder.read_run()
    files = check_checkpoint(unit.checkpoint, allow_pickle=unit.allow_pickle)
    model = None
    try:
        conditions = Conditions.recorded(run["reading"])
        model = open_model(
            files,
            dtype=run["model"]["dtype"],
            device=unit.device,
            attention=conditions.attention,
            allow_pickle=unit.allow_pickle,
        )
        run_under_autocast(model, conditions.autocast)
        config = TopologyConfig.from_dict(run["config"])
        model_limits(model).check(probe)
        reader = Reader(model, probe, config, Ranks(), run["reading"]["probe_batch"], _rows(run))
        with float32_products(conditions.float32_products):
            reader.agree(model)
        if reader.settled and reader.conditions != conditions:
            raise UnreadableCheckpointError(
                f"computes {reader.conditions.said()}, and this trajectory was read {conditions.said()}"
            )
        _record_rows(folder, reader.rows)
        for note in reader.notes:
            _say_once(note)
        for name in ("depth", "width", "kind"):
            if getattr(reader, name) != run["model"][name]:
                raise UnreadableCheckpointError(
                    f"another model: {name} {getattr(reader, name)}, in this trajectory {run['model'][name]}"
                )
        if reader.directions.to_run() != run.get("directions", {}):
            raise UnreadableCheckpointError("the files of directions hold other vectors than when the scan began")
        facts = {**step_facts(read_state(files.folders)), "world_size": 1, "pictures": unit.pictured}
        with float32_products(conditions.float32_products):
            sample = reader.read(model, unit.step, {**facts, "checkpoint": unit.checkpoint.label})
    except UnreadableCheckpointError:
        raise
    except (TopologyError, ReadingError) as error:
        raise UnreadableCheckpointError(str(error) or type(error).__name__) from error
    except USERS_OWN:
        raise
    except BaseException as error:
        show_if_asked(error)
        raise UnreadableCheckpointError(f"cannot be read ({described(error)})") from error
    finally:
        del model
        return_cache(torch.device(unit.device))
    assert sample is not None
    return sample


def _rows(run: dict[str, Any]) -> str:
    """How prompts shared a forward pass in the checkpoints read so far."""
    from topo_callback.capture.batches import PADDED, ROWS

    rows = run["reading"].get("rows")
    return rows if rows in ROWS else PADDED


def _record_rows(folder: TrajectoryFolder, rows: str) -> None:
    """Let run.json say how prompts share a forward pass, which only a model with weights shows."""
    run = folder.read_run()
    if _rows(run) != rows:
        folder.write_run({**run, "reading": {**run["reading"], "rows": rows}})


@lru_cache(maxsize=64)
def _say_once(note: str) -> None:
    say(note)


@lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """Once in a process: no worker outlives a scan that was killed."""
    from topo_callback.worker.process import _watch

    _watch(parent)
