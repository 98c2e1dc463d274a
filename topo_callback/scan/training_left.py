"""What a training run left with its checkpoints: facts by its Trainer, and by the callback how it read the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topo_callback.capture.conditions import Conditions
from topo_callback.errors import RecordError
from topo_callback.records.files import MOST_OF_A_NAME, read_json
from topo_callback.records.folder import TrajectoryFolder, named_beside
from topo_callback.scan.checkpoint import CheckpointSeries, UnreadableCheckpointError, read_object

MOST_STEPS = 10**15  # as many digits as the names of samples and checkpoints have
_LOGGED = ("loss", "grad_norm", "learning_rate")
AS_TRAINED = "as-trained"
NONE = "none"

_MARK = "topo_callback.json"  # what the callback leaves with a checkpoint, see `watching.resuming`


def read_state(folders: Sequence[Path]) -> dict[str, Any]:
    """trainer_state.json of the first folder, which is the checkpoint itself; empty where there is none."""
    try:
        return read_object(folders[0] / "trainer_state.json")
    except UnreadableCheckpointError:
        return {}


def step_facts(state: dict[str, Any]) -> dict[str, float]:
    """`epoch`, and the newest logged `loss`, `grad_norm` and `learning_rate`; what is unknown is left out."""
    facts: dict[str, float] = {}
    if _is_number(state.get("epoch")):
        facts["epoch"] = float(state["epoch"])
    history = state.get("log_history")
    for entry in history if isinstance(history, list) else ():
        for name in _LOGGED if isinstance(entry, dict) else ():
            if _is_number(entry.get(name)):
                facts[name] = float(entry[name])
    return facts


def training_facts(state: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """The part `training` of run.json, as far as a checkpoint says it without its pickled arguments."""
    training: dict[str, Any] = {}
    if isinstance(state.get("max_steps"), int) and 0 < state["max_steps"] < MOST_STEPS:
        training["max_steps"] = state["max_steps"]
    if _is_number(state.get("num_train_epochs")):
        training["epochs"] = float(state["num_train_epochs"])
    if seed is not None:
        training["seed"] = seed
    return training


def _is_number(value: Any) -> bool:
    """Whether this is a finite number, and one that a float holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def recorded_reading(series: CheckpointSeries) -> Mapping[str, Any]:
    """ "reading" of the run.json beside the checkpoints of a series; empty where there is none that can be read.

    The run is the one that the newest marked checkpoint names, in `<output_dir>/topology`; without a mark, the newest
    one there. Nothing is asked of the hub.
    """
    for checkpoint in reversed(series.checkpoints):
        folder = Path(checkpoint.source)
        root = folder.parent / "topology"
        try:
            if not (folder.is_dir() and root.is_dir()):
                continue
            run = _run_of(folder, root)
            if run is not None:
                reading = run.get("reading")
                return reading if isinstance(reading, dict) else {}
        except (OSError, RecordError):
            continue
    return {}


def _run_of(checkpoint: Path, root: Path) -> Mapping[str, Any] | None:
    try:
        named = named_beside(root, read_json(checkpoint / _MARK, MOST_OF_A_NAME)["run_id"])
    except (OSError, RecordError, LookupError, TypeError):
        named = None
    found = TrajectoryFolder(named) if named is not None and named.is_dir() else TrajectoryFolder.find(root)
    return found.read_run()


def wanted_conditions(reading: Mapping[str, Any], autocast: str, attention: str) -> Conditions:
    """The conditions of a scan: those of the training run, but for what was asked for.

    Args:
        reading: from `recorded_reading`.
        autocast: AS_TRAINED, "none", or a type.
        attention: AS_TRAINED, or an implementation.
    """
    trained = Conditions.recorded(reading)
    return Conditions(
        trained.autocast if autocast == AS_TRAINED else None if autocast == NONE else autocast,
        trained.attention if attention == AS_TRAINED else attention,
        trained.float32_products,
    )


def recorded_batch(reading: Mapping[str, Any]) -> int | None:
    """Prompts per forward pass of the training run; None where that is not recorded."""
    size = reading.get("probe_batch")
    return size if type(size) is int and size > 0 else None
