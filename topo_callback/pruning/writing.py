"""Writing a pruned model to a folder: whole and checked, or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from topo_callback.errors import ConfigurationError, RecordError, TopologyError, UnsupportedModelError
from topo_callback.libraries import dtype_argument, versions
from topo_callback.pruning.checking import (
    SAME,
    SAME_LOW,
    check_cache,
    check_tokens,
    largest_deviation,
    next_token_logits,
)


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
