"""Checkpoints of torch.distributed.checkpoint (DCP), as FSDP leaves them: made into a folder that can be read."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from topo_callback.errors import USERS_OWN, described
from topo_callback.scan.checkpoint import UnreadableCheckpointError

INDEX = ".metadata"
_BESIDE = ("config.json", "generation_config.json", "tokenizer*", "*.model", "vocab.*", "merges.txt", "*.jinja",
           "special_tokens_map.json", "added_tokens.json")  # fmt: skip
_MODEL = (("model",), ("app", "model"), ("state_dict",))  # where trainers put the model in what they save


def is_distributed(folder: Path) -> bool:
    """Whether a folder holds a DCP checkpoint, whole or not."""
    return (folder / INDEX).is_file() or any(folder.glob("*.distcp"))


def convert(folder: Path, beside: Iterable[Path], into: Path, *, allow_pickle: bool) -> None:
    """Write the model of a DCP checkpoint as safetensors, with the configuration and tokenizer that it lacks.

    Its weights have to go by the names of the transformers model, as those of transformers' and accelerate's FSDP do;
    whether they do is seen when the model is opened. The whole model is in memory for a moment.

    Args:
        folder: with `.metadata` and `*.distcp`.
        beside: where a configuration and a tokenizer may be; the first that has one counts.
        into: a folder that is made.
        allow_pickle: the index is pickled, and torch opens it.

    Raises:
        UnreadableCheckpointError: it is not whole, holds no model, is pickled and that is not allowed, or there is no
            configuration.
    """
    if not (folder / INDEX).is_file():
        raise UnreadableCheckpointError(f"no {INDEX}, which is written last")
    if not allow_pickle:
        raise UnreadableCheckpointError(
            f"a distributed checkpoint (DCP), whose {INDEX} is pickled and can run code when opened; say "
            "--allow-pickle if you trust it"
        )
    sources = [each for each in beside if (each / "config.json").is_file()]
    if not sources:
        raise UnreadableCheckpointError(
            "a distributed checkpoint (DCP) without config.json; name its model with --base"
        )
    try:
        tensors = _model_of(folder)
        into.mkdir(parents=True)
        _write(tensors, into / "model.safetensors")
        for pattern in reversed(_BESIDE):
            for source in reversed(sources):
                for path in source.glob(pattern):
                    if path.is_file():
                        shutil.copyfile(path, into / path.name)
    except (UnreadableCheckpointError, *USERS_OWN):
        raise
    except BaseException as error:  # torch raises kinds of its own for each way in which files are damaged
        raise UnreadableCheckpointError(f"the distributed checkpoint cannot be read ({described(error)})") from error


def _model_of(folder: Path) -> dict[str, Any]:
    """The tensors of the model, whole, on the CPU."""
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    index = FileSystemReader(folder).read_metadata()
    state = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in index.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    names = _names(state, index.planner_data or {})
    wanted = {key: state[key] for key in names}
    with warnings.catch_warnings():
        # torch says that this is one process, as it was told
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        load(wanted, checkpoint_id=folder, no_dist=True)
    return {names[key]: tensor for key, tensor in wanted.items()}


def _names(keys: Iterable[str], paths: Mapping[str, Any]) -> dict[str, str]:
    """The keys of the model's tensors -> the names of its weights.

    Args:
        keys: of all tensors.
        paths: key -> where it was in the nested dictionaries that were saved.
    """
    places = {key: tuple(paths.get(key, (key,))) for key in keys}
    for where in (*_MODEL, ()):
        found = {key: str(place[-1]) for key, place in places.items() if place[:-1] == where}
        if found:
            return found
    raise UnreadableCheckpointError(
        "the distributed checkpoint holds no model under 'model', 'app.model' or at the top"
    )


def _write(tensors: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt"})
