"""The configuration of a model with some of its blocks left out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

# lists of block indices
INDEX_LISTS = (
    "mlp_only_layers",  # qwen2_moe, qwen3_moe
    "moe_layers",
    "attn_layer_indices",
    "local_layer_ids",
    "cross_attention_layers",
    "global_attention_blocks",
)
# "blocks before this index are of one kind, the others of another"
BOUNDARIES = (
    "max_window_layers",  # qwen2, qwen3: sliding windows from here on
    "first_k_dense_replace",  # deepseek: dense before, experts after
    "num_dense_layers",
    "num_first_full_attention_layers",
)


def shorter_configuration(config: Any, kept: Sequence[int]) -> Any:
    """A copy of a transformers configuration for the blocks `kept` alone, in this order.

    Changed are the number of blocks, every list with one entry per block (`layer_types`, ...), lists of block indices,
    and boundaries between kinds of blocks. What is periodic ("every fourth block") cannot be said of an arbitrary
    choice; `cut_layers` compares every block with the original and refuses such a model.

    Args:
        config: of the whole model.
        kept: block indices, from 0, rising.
    """
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config(decoder=True)
    depth = int(text.num_hidden_layers)
    place = {block: number for number, block in enumerate(kept)}
    changed: dict[str, Any] = {}
    for name, value in vars(text).items():
        if name in INDEX_LISTS and isinstance(value, (list, tuple)):
            changed[name] = type(value)(place[block] for block in value if block in place)
        elif name in BOUNDARIES and isinstance(value, int):
            changed[name] = sum(block < value for block in kept)
        elif isinstance(value, (list, tuple)) and len(value) == depth and ("layer" in name or "block" in name):
            changed[name] = type(value)(value[block] for block in kept)
    if "attention_layers" in changed and hasattr(text, "attention_types"):  # gpt_neo derives the one from the other
        changed["attention_types"] = [[[kind], 1] for kind in changed["attention_layers"]]
    text.num_hidden_layers = len(kept)
    for name, value in changed.items():
        setattr(text, name, value)
    return shorter
