"""Models and texts for pruning, from names and files; refusals come before anything large is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError, described
from topo_callback.libraries import dtype_argument
from topo_callback.pruning.cutting import prunable_stack, refuse_configuration
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError, local_folder, read_object
from topo_callback.scan.opening import CheckedFiles, check_checkpoint, nothing_fetched, open_tokenizer, outline


def load_prunable(name: str, *, revision: str | None = None, device: str = "cpu") -> tuple[Any, Any]:
    """A causal language model in the type in which it was saved, and its tokenizer. Adapters are merged.

    The tokenizer is a BoundedTokenizer, each of whose calls has a limit of time and memory; None where there is none.

    Args:
        name: a hub name or a folder; of a PEFT adapter too, whose base is then loaded.
        revision: branch, tag or commit on the hub.
        device: where the model goes.

    Raises:
        ConfigurationError: there is no such model, it lacks weights, or there is no such device.
        UnsupportedModelError: it cannot be pruned; an encoder-decoder or quantised model is refused before it is read.
        MissingExtraError: an adapter without PEFT installed.
    """
    try:
        files = _checked(name, revision)
        outline(files, dtype="float32")
        with nothing_fetched():
            model = _loaded(files, name).to(device).eval()
        tokenizer = open_tokenizer(files.folders, instead="put files of a tokenizer that can be trusted in its place")
    except UnreadableCheckpointError as error:
        raise ConfigurationError(f"model {name} could not be loaded: {error}") from error
    except TopologyError:
        raise
    except Exception as error:  # every file format raises kinds of its own
        raise ConfigurationError(
            f"model {name} could not be loaded ({described(error)}); give the hub name or the folder of a causal "
            "language model"
        ) from error
    prunable_stack(model)
    return model, tokenizer


def load_text(file: Path) -> str:
    """A text file in UTF-8.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"text {file} cannot be read ({error}); give a text file in UTF-8") from error


def _checked(name: str, revision: str | None) -> CheckedFiles:
    """The files of a model, or of an adapter and its base, with what they hold compared with what they describe."""
    checkpoint = Checkpoint(name, revision)
    small = local_folder(checkpoint, weights=False)
    if (small / "adapter_config.json").is_file():
        if importlib.util.find_spec("peft") is None:
            raise MissingExtraError(f"{name} is a PEFT adapter and peft is not installed; run: pip install peft")
    else:
        refuse_configuration(SimpleNamespace(**read_object(small / "config.json")), name)
    files = check_checkpoint(checkpoint, allow_pickle=True)  # of pickles, transformers opens the weights alone
    refuse_configuration(SimpleNamespace(**files.config), name)
    return files


def _loaded(files: CheckedFiles, name: str) -> Any:
    """The model, with an adapter added to its weights."""
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        files.model,
        output_loading_info=True,
        trust_remote_code=False,
        local_files_only=True,
        **dtype_argument("auto"),
    )
    if found["missing_keys"]:
        raise ConfigurationError(
            f"model {name} lacks weights of a causal language model ({len(found['missing_keys'])}, such as "
            f"{min(found['missing_keys'])}); they would be random numbers"
        )
    if files.adapter is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(files.adapter)).merge_and_unload()
