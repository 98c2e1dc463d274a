"""Checkpoints that a training writes while we look: where they are, which are at rest, and whether one is new."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(
    r"(?:checkpoint|ckpt|global[-_]?step|step|iter(?:ation)?|epoch)[-_]?(\d{1,15})([-_][A-Za-z][A-Za-z_-]*)?",
    re.IGNORECASE,
)
_BEING_WRITTEN = ("tmp", "temp", "partial", "incomplete")
_WEIGHTS = (".safetensors", ".bin", ".distcp", ".metadata")
_READ = (*_WEIGHTS, ".json", ".model", ".jinja", ".txt")
_NOT_THE_MODEL = re.compile(r"optim|^(critic|ref|reference|reward|value|tokenizer)([-_]|$)", re.IGNORECASE)
_MOST_LEVELS = 3  # of folders between the one that is followed and a checkpoint, and inside of that to its model

Files = tuple[tuple[str, int, int], ...]
"""Of each file that a reading may open: name, bytes, and time of its last change in nanoseconds."""


@dataclass(frozen=True)
class Found:
    """A checkpoint as its name says.

    Attributes:
        step: optimizer steps, by the name.
        name: path from the folder that is followed.
        folder: where its model is, or will be.
        wrong: why it is not known where its model is; None: it is known.
    """

    step: int
    name: str
    folder: Path
    wrong: str | None = None


def find_below(root: Path, inside: str | None = None) -> dict[int, Found]:
    """The checkpoints below a folder, ascending in step: folders called `checkpoint-30`, `step_30`, `global_step30` or
    the like, at most three levels down. Names that end in `-tmp` and the like are being written, and left out.

    Args:
        root: it need not be there yet.
        inside: where in each checkpoint its model is, such as "actor/huggingface". None: the checkpoint itself, or the
            only folder in it with a model; those of optimizers, critics and references do not count.
    """
    found: dict[int, Found] = {}
    for step, path in sorted(_with_a_step(root, _MOST_LEVELS)):
        name = path.relative_to(root).as_posix()
        if step in found:
            both = f"{found[step].name} and {name} are both of step {step}; follow a folder with one of them"
            found[step] = Found(step, found[step].name, found[step].folder, both)
            continue
        models = [path / inside] if inside is not None else _models(path)
        wrong = None
        if len(models) > 1:
            there = ", ".join(each.relative_to(path).as_posix() for each in models)
            wrong = f"there are several models in it ({there}); say which with --inside {there.split(', ')[0]}"
        found[step] = Found(step, name, models[0] if models else path, wrong)
    return found


def without_a_step(root: Path) -> list[str]:
    """The folders below one that hold a model and are not found, since no name on the way says a step; sorted.

    Those whose names start with a dot, and what lies inside a checkpoint, do not count.
    """
    return sorted(path.relative_to(root).as_posix() for path in _nameless(root, _MOST_LEVELS))


def files_of(folder: Path) -> Files:
    """The state of the files that a reading may open, as far as they are there."""
    files = []
    for entry in _entries(folder):
        if entry.name.endswith(_READ):
            try:
                state = entry.stat()
            except OSError:  # gone in the meantime
                continue
            files.append((entry.name, state.st_size, state.st_mtime_ns))
    return tuple(sorted(files))


def digest_of(folder: Path) -> str:
    """SHA-256 of names and content of all weights, hexadecimal.

    Raises:
        OSError: they are gone, or cannot be read.
    """
    whole = hashlib.sha256()
    # a pipe would be waited for
    for path in sorted(path for path in folder.iterdir() if path.name.endswith(_WEIGHTS) and path.is_file()):
        with path.open("rb") as file:
            whole.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


class Settling:
    """Tells which checkpoints are at rest: their files were the same at two looks.

    A file may have its full size long before its content: safetensors reserves the place first. So a look at one moment
    says nothing, however well the sizes fit.
    """

    def __init__(self) -> None:
        self._last: dict[int, Files] = {}
        self._judged: dict[int, Files] = {}

    def at_rest(self, found: dict[int, Found]) -> list[Found]:
        """Those at rest on which nothing has been decided since they changed; ascending in step."""
        resting = []
        now = {step: files_of(each.folder) for step, each in found.items()}
        for step, files in now.items():
            if self._last.get(step) == files and self._judged.get(step) != files:
                resting.append(found[step])
        self._last = now
        self._judged = {step: files for step, files in self._judged.items() if step in now}
        return resting

    def files(self, step: int) -> Files:
        """Those of the last look."""
        return self._last[step]

    def judge(self, step: int) -> None:
        """It is decided what becomes of a checkpoint as it was at the last look."""
        self._judged[step] = self._last[step]

    @property
    def moving(self) -> list[int]:
        """The steps on which nothing is decided yet."""
        return [step for step, files in self._last.items() if self._judged.get(step) != files]


def _with_a_step(folder: Path, levels: int) -> Iterator[tuple[int, Path]]:
    for entry in _entries(folder):
        if entry.name.startswith(".") or not _is_folder(entry):
            continue
        match = _STEP.fullmatch(entry.name)
        if match is None and levels > 1:
            yield from _with_a_step(Path(entry.path), levels - 1)
        elif match is not None and not any(word in (match[2] or "").lower() for word in _BEING_WRITTEN):
            yield int(match[1]), Path(entry.path)


def _nameless(folder: Path, levels: int) -> Iterator[Path]:
    entries = _entries(folder)
    if any(entry.name.endswith(_WEIGHTS) for entry in entries):
        yield folder
    for entry in entries:
        if levels > 1 and not entry.name.startswith(".") and _is_folder(entry) and not _STEP.fullmatch(entry.name):
            yield from _nameless(Path(entry.path), levels - 1)


def _models(folder: Path, levels: int = _MOST_LEVELS) -> list[Path]:
    """The folders with weights or a configuration: this one, or those inside."""
    entries = _entries(folder)
    if any(entry.name.endswith(_WEIGHTS) or entry.name in ("config.json", "adapter_config.json") for entry in entries):
        return [folder]
    below = [Path(entry.path) for entry in entries if _is_folder(entry) and not _NOT_THE_MODEL.search(entry.name)]
    return [model for each in sorted(below) for model in _models(each, levels - 1)] if levels > 0 else []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into what may not be seen
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not there yet, or no longer
        return []
