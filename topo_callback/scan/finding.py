"""Finding checkpoints: from names, folders and revisions to the series that become trajectories."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from topo_callback.errors import ConfigurationError
from topo_callback.scan.checkpoint import (
    Checkpoint,
    CheckpointSeries,
    UnreadableCheckpointError,
    digest,
    existing_path,
    folder_name,
    local_folder,
    read_object,
)
from topo_callback.scan.training_left import MOST_STEPS

_OF_TRAINER = re.compile(r"checkpoint-(\d{1,15})")
_STEP = re.compile(r"(?:^|[-_/])(?:global_?)?step[-_]?(\d{1,15})(?![0-9])", re.IGNORECASE)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?(@[\w./-]{1,200})?")
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors", "*.safetensors.index.json", "*.bin")
_SHAPE = ("model_type", "num_hidden_layers", "n_layer", "num_layers", "hidden_size", "n_embd", "d_model", "vocab_size")


def find_series(given: Sequence[str], *, base: str | None = None, separate: bool = False) -> list[CheckpointSeries]:
    """The trajectories that a list of names stands for, in the order in which they are first named.

    The checkpoint-* folders of one output_dir are one series, named or found; so are the revisions of one hub model,
    and models of one shape (type, depth, width and vocabulary). Steps come from `checkpoint-NNN`, trainer_state.json
    or a revision such as `step1000`; where one of a series has none, its models are numbered in the order given.

    Args:
        given: hub names, NAME@REVISION, folders of models or PEFT adapters, output_dirs of a Trainer.
        base: the model that training began with, step 0 of every series.
        separate: models of one shape are not joined.

    Raises:
        ConfigurationError: a folder without a model, an impossible name, or two checkpoints of one step.
    """
    groups: dict[tuple[str, str], list[tuple[Checkpoint, int | None]]] = {}
    for text in given:
        for key, checkpoint, step in _named(text, separate):
            members = groups.setdefault(key, [])
            if checkpoint not in [member for member, _ in members]:
                members.append((checkpoint, step))
    if not groups:
        raise ConfigurationError("no checkpoint is given; name models, checkpoint folders or output_dirs")
    return _with_distinct_names([_series(key, members, base) for key, members in groups.items()])


def _named(text: str, separate: bool) -> list[tuple[tuple[str, str], Checkpoint, int | None]]:
    """What one argument stands for: group, checkpoint and step if it is known."""
    folder = existing_path(text)
    if folder is None:
        if not _HUB_NAME.fullmatch(text) or ".." in text:
            raise ConfigurationError(
                f"no folder {text!r}, and that is not a hub name; give a folder, NAME or NAME@REVISION"
            )
        name, _, revision = text.partition("@")
        checkpoint = Checkpoint(name, revision or None)
        step = _step_in(revision)
        return [(("hub", name) if revision else _plain_group(checkpoint, separate), checkpoint, step)]
    if folder.is_file():
        raise ConfigurationError(f"{text} is a file; give the folder of a model or checkpoint")
    if _OF_TRAINER.fullmatch(folder.name):
        return [_of_trainer(folder)]
    inside = sorted(path for path in folder.glob("checkpoint-*") if path.is_dir() and _OF_TRAINER.fullmatch(path.name))
    if inside:
        return [_of_trainer(path) for path in inside]
    if not any(any(folder.glob(pattern)) for pattern in _MODEL_FILES):
        raise ConfigurationError(f"{text}: no model and no checkpoint-* in this folder; give one that has")
    checkpoint = Checkpoint(str(folder))
    return [(_plain_group(checkpoint, separate), checkpoint, _step_of(folder))]


def _of_trainer(folder: Path) -> tuple[tuple[str, str], Checkpoint, int | None]:
    return ("folder", str(folder.parent)), Checkpoint(str(folder)), int(folder.name.removeprefix("checkpoint-"))


def _plain_group(checkpoint: Checkpoint, separate: bool) -> tuple[str, str]:
    """Models of one shape belong together; one whose configuration cannot be read stays alone."""
    alone = ("model", checkpoint.source)
    if separate:
        return alone
    try:
        shape = _shape(local_folder(checkpoint, weights=False))
    except UnreadableCheckpointError:
        return alone
    return ("shape", json.dumps(shape)) if any(shape) else alone


def _shape(folder: Path) -> list[Any]:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_object(adapter).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            return []
        folder = local_folder(Checkpoint(base), weights=False, fetch=False)
    config = read_object(folder / "config.json")
    return [config.get(name) if isinstance(config.get(name), (str, int)) else None for name in _SHAPE]


def _step_of(folder: Path) -> int | None:
    try:
        step = read_object(folder / "trainer_state.json").get("global_step")
    except UnreadableCheckpointError:
        step = None
    return step if type(step) is int and 0 <= step < MOST_STEPS else _step_in(folder.name)


def _step_in(name: str) -> int | None:
    found = _STEP.search(name)
    return int(found[1]) if found else None


def _series(
    key: tuple[str, str], members: Sequence[tuple[Checkpoint, int | None]], base: str | None
) -> CheckpointSeries:
    kind, source = key
    first = members[0][0]
    checkpoints: list[Checkpoint] = []
    steps = [step for _, step in members]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        known = list(range(1 if base else 0, len(steps) + (1 if base else 0)))
    if base is not None:
        checkpoints.append(one_checkpoint(base))
    checkpoints += [replace(member, step=step) for (member, _), step in zip(members, known, strict=True)]
    checkpoints.sort(key=lambda checkpoint: checkpoint.step)
    for one, other in itertools.pairwise(checkpoints):
        if one.step == other.step:
            raise ConfigurationError(
                f"{one.label} and {other.label} are both of step {one.step}; give one of them, or say --separate for "
                "models that are not a trajectory"
            )
    named = Path(source).name if kind == "folder" else first.label if kind != "hub" else source
    return CheckpointSeries(
        folder_name(named), digest(f"{kind} {source}" if kind != "shape" else first.source), tuple(checkpoints)
    )


def one_checkpoint(text: str) -> Checkpoint:
    """The one model that a folder, NAME or NAME@REVISION stands for.

    Raises:
        ConfigurationError: neither a folder nor a hub name.
    """
    folder = existing_path(text)
    if folder is not None:
        return Checkpoint(str(folder))
    if not _HUB_NAME.fullmatch(text) or ".." in text:
        raise ConfigurationError(
            f"no folder {text!r}, and that is not a hub name; give a folder, NAME or NAME@REVISION"
        )
    name, _, revision = text.partition("@")
    return Checkpoint(name, revision or None)


def _with_distinct_names(series: list[CheckpointSeries]) -> list[CheckpointSeries]:
    """Names that no file system confuses: where two agree but for case, both get a part of their digest."""
    names = [each.name.casefold() for each in series]
    return [
        replace(each, name=f"{each.name}-{each.identity[:6]}") if names.count(each.name.casefold()) > 1 else each
        for each in series
    ]
