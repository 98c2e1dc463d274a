"""Opening a checkpoint: a model with its adapter beside the weights, as it was during training; no code of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topo_callback.errors import USERS_OWN, ConfigurationError, TopologyError, described
from topo_callback.libraries import dtype_argument, quiet_loading
from topo_callback.scan.adapters import check_adapter_size, check_against_base
from topo_callback.scan.bounded import BoundedTokenizer, check_bounded
from topo_callback.scan.checking import check_adapter, check_model, refuse_pipes, weight_files
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError, local_folder, read_object
from topo_callback.scan.sizes import Held, check_built, held_by, limited_building
from topo_callback.wording import counted

_OF_TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "vocab.json", "vocab.txt",
)  # fmt: skip
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class CheckedFiles:
    """The files of a checkpoint that is whole and safe to open.

    Attributes:
        model: folder of the model, or of the adapter's base.
        adapter: folder of the adapter; None for a whole model.
        name: the hub name of the model or base, or the name of its folder.
        config: config.json of the model.
    """

    model: Path
    adapter: Path | None
    name: str
    config: dict[str, Any]

    @property
    def folders(self) -> list[Path]:
        """Where a tokenizer or trainer_state.json may be, the checkpoint itself first."""
        return [self.model] if self.adapter is None else [self.adapter, self.model]


def check_checkpoint(checkpoint: Checkpoint, *, allow_pickle: bool = False) -> CheckedFiles:
    """Find the files of a checkpoint and check that they are whole; no weight is read and nothing is executed.

    Raises:
        UnreadableCheckpointError: the reason why it cannot be read.
    """
    folder = local_folder(checkpoint, weights=True, allow_pickle=allow_pickle)
    if not (folder / "adapter_config.json").is_file():
        return CheckedFiles(folder, None, checkpoint.label, check_model(folder, allow_pickle=allow_pickle))
    base = Checkpoint(check_adapter(folder, allow_pickle=allow_pickle))
    if importlib.util.find_spec("peft") is None:
        raise UnreadableCheckpointError("a PEFT adapter, and peft is not installed; run: pip install peft")
    try:
        found = local_folder(base, weights=True, allow_pickle=allow_pickle, fetch=False)
        config = check_model(found, allow_pickle=allow_pickle)
    except UnreadableCheckpointError as error:
        raise UnreadableCheckpointError(f"base {base.label}: {error}") from error
    return CheckedFiles(found, folder, base.label, config)


def resolve_dtype(files: CheckedFiles, dtype: str) -> str:
    """The type in which "auto" loads a model: that of config.json, else that of its first stored weight."""
    if dtype != "auto":
        return dtype
    named = str(files.config.get("dtype") or files.config.get("torch_dtype") or "").removeprefix("torch.")
    if named in _STORED.values():
        return named
    from safetensors import safe_open

    for path in weight_files(files.model):
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                stored = tensors.get_slice(name).get_dtype()
                if stored in _STORED:
                    return _STORED[stored]
    return "float32"


def open_model(
    files: CheckedFiles, *, dtype: str, device: str, attention: str | None = None, allow_pickle: bool = False
) -> Any:
    """The model on its device, in evaluation mode, with an adapter beside the weights it changes, not merged.

    Args:
        files: from `check_checkpoint`.
        dtype: from `resolve_dtype`.
        device: such as "cpu" or "cuda:1".
        attention: its implementation, such as "sdpa"; None: what transformers chooses.
        allow_pickle: weights may be pickled.

    Raises:
        UnreadableCheckpointError: the files do not make the model they claim; weights that are missing would be random.
    """
    with _readable(), quiet_loading(), nothing_fetched():
        _outline(files, dtype, attention)
        config = _configuration(files, attention)
        model, found = _model_class(config).from_pretrained(
            files.model,
            config=config,
            **dtype_argument(getattr(torch, dtype)),
            use_safetensors=None if allow_pickle else True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        _refuse_missing(found["missing_keys"])
        if files.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(files.adapter))
            _check_adapter_weights(model, files.adapter)
        return model.to(torch.device(device)).eval()


def outline(files: CheckedFiles, *, dtype: str, attention: str | None = None) -> Any:
    """The model without weights (on torch's meta device): enough to find its blocks and to say what it is.

    Raises:
        UnreadableCheckpointError: the configuration makes no model.
    """
    with _readable(), quiet_loading(), nothing_fetched():
        return _outline(files, dtype, attention)


def open_tokenizer(folders: list[Path], *, instead: str = "name another with --tokenizer") -> Any:
    """The tokenizer in the first of the folders that has one, a BoundedTokenizer; None where there is none.

    Args:
        folders: where its files may be.
        instead: what to do about one that is refused, for the message.

    Raises:
        ConfigurationError: it cannot be read, or takes too long or too much memory for it.
    """
    from transformers import AutoTokenizer

    for folder in folders:
        if any((folder / name).is_file() for name in _OF_TOKENIZERS):
            refuse_pipes(folder)

            def opened(folder: Path = folder) -> Any:
                return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

            with quiet_loading(), nothing_fetched():
                wrong = check_bounded(opened)
                if wrong:
                    raise ConfigurationError(f"the tokenizer of {folder.name} cannot be read ({wrong}); {instead}")
                return BoundedTokenizer(opened(), instead=instead)
    return None


def check_device(device: str) -> None:
    """Raise ConfigurationError unless tensors can live on `device`."""
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"device {device!r} cannot be used ({described(error)}); accepted: cpu, cuda:0, ..."
        ) from error


@contextlib.contextmanager
def nothing_fetched() -> Iterator[None]:
    """Nothing is asked of the hub inside: all files are here, and no other was asked for. As before afterwards."""
    from huggingface_hub import constants

    switches: list[tuple[Any, str, bool]] = [(constants, "HF_HUB_OFFLINE", True)]
    if importlib.util.find_spec("transformers.integrations.hub_kernels") is not None:
        hub_kernels = importlib.import_module("transformers.integrations.hub_kernels")
        if hasattr(hub_kernels, "_kernels_enabled"):
            switches.append((hub_kernels, "_kernels_enabled", False))
    before = [getattr(module, name) for module, name, _ in switches]
    for module, name, value in switches:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(switches, before, strict=True):
            setattr(module, name, value)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Every way in which loading fails is a reason to leave the checkpoint out."""
    try:
        yield
    except (TopologyError, *USERS_OWN):
        raise
    except BaseException as error:  # every file format and architecture raises kinds of its own
        raise UnreadableCheckpointError(f"cannot be loaded ({described(error)})") from error


def _outline(files: CheckedFiles, dtype: str, attention: str | None) -> Any:
    """The model without memory, seen to be no larger than its files, with its adapter."""
    config = _configuration(files, attention)
    stored = weight_files(files.model)
    held = held_by(stored) if stored else Held(frozenset(), _pickled_bytes(files.model))
    with torch.device("meta"):
        with limited_building(held):
            chosen = _model_class(config)
            model = chosen.from_config(config) if not hasattr(chosen, "_from_config") else chosen(config)
        check_built(model, held)
        model = model.to(getattr(torch, dtype))
        if files.adapter is not None:
            from peft import PeftConfig, get_peft_model

            settings = read_object(files.adapter / "adapter_config.json")
            check_against_base(settings, model)
            own = held_by(weight_files(files.adapter, "adapter_model"))
            numbers = sum(each.numel() for each in [*model.parameters(), *model.buffers()])
            with limited_building(Held(held.names | own.names, held.numbers + own.numbers)):
                model = get_peft_model(model, PeftConfig.from_pretrained(str(files.adapter)))
            check_adapter_size(model, numbers, own.numbers)
    return model


def _pickled_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


def _configuration(files: CheckedFiles, attention: str | None) -> Any:
    from transformers import AutoConfig

    chosen = {} if attention is None else {"attn_implementation": attention}
    return AutoConfig.from_pretrained(files.model, trust_remote_code=False, local_files_only=True, **chosen)


def _model_class(config: Any) -> Any:
    """The class that was saved, so that all its weights are accounted for; the bare model where it is not known."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return transformers.AutoModel


def _refuse_missing(keys: Any) -> None:
    if keys:
        raise UnreadableCheckpointError(f"lacks {counted(len(keys), 'weight')} of its model, such as {min(keys)}")


def _check_adapter_weights(model: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    files = weight_files(folder, "adapter_model")
    stored: set[str] = set()
    for path in files:
        with safe_open(path, framework="np") as tensors:
            stored |= set(tensors.keys())
    if files:
        _refuse_missing(set(get_peft_model_state_dict(model, save_embedding_layers=False)) - stored)
