"""A checkpoint's files on this machine; of a hub model, nothing pickled and no code is downloaded."""

from __future__ import annotations

from pathlib import Path

from topo_callback.errors import described
from topo_callback.scan.checkpoint import Checkpoint
from topo_callback.scan.unreadable import UnreadableCheckpointError

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_WEIGHTS = [*_SMALL, "*.safetensors"]
_PICKLED = ["*.bin"]


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
