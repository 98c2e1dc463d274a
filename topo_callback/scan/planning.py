"""Planning a trajectory: what its run.json says, its folder, and whether an earlier scan there can be gone on with."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.probe import Probe
from topo_callback.probe.files import kept_probe
from topo_callback.reading_conditions import changed_conditions
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.scan.checkpoint import CheckpointSeries, UnreadableCheckpointError
from topo_callback.scan.training_left import AS_TRAINED, recorded_batch, recorded_reading, wanted_conditions
from topo_callback.scan.unit import units_folder
from topo_callback.setting_changes import changed_settings, with_harmless
from topo_callback.terminal import say


@dataclass(frozen=True)
class Plan:
    """One trajectory that is to be made or gone on with.

    Attributes:
        series: its checkpoints.
        folder: where it goes; it need not be there yet.
        run: content of run.json.
        probe: the prompts in the tokens of this series.
    """

    series: CheckpointSeries
    folder: TrajectoryFolder
    run: dict[str, Any]
    probe: Probe


def plan_series(
    series: CheckpointSeries,
    output_dir: Path,
    config: TopologyConfig,
    probe_of: Callable[[list[Path]], Probe],
    *,
    dtype: str = "auto",
    device: str = "cpu",
    autocast: str = AS_TRAINED,
    attention: str = AS_TRAINED,
    seed: int | None = None,
    allow_pickle: bool = False,
) -> Plan:
    """Describe a series by its first checkpoint that is whole, and refuse what does not fit what is there already.

    Args:
        series: the checkpoints.
        output_dir: the trajectory's folder goes in here, named after the series.
        config: how they are read and measured.
        probe_of: from folders that may have a tokenizer to the probe.
        dtype: "auto", or a type in which all of them are loaded.
        device: where they are read; decides the size of a batch.
        autocast, attention: as in `scan`.
        seed: training seed, for `compare`.
        allow_pickle: weights may be pickled.

    Raises:
        UnreadableCheckpointError: no checkpoint of the series can be read; the message has every reason.
        ConfigurationError: the folder is of another scan, or the device cannot do what is asked for.
    """
    import torch

    from topo_callback.capture import batch_size_for, find_blocks
    from topo_callback.capture.batches import PADDED, ROWS, SHARED
    from topo_callback.capture.conditions import attention_of
    from topo_callback.capture.limits import model_limits
    from topo_callback.capture.reading import shares_beginning
    from topo_callback.distributed.ranks import Ranks
    from topo_callback.reader.reader import Reader
    from topo_callback.reader.run_description import describe_run
    from topo_callback.scan.opening import outline, resolve_dtype
    from topo_callback.scan.training_left import training_facts
    from topo_callback.training_loop import LoopProgress, LoopSettings

    config = replace(config, drift_words=0)  # checkpoints are read in any order, each without the start
    files = _first_whole(series, allow_pickle)
    trained = recorded_reading(series)
    conditions = wanted_conditions(trained, autocast, attention)
    conditions.check(torch.device(device))
    model = outline(files, dtype=resolve_dtype(files, dtype), attention=conditions.attention)
    conditions = replace(conditions, attention=attention_of(model))
    # ids beyond the embedding of a checkpoint leave out that one alone, as does a shorter table of positions than here
    probe, cut = model_limits(model).fit(probe_of(files.folders))
    if cut:
        say(f"{series.name}: {cut}")
    rows = trained.get("rows", PADDED) if trained else SHARED  # older records do not say it
    shared = rows == SHARED and shares_beginning(model, find_blocks(model, config.blocks), probe, config.pooling)
    fitting = batch_size_for(model, probe, torch.device(device), shared=shared)
    batch = config.probe_batch or recorded_batch(trained) or fitting
    reader = Reader(model, probe, config, Ranks(), batch, rows if rows in ROWS else PADDED)
    reader.agree(model)
    reader.conditions = conditions
    if trained:
        say(f"{series.name}: read as its training run was: {conditions.said()}, {batch} prompts at a time")
    # what a training run says of itself and a checkpoint does not is left out below
    settings, progress = LoopSettings(torch.device(device), str(output_dir)), LoopProgress(max_steps=0)
    run = describe_run(config, probe, reader, model, settings, progress, 1)
    run["model"]["name"] = files.name
    run["training"] = training_facts(_newest_state(series), seed)
    run["scan"] = {
        "identity": series.identity,
        "checkpoints": {str(checkpoint.step): checkpoint.label for checkpoint in series.checkpoints},
    }
    run["run_id"] = series.name
    folder = TrajectoryFolder(output_dir / series.name)
    if folder.path.exists():
        run = _joined(folder.read_run(), run, config, folder.path)
    if not (config.studies or config.keep_prompts or config.general_text):
        probe = replace(probe, processing_class=None)  # no tokenizer goes to the processes of a scan for nothing
    return Plan(series, folder, run, probe)


def make_folder(plan: Plan) -> Plan:
    """The folder of a plan, made whole or not at all; the plan as it is there when another process came first.

    Raises:
        RecordError: it cannot be written. ConfigurationError: what the other process made does not fit.
    """
    folder = plan.folder
    if not folder.path.exists():
        made = folder.path.parent / f".{folder.path.name}.{uuid.uuid4().hex[:8]}.tmp"
        new = TrajectoryFolder(made)
        try:
            for part in (new.samples, new.distances, new.spool, new.pictures, units_folder(made)):
                part.mkdir(parents=True)
            new.write_run(plan.run)
            new.note("started", step=plan.series.checkpoints[0].step)
            os.rename(made, folder.path)
        except OSError as error:
            if not folder.run_file.is_file():
                raise RecordError(f"{folder.path} cannot be made ({error.strerror or error})") from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
    config = TopologyConfig.from_dict(plan.run["config"])
    try:
        units_folder(folder.path).mkdir(exist_ok=True)
        if config.keep_prompts:
            write_whole(folder.prompts, kept_probe(plan.probe))
    except OSError as error:
        raise RecordError(f"{folder.path} cannot be written ({error.strerror or error})") from error
    return replace(plan, run=_joined(folder.read_run(), plan.run, config, folder.path))


def name_latest(output_dir: Path, name: str) -> None:
    """Let `Trajectory.load(output_dir)` find the one trajectory in it."""
    write_whole(output_dir / "latest", (name + "\n").encode())


def _first_whole(series: CheckpointSeries, allow_pickle: bool) -> Any:
    from topo_callback.scan.opening import check_checkpoint

    reasons = []
    for checkpoint in series.checkpoints:
        try:
            return check_checkpoint(checkpoint, allow_pickle=allow_pickle)
        except UnreadableCheckpointError as error:
            reasons.append(f"{checkpoint.label}: {error}")
    raise UnreadableCheckpointError("; ".join(reasons))


def _newest_state(series: CheckpointSeries) -> dict[str, Any]:
    """trainer_state.json of the last checkpoint that has one; a hub model is not asked."""
    from topo_callback.scan.training_left import read_state

    states = (read_state([Path(checkpoint.source)]) for checkpoint in reversed(series.checkpoints))
    return next((state for state in states if state), {})


def _joined(before: dict[str, Any], now: dict[str, Any], config: TopologyConfig, path: Path) -> dict[str, Any]:
    """run.json of an earlier scan with the checkpoints of both.

    Raises:
        ConfigurationError: they differ in what the numbers depend on; the message has both values.
    """
    old = before.get("scan")
    if not isinstance(old, dict):
        raise ConfigurationError(f"{path} is the folder of a training run; give another --output-dir")
    pairs = {
        "another series of checkpoints": (old.get("identity"), now["scan"]["identity"]),
        "another probe": (before["probe"]["hash"], now["probe"]["hash"]),
        "other directions": (before.get("directions"), now.get("directions")),
        "other groups of the prompts": (before["probe"].get("groups"), now["probe"].get("groups")),
        **{f"another {name} of the model": (before["model"][name], now["model"][name]) for name in ("depth", "width")},
        **{f"another {each.condition.words}": (each.first, each.second) for each in changed_conditions(before, now)},
        **{f"another setting {name}": values for name, values in changed_settings(before, now).items()},
    }
    if config.probe_batch is not None:
        pairs["another probe_batch"] = (before["reading"]["probe_batch"], config.probe_batch)
    for step, label in now["scan"]["checkpoints"].items():
        pairs[f"another checkpoint of step {step}"] = (old["checkpoints"].get(step, label), label)
    for what, (there, given) in pairs.items():
        if there != given:
            raise ConfigurationError(
                f"{path} has {what}: {_shown(there)} there, {_shown(given)} now; give another --output-dir, or what it "
                "was made with"
            )
    checkpoints = {**old["checkpoints"], **now["scan"]["checkpoints"]}
    settings = TopologyConfig.from_dict(with_harmless(before["config"], now["config"]))
    return {
        **before,
        "config": settings.to_dict(),
        "config_hash": settings.hash,
        "scan": {**old, "checkpoints": dict(sorted(checkpoints.items(), key=lambda item: int(item[0])))},
    }


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
