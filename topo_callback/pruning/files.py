"""Models and texts for pruning, from names and files, and the pruned model in a folder of its own.

Refusals come before anything large is read; a folder is written whole and checked, or not at all.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError

from topo_callback.errors import (
    ConfigurationError,
    MissingExtraError,
    RecordError,
    TopologyError,
    UnsupportedModelError,
    described,
)
from topo_callback.libraries import dtype_argument, versions
from topo_callback.pruning.checking import (
    SAME,
    SAME_LOW,
    check_cache,
    check_tokens,
    largest_deviation,
    next_token_logits,
)
from topo_callback.pruning.cutting import prunable_stack, refuse_configuration
from topo_callback.scan.checkpoint import UnreadableCheckpointError, local_folder, read_object
from topo_callback.scan.finding import one_checkpoint
from topo_callback.scan.opening import CheckedFiles, check_checkpoint, nothing_fetched, open_tokenizer, outline


def load_prunable(name: str, *, device: str = "cpu") -> tuple[Any, Any]:
    """A causal language model in the type in which it was saved, and its tokenizer. Adapters are merged.

    The tokenizer is a BoundedTokenizer, each of whose calls has a limit of time and memory; None where there is none.

    Args:
        name: a hub name, NAME@REVISION or a folder; of a PEFT adapter too, whose base is then loaded.
        device: where the model goes.

    Raises:
        ConfigurationError: there is no such model, it lacks weights, or there is no such device.
        UnsupportedModelError: it cannot be pruned; an encoder-decoder or quantised model is refused before it is read.
        MissingExtraError: an adapter without PEFT installed.
    """
    try:
        files = _checked(name)
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


def _checked(name: str) -> CheckedFiles:
    """The files of a model, or of an adapter and its base, with what they hold compared with what they describe."""
    checkpoint = one_checkpoint(name)
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


def check_target(folder: Path) -> None:
    """Raise ConfigurationError unless `folder` can be made: it is new or empty, and what is above it can be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already; name a new folder for the pruned model")


def write_pruned(model: Any, tokenizer: Any, folder: Path, facts: Mapping[str, Any]) -> None:
    """Save a model from `cut_layers` with its tokenizer, load it again, compare, and only then give it its name.

    Everything is written into a hidden folder beside `folder`, which is removed when anything fails. The model is
    loaded back with `from_pretrained`; its weights must be those of the model in memory, bit by bit, its logits too,
    and its greedy generation the same with a cache and without. pruning.json beside the weights says how the model was
    made.

    Args:
        model: from `cut_layers`.
        tokenizer: saved with it; None leaves it out.
        folder: a new one.
        facts: plain JSON values for pruning.json, such as the method and the layers that were cut.

    Raises:
        ConfigurationError: `folder` is there already.
        RecordError: it cannot be written.
        UnsupportedModelError: what was loaded back differs.
    """
    check_target(folder)
    whole = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        whole.mkdir(parents=True)
        model.save_pretrained(whole)
        if tokenizer is not None:
            tokenizer.save_pretrained(whole)
        record = {"tool": "topo_callback", **facts, "versions": versions(("topo_callback", "torch", "transformers"))}
        (whole / "pruning.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _check_written(model, whole)
        whole.rename(folder)
    except TopologyError:
        raise
    except (OSError, SafetensorError) as error:
        raise RecordError(
            f"the pruned model cannot be written to {folder} ({error}); nothing was left there"
        ) from error
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _check_written(model: Any, folder: Path) -> None:
    loaded, found = type(model).from_pretrained(
        folder,
        **dtype_argument(model.dtype),
        attn_implementation=model.config._attn_implementation,
        output_loading_info=True,
        local_files_only=True,
    )
    loaded = loaded.to(model.device).eval()
    wrong = [*found["missing_keys"], *found["unexpected_keys"]]
    if wrong:
        raise UnsupportedModelError(f"{type(model).__name__} saved with fewer blocks has no place for {min(wrong)}")
    weights = model.state_dict()
    changed = [name for name, weight in loaded.state_dict().items() if not torch.equal(weight, weights[name])]
    if changed:
        raise UnsupportedModelError(f"{type(model).__name__} comes back from its files with another {changed[0]}")
    ids = check_tokens(model)
    deviation = largest_deviation(next_token_logits(loaded, ids), next_token_logits(model, ids))
    # a model that was cast as a whole has rounded tables of positions, which loading computes anew
    if not deviation <= (SAME if model.dtype in (torch.float32, torch.float64) else SAME_LOW):
        raise UnsupportedModelError(
            f"{type(model).__name__} does not survive saving with fewer blocks: its logits differ by {deviation:.1g} "
            "of the largest after from_pretrained; choose other layers"
        )
    check_cache(loaded, ids)
