"""Is a checkpoint whole, and can it be opened without running anything? Only safetensors headers and JSON are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from topo_callback.scan.json_file import read_object
from topo_callback.scan.unreadable import UnreadableCheckpointError

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_model(folder: Path, *, allow_pickle: bool) -> dict[str, Any]:
    """Check a folder with a whole model; its config.json.

    Raises:
        UnreadableCheckpointError: no configuration or one that asks for code, weights that are missing, truncated or
            pickled (unless `allow_pickle`).
    """
    if (folder / "adapter_config.json").is_file():
        raise UnreadableCheckpointError(f"{folder.name} is an adapter where a whole model is needed")
    config = read_object(folder / "config.json")
    _refuse_code(config)
    _check_weights(folder, "model", "pytorch_model", allow_pickle)
    return config


def check_adapter(folder: Path, *, allow_pickle: bool) -> str:
    """Check a folder with a PEFT adapter; the name of its base.

    Raises:
        UnreadableCheckpointError: as in `check_model`, or no base is named.
    """
    config = read_object(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base or "\0" in base:
        raise UnreadableCheckpointError(
            "adapter_config.json names no base model; write its folder or hub name there, as base_model_name_or_path"
        )
    if config.get("megatron_config"):
        raise UnreadableCheckpointError("adapter_config.json asks for a module of Megatron, which is not imported")
    _check_weights(folder, "adapter_model", "adapter_model", allow_pickle)
    return base


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """The safetensors files of a model or adapter, by its index where there are several; empty when there is none.

    Raises:
        UnreadableCheckpointError: the index is damaged, or points out of the folder.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    return [folder / name for name in sorted(set(_weight_map(index).values()))]


def _check_weights(folder: Path, stem: str, pickled_stem: str, allow_pickle: bool) -> None:
    files = weight_files(folder, stem)
    if files:
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UnreadableCheckpointError(f"missing {missing[0]}{more} of {len(files)} files with weights")
        held = {path.name: _tensor_names(path) for path in files}
        index = folder / f"{stem}.safetensors.index.json"
        for tensor, name in _weight_map(index).items() if len(files) > 1 else ():
            if tensor not in held[name]:
                raise UnreadableCheckpointError(f"{name} lacks {tensor}, which {index.name} says it has")
        return
    pickles = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    loadable = [name for name in pickles if name.startswith(pickled_stem) and name.endswith(".bin")]
    if loadable and allow_pickle:
        return
    if loadable:
        raise UnreadableCheckpointError(
            f"only pickled weights ({loadable[0]}), which can run code when opened; save them as safetensors, or say "
            "--allow-pickle if you trust them"
        )
    raise UnreadableCheckpointError(f"no {stem}.safetensors")


def _weight_map(index: Path) -> dict[str, str]:
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UnreadableCheckpointError(f"{index.name} has no weight_map")
    for name in found.values():
        if not isinstance(name, str) or name != Path(name).name or not name.endswith(".safetensors") or "\0" in name:
            raise UnreadableCheckpointError(f"{index.name} points to {name!r}, which is no safetensors file beside it")
    return found


def _tensor_names(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise UnreadableCheckpointError(f"{path.name} is truncated or damaged ({error})") from error


def _refuse_code(config: dict[str, Any]) -> None:
    """Refuse what would make transformers import code that comes with a checkpoint or from the hub."""
    if "transformers_weights" in config:
        raise UnreadableCheckpointError("config.json names a weights file of its own (transformers_weights)")
    for key, value in _items(config):
        if key.endswith(("attn_implementation", "experts_implementation")):
            names = list(value.values()) if isinstance(value, dict) else [value]
            if any(isinstance(name, str) and "/" in name for name in names):
                raise UnreadableCheckpointError(f"config.json asks for a kernel from the hub ({key})")


def _items(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _items(value)
