"""What a study of a model is given, made without a run: for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from topo_callback.capture import find_blocks, make_batches, padding_id, read_clouds, resolve_pooling
from topo_callback.probe import Probe
from topo_callback.studies.registry import ModelContext, Reading


def probe_of(prompts: int = 10, seed: int = 0, tokens: int = 0) -> Probe:
    """Random prompts of 4 to 13 tokens (or of `tokens`), with two tokens of an answer behind them."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [tokens or 4 + 3 * (i % 4) for i in range(prompts)]
    ids = tuple(tuple(torch.randint(3, 101, (n + 2,), generator=draw).tolist()) for n in lengths)
    return Probe(ids, tuple(lengths))


def context_of(model: nn.Module, probe: Probe, layers: tuple[int, ...] = (1, 2, 3), **changes: Any) -> ModelContext:
    """The context of a study at step 0; any field can be given another value."""
    stack = find_blocks(model)
    pooling = resolve_pooling("auto", stack.kind)
    batches = make_batches(probe, 4, pooling, pad_id=padding_id(model))
    values: dict[str, Any] = {
        "probe": probe,
        "layers": layers,
        "step": 0,
        "seed": 0,
        "device": torch.device("cpu"),
        "neighbours": 3,
        "pooling": pooling,
        "model": model,
        "stack": stack,
        "batches": batches,
        "tap": "block",
        "memory": {},
    }
    if "reading" not in changes:
        clouds = read_clouds(model, stack, batches, layers=layers)
        values["reading"] = Reading(clouds, tuple(range(len(probe))))
    return ModelContext(**(values | changes))


def hooks(model: nn.Module) -> int:
    """How many hooks there are anywhere in a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
