"""Is a checkpoint whole, and can it be opened without running anything? Only safetensors headers and JSON are read."""

from __future__ import annotations

import importlib.util
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from topo_callback.scan.adapters import check_adapter_config
from topo_callback.scan.checkpoint import UnreadableCheckpointError, read_object
from topo_callback.scan.sizes import check_sizes, tensors_of

_MOST_PICKLED = 4096
_SMALL = {
    "generation_config.json": 1 << 20, "tokenizer_config.json": 32 << 20, "special_tokens_map.json": 32 << 20,
    "added_tokens.json": 32 << 20, "chat_template.jinja": 1 << 20, "chat_template.json": 1 << 20,
    "tokenizer.json": 128 << 20, "vocab.json": 64 << 20, "merges.txt": 64 << 20,
}  # fmt: skip
_BUILT_IN = ("eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
_KERNEL_PACKAGES = {"flash_attention_2": ("flash_attn",), "flash_attention_3": ("flash_attn_interface",)}
_QUANTISED = ("bitsandbytes",)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_model(folder: Path, *, allow_pickle: bool) -> dict[str, Any]:
    """Check a folder with a whole model; its config.json.

    Raises:
        UnreadableCheckpointError: no configuration or one that asks for code, weights that are missing, truncated or
            pickled (unless `allow_pickle`).
    """
    if (folder / "adapter_config.json").is_file():
        raise UnreadableCheckpointError(f"{folder.name} is an adapter where a whole model is needed")
    refuse_pipes(folder)
    config = read_object(folder / "config.json")
    _refuse_code(config)
    tensors = _check_weights(folder, "model", "pytorch_model", allow_pickle)
    check_sizes(config, tensors)
    return config


def check_adapter(folder: Path, *, allow_pickle: bool) -> str:
    """Check a folder with a PEFT adapter; the name of its base.

    Raises:
        UnreadableCheckpointError: as in `check_model`, or no base is named.
    """
    refuse_pipes(folder)
    config = read_object(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base or "\0" in base:
        raise UnreadableCheckpointError(
            "adapter_config.json names no base model; write its folder or hub name there, as base_model_name_or_path"
        )
    check_adapter_config(config)
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


def _check_weights(folder: Path, stem: str, pickled_stem: str, allow_pickle: bool) -> int:
    """The number of tensors; of pickled ones, which are not opened, what they may be."""
    files = weight_files(folder, stem)
    if files:
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UnreadableCheckpointError(f"missing {missing[0]}{more} of {len(files)} files with weights")
        held = {path.name: set(tensors_of(path)) for path in files}
        index = folder / f"{stem}.safetensors.index.json"
        for tensor, name in _weight_map(index).items() if len(files) > 1 else ():
            if tensor not in held[name]:
                raise UnreadableCheckpointError(f"{name} lacks {tensor}, which {index.name} says it has")
        return sum(map(len, held.values()))
    pickles = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    loadable = [name for name in pickles if name.startswith(pickled_stem) and name.endswith(".bin")]
    if loadable and allow_pickle:
        return _MOST_PICKLED
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
            raise UnreadableCheckpointError(
                f"{index.name} points to {name!r}, which is not a safetensors file beside it"
            )
    return found


def refuse_pipes(folder: Path) -> None:
    """Refuse what would be waited for when it is opened, whichever library opens it, and small files that are large."""
    for path in folder.iterdir():
        try:
            state = path.stat()
        except OSError:  # a link to nothing, which nothing opens
            continue
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise UnreadableCheckpointError(f"{path.name} is a pipe or a device, and no file")
        if state.st_size > _SMALL.get(path.name, state.st_size):
            raise UnreadableCheckpointError(f"{path.name} is larger than {_SMALL[path.name] >> 20} MiB")


def _refuse_code(config: dict[str, Any]) -> None:
    """Refuse what would make transformers import, fetch or open anything but the files that were checked."""
    if "transformers_weights" in config:
        raise UnreadableCheckpointError("config.json names a weights file of its own (transformers_weights)")
    for key, value in _items(config):
        if key.endswith(("attn_implementation", "experts_implementation")):
            for name in list(value.values()) if isinstance(value, dict) else [value]:
                _check_implementation(key, name)
        if key in ("use_pretrained_backbone", "use_timm_backbone") and value:
            raise UnreadableCheckpointError(f"config.json asks for a backbone that is loaded from elsewhere ({key})")
        if key == "quantization_config" and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            if method not in _QUANTISED:
                raise UnreadableCheckpointError(
                    f"config.json says that its weights are quantised by {str(method)[:40]!r}, for which transformers "
                    f"imports or fetches kernels; read are {', '.join(_QUANTISED)} and weights that are not quantised"
                )


def _check_implementation(key: str, name: Any) -> None:
    """Refuse kernels that would come from the hub: those named so, and flash attention that is not installed."""
    if name is None:
        return
    if not isinstance(name, str) or "/" in name:
        raise UnreadableCheckpointError(f"config.json asks for a kernel from the hub ({key})")
    packages = _KERNEL_PACKAGES.get(name, ())
    if name not in _BUILT_IN and not any(map(importlib.util.find_spec, packages)):
        raise UnreadableCheckpointError(
            f"config.json asks for {key} = {name[:40]!r}, which would be fetched from the hub; accepted: "
            f"{', '.join(_BUILT_IN)}, or leave it out"
        )


def _items(config: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth; JSON that is nested too deep has been refused."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield key, value
            yield from _items(value)
    elif isinstance(config, list):
        for value in config:
            yield from _items(value)
