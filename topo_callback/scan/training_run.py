"""What the callback recorded of the training run that left checkpoints behind: how it read the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.capture.conditions import Conditions
from topo_callback.errors import RecordError
from topo_callback.records.files import MOST_OF_A_NAME, read_json
from topo_callback.records.folder import TrajectoryFolder, named_beside
from topo_callback.scan.checkpoint import Series

AS_TRAINED = "as-trained"
NONE = "none"

_MARK = "topo_callback.json"  # what the callback leaves with a checkpoint, see `watching.resuming`


def recorded_reading(series: Series) -> Mapping[str, Any]:
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
