"""Checkpoint and Series: what is read at one step, and the checkpoints that make one trajectory."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Checkpoint:
    """One model to be read.

    Attributes:
        source: a folder or a hub name.
        revision: branch, tag or commit on the hub; None for folders and for the default branch.
        step: optimizer steps done, or its place in the given order.
    """

    source: str
    revision: str | None = None
    step: int = 0

    @property
    def label(self) -> str:
        """A name for messages and records: without the path to a folder."""
        name = Path(self.source).name if Path(self.source).is_absolute() else self.source
        return name if self.revision is None else f"{name}@{self.revision}"


@dataclass(frozen=True)
class Series:
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
