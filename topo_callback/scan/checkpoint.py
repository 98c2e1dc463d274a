"""A checkpoint and its files on this machine; of a hub model, nothing pickled and no code is downloaded."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.errors import TopologyError, described

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80
_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_WEIGHTS = [*_SMALL, "*.safetensors"]
_PICKLED = ["*.bin"]
# an index of a very large model has ten megabytes, the state of a long run that logs every step tens of them
_MOST_BYTES = {"config.json": 4 << 20, "adapter_config.json": 4 << 20, "trainer_state.json": 128 << 20}
_MOST_OTHERS = 32 << 20


class UnreadableCheckpointError(TopologyError, ValueError):
    """A checkpoint that is incomplete, damaged or unsafe to open; the message is the reason, without its name."""


@dataclass(frozen=True)
class Checkpoint:
    """One model to be read.

    Attributes:
        source: a folder or a hub name.
        revision: branch, tag or commit on the hub; None for folders and for the default branch.
        step: optimizer steps done, or its place in the given order.
        name: what it is called, where that is not the last part of `source`.
    """

    source: str
    revision: str | None = None
    step: int = 0
    name: str | None = None

    @property
    def label(self) -> str:
        """A name for messages and records: without the path to a folder."""
        if self.name is not None:
            return self.name
        name = Path(self.source).name if Path(self.source).is_absolute() else self.source
        return name if self.revision is None else f"{name}@{self.revision}"


@dataclass(frozen=True)
class CheckpointSeries:
    """The checkpoints of one trajectory.

    Attributes:
        name: of its folder: letters, digits, dots, dashes and underscores only.
        identity: what tells it from another series of the same name; a digest, never a path.
        checkpoints: ascending in step, every step once.
    """

    name: str
    identity: str
    checkpoints: tuple[Checkpoint, ...]


def folder_name(text: str) -> str:
    """A name that is one plain path component on every file system, whatever the text."""
    plain = _PLAIN.sub("-", text.replace("/", "--")).strip(".-")[:_LONGEST_NAME].rstrip(".-")
    return plain or f"model-{digest(text)[:6]}"


def digest(text: str) -> str:
    """SHA-256 of a text, hexadecimal; also of a text that is no valid Unicode, as file names may be."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def existing_path(text: str) -> Path | None:
    """The file or folder of that name; None where there is none, or where no file can have that name."""
    try:
        path = Path(text)
        return path.resolve() if text and path.exists() else None
    except (OSError, ValueError):  # too long, or with a NUL
        return None


def local_folder(checkpoint: Checkpoint, *, weights: bool, allow_pickle: bool = False, fetch: bool = True) -> Path:
    """The folder with a checkpoint's files; a hub model is downloaded into the hub's cache, or found there.

    Args:
        checkpoint: a folder, or a hub model.
        weights: with the weights; else the small files only.
        allow_pickle: pickled weights too.
        fetch: whether it may be downloaded; not what only a file names, and nobody asked for.

    Raises:
        UnreadableCheckpointError: no such model, no network and not in the cache.
    """
    folder = existing_path(checkpoint.source)
    if folder is not None and folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    patterns = [*_WEIGHTS, *(_PICKLED if allow_pickle else [])] if weights else _SMALL
    try:
        return Path(
            snapshot_download(
                checkpoint.source,
                revision=checkpoint.revision,
                allow_patterns=patterns,
                local_files_only=not fetch,
            )
        )
    except Exception as error:  # the hub, the network and the cache raise kinds of their own
        if not fetch:
            raise UnreadableCheckpointError(
                "not on this machine, and only what you name is downloaded; name it with --base, or download it first: "
                f"hf download {checkpoint.source}"
            ) from error
        raise UnreadableCheckpointError(f"no such folder, and the hub does not give it ({described(error)})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UnreadableCheckpointError: no such file, no JSON, no object, or beyond any size that such a file has.
    """
    try:
        state, most = path.stat(), _MOST_BYTES.get(path.name, _MOST_OTHERS)
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
            raise UnreadableCheckpointError(f"{path.name} is not a regular file")
        if state.st_size > most:
            raise UnreadableCheckpointError(f"{path.name} is larger than {most >> 20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableCheckpointError(f"no {path.name}") from None
    except UnreadableCheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableCheckpointError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise UnreadableCheckpointError(f"{path.name} holds no JSON object")
    return found
