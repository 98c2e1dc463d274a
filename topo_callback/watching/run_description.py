"""What run.json says of a run: enough to know what its numbers mean."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from topo_callback.capture.blocks import find_language_model
from topo_callback.config import TopologyConfig
from topo_callback.probe import Probe
from topo_callback.records.record import SCHEMA
from topo_callback.versions import versions
from topo_callback.watching.reader import Reader


def describe_run(
    config: TopologyConfig, probe: Probe, reader: Reader, model: nn.Module, args: Any, state: Any, world_size: int
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
        },
        "layers": list(reader.layers),
        "model": {
            "name": getattr(language_model.config, "_name_or_path", "") or "",
            "class": type(language_model).__name__,
            "blocks": reader.stack_path,
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
            "autocast": "bfloat16" if args.bf16 else "float16" if args.fp16 else None,
        },
        "training": {
            "max_steps": int(state.max_steps),
            "epochs": float(state.num_train_epochs),
            "learning_rate": float(args.learning_rate),
            "lr_scheduler_type": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
            "warmup_steps": float(args.warmup_steps or 0),
            "warmup_ratio": float(getattr(args, "warmup_ratio", None) or 0),
            "world_size": world_size,
            "seed": int(args.seed),
        },
        **_proved(reader),
        "versions": versions(("topo_callback", "torch", "transformers", "trl", "peft", "accelerate")),
    }


def _proved(reader: Reader) -> dict[str, Any]:
    """What showed that prompts that share a forward pass are what they are alone; nothing before a model could run."""
    proof = reader.proof
    if proof is None:
        return {}
    names = ("difference", "allowed", "noise", "refused", "next_token_missing")
    return {"proof": {name: getattr(proof, name) for name in names}}
