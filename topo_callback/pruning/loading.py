"""Models and texts for pruning, from names and files; refusals come before anything large is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError, described
from topo_callback.pruning.cutting import prunable_stack, refuse_configuration
from topo_callback.versions import dtype_argument


def load_prunable(name: str, *, revision: str | None = None, device: str = "cpu") -> tuple[Any, Any]:
    """A causal language model in the type in which it was saved, and its tokenizer. Adapters are merged.

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
        model, tokenizer = _merged(name) if (Path(name) / "adapter_config.json").is_file() else _plain(name, revision)
        model = model.to(device).eval()
    except TopologyError:
        raise
    except Exception as error:  # the hub, the network and every file format raise kinds of their own
        raise ConfigurationError(
            f"model {name} could not be loaded ({described(error)}); give the hub name or "
            "the folder of a causal language model"
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


def _plain(name: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    refuse_configuration(AutoConfig.from_pretrained(name, revision=revision), name)
    model, found = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, output_loading_info=True, **dtype_argument("auto")
    )
    if found["missing_keys"]:
        raise ConfigurationError(
            f"model {name} lacks weights of a causal language model ({len(found['missing_keys'])}, such as "
            f"{min(found['missing_keys'])}); they would be random numbers"
        )
    return model, AutoTokenizer.from_pretrained(name, revision=revision)


def _merged(name: str) -> tuple[Any, Any]:
    """The base of an adapter with the adapter added to its weights."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError(f"{name} is a PEFT adapter and peft is not installed; run: pip install peft")
    from peft import PeftConfig, PeftModel
    from transformers import AutoTokenizer

    base, _ = _plain(PeftConfig.from_pretrained(name).base_model_name_or_path, None)
    tokenizer_files = ("tokenizer.json", "tokenizer_config.json")
    own = any((Path(name) / file).is_file() for file in tokenizer_files)
    tokenizer = AutoTokenizer.from_pretrained(name if own else base.config._name_or_path)
    return PeftModel.from_pretrained(base, name).merge_and_unload(), tokenizer
