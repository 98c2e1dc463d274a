"""What run.json says of a run: enough to know what its numbers mean."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from topo_callback.capture.blocks import find_blocks, find_language_model
from topo_callback.config import TopologyConfig
from topo_callback.probe import Probe
from topo_callback.probe.rows import IN_TOKENS
from topo_callback.probe.tokenizer_hash import tokenizer_hash
from topo_callback.records.record import SCHEMA
from topo_callback.versions import versions
from topo_callback.watching.reader import Reader
from topo_callback.watching.training_description import describe_training


def describe_run(
    config: TopologyConfig,
    probe: Probe,
    reader: Reader,
    model: nn.Module,
    args: Any,
    state: Any,
    world_size: int,
    context: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of run.json: plain JSON values, without prompts, paths of data, or anything secret."""
    language_model = find_language_model(model)
    return {
        "tool": "topo_callback",
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": config.to_dict(),
        "config_hash": config.hash,
        "probe": {
            "hash": probe.hash,
            "points": len(probe),
            "max_tokens": probe.max_tokens,
            "source": probe.source,
            "duplicates": probe.duplicates,
            **_rendered(probe),
        },
        "layers": list(reader.layers),
        "model": {
            "name": getattr(language_model.config, "_name_or_path", "") or "",
            "class": type(language_model).__name__,
            "blocks": reader.stack_path,
            "blocks_choice": find_blocks(model, config.blocks).choice,
            "kind": reader.kind,
            "depth": reader.depth,
            "width": reader.width,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        },
        "reading": {
            "pooling": reader.pooling,
            "tap": config.tap,
            "metric": config.metric,
            "probe_batch": reader.batch_size,
            "rows": reader.rows,
            # the conditions of a pass are known once there was one
            **(reader.conditions.to_dict() if reader.settled else {"attention": reader.conditions.attention}),
        },
        **_proved(reader),
        "training": describe_training(model, args, state, world_size, context or {}),
        "versions": versions(("topo_callback", "torch", "transformers", "trl", "peft", "accelerate")),
    }


def _rendered(probe: Probe) -> dict[str, Any]:
    """Hashes of the chat template and of the tokenizer; what is not known of prompts in tokens is left out."""
    tokenizer = tokenizer_hash(probe)
    template = {} if probe.chat_template == IN_TOKENS else {"chat_template": probe.chat_template}
    return {**template, **({} if tokenizer is None else {"tokenizer": tokenizer})}


def _proved(reader: Reader) -> dict[str, Any]:
    """What showed that prompts that share a forward pass are what they are alone; nothing before a model could run."""
    proof = reader.proof
    if proof is None:
        return {}
    names = ("difference", "allowed", "noise", "refused", "next_token_missing")
    return {"proof": {name: getattr(proof, name) for name in names}}
