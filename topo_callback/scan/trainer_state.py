"""What a Trainer left in a checkpoint's trainer_state.json: facts of its step, and of the run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topo_callback.scan.json_file import read_object
from topo_callback.scan.unreadable import UnreadableCheckpointError

MOST_STEPS = 10**15  # as many digits as the names of samples and checkpoints have
_LOGGED = ("loss", "grad_norm", "learning_rate")


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
