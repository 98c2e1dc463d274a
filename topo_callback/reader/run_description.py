"""What run.json says of a run: enough to know what its numbers mean.

What it says of training is what another run must share to be a reference of this one.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from topo_callback.capture.blocks import find_blocks, find_language_model
from topo_callback.capture.model_facts import model_device
from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN
from topo_callback.libraries import versions
from topo_callback.probe import Probe
from topo_callback.probe.probe import tokenizer_hash
from topo_callback.probe.rows import IN_TOKENS
from topo_callback.reader.reader import Reader
from topo_callback.records.record import SCHEMA
from topo_callback.subsamples import evenly_spaced
from topo_callback.training_loop import TrainingProgress, TrainingSettings

_OF_OPTIMIZERS = ("betas", "eps", "alpha", "momentum", "nesterov", "amsgrad")
_ROWS = 16  # of the training data, evenly spaced, that its digest is of


def describe_run(
    config: TopologyConfig,
    probe: Probe,
    reader: Reader,
    model: nn.Module,
    args: TrainingSettings,
    state: TrainingProgress,
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
            **({"groups": probe.groups.to_run()} if probe.groups else {}),
        },
        "layers": list(reader.layers),
        **({"directions": reader.directions.to_run()} if reader.directions else {}),
        "model": {
            "name": getattr(language_model.config, "_name_or_path", "") or "",
            "class": type(language_model).__name__,
            "blocks": reader.stack_path,
            "blocks_choice": find_blocks(model, config.blocks).choice,
            "kind": reader.kind,
            "depth": reader.depth,
            "width": reader.width,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            **_device(model),
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


def _device(model: nn.Module) -> dict[str, str]:
    """The kind of device that the model is on; nothing of a mere outline."""
    kind = model_device(model).type
    return {} if kind == "meta" else {"device": kind}


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


def describe_training(
    model: nn.Module, args: TrainingSettings, state: TrainingProgress, world_size: int, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The part `training` of run.json: plain JSON values; what is not known is left out.

    Args:
        model, args, state, context: what the trainer's event gives; of the context `optimizer` and `train_dataloader`.
        world_size: processes that train.
    """
    optimizer = _inner(context.get("optimizer"))
    found = {
        "max_steps": int(state.max_steps),
        "epochs": float(state.num_train_epochs),
        "learning_rate": _learning_rate(optimizer, args),
        "lr_scheduler_type": _name(args.lr_scheduler_type),
        "lr_scheduler_kwargs": _plain(getattr(args, "lr_scheduler_kwargs", None) or {}),
        "warmup_steps": float(args.warmup_steps or 0),
        "warmup_ratio": float(getattr(args, "warmup_ratio", None) or 0),
        "world_size": world_size,
        "seed": None if args.seed is None else int(args.seed),
        "optimizer": _describe_optimizer(optimizer, args),
        "trained_parameters": _trained_parameters(model),
        **_batch(args, state, world_size),
        **describe_loss(args),
    }
    dataset = getattr(context.get("train_dataloader"), "dataset", None)
    if dataset is not None:
        found["data"] = describe_data(dataset)
    return {name: value for name, value in found.items() if value is not None}


def describe_loss(args: TrainingSettings) -> dict[str, Any]:
    """Which loss a trainer minimises and evaluates, as far as its settings say: their class in transformers or TRL,
    `loss_type` and `label_smoothing_factor`; nothing of other settings."""
    kinds = (each for each in type(args).__mro__ if each.__module__.partition(".")[0] in ("transformers", "trl"))
    kind = next(kinds, None)
    if kind is None:
        return {}
    found: dict[str, Any] = {"settings": kind.__name__}
    loss_type, smoothing = getattr(args, "loss_type", None), getattr(args, "label_smoothing_factor", None)
    if loss_type is not None:
        found["loss_type"] = str(loss_type)
    if isinstance(smoothing, (int, float)):
        found["label_smoothing_factor"] = float(smoothing)
    return found


def describe_data(dataset: Any) -> dict[str, Any]:
    """Rows of a training data set, and a digest of some of them where they can be read without any code of the user.

    A random fingerprint, as `datasets` gives after a function that it cannot hash, would make every run another one;
    rows do not.
    """
    try:
        rows = len(dataset)
    except USERS_OWN:
        raise
    except BaseException:  # noqa: BLE001 - a data set of the user's, which need not know its length
        return {"rows": None, "digest": None}
    try:
        digest = _digest(dataset, evenly_spaced(rows, _ROWS))
    except USERS_OWN:
        raise
    except BaseException:  # noqa: BLE001 - rows of any kind; they are described by their number alone
        digest = None
    return {"rows": rows, "digest": digest}


def _digest(dataset: Any, places: Any) -> str | None:
    """SHA-256, its first 16 digits, of some rows of a list, of a TensorDataset, or of a data set of `datasets` read
    from its table."""
    content: Any = None
    if type(dataset) in (list, tuple, TensorDataset):
        # what is not plain has no digest
        content = json.dumps([dataset[place] for place in places], sort_keys=True, default=_plain_rows)
    elif "datasets" in sys.modules and type(dataset) is sys.modules["datasets"].Dataset:
        # the table itself: no transform of the user's is called
        content = repr(sorted(dataset.with_format("arrow")[list(places)].to_pydict().items()))
    return None if content is None else hashlib.sha256(content.encode()).hexdigest()[:16]


def _plain_rows(value: Any) -> Any:
    """The numbers of a tensor or array, of no class of the user's."""
    if type(value) in (Tensor, np.ndarray):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _inner(optimizer: Any) -> Any:
    """The optimizer below the wrappers of accelerate."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _groups(optimizer: Any) -> list[Mapping[str, Any]]:
    groups = getattr(optimizer, "param_groups", None)
    return [group for group in groups if isinstance(group, Mapping)] if isinstance(groups, list) else []


def _name(kind: Any) -> str | None:
    return None if kind is None else str(getattr(kind, "value", kind))


def _learning_rate(optimizer: Any, args: TrainingSettings) -> float | None:
    """The highest rate of all groups before the schedule, which an optimizer of the user's has from elsewhere.

    Where nobody says it, the highest that there is now; None where there is none.
    """
    groups, said = _groups(optimizer), args.learning_rate
    rates = [group["initial_lr"] for group in groups if "initial_lr" in group]
    if not rates:
        rates = [group["lr"] for group in groups if "lr" in group] if said is None else [said]
    return max((float(rate) for rate in rates if rate is not None), default=None)


def _describe_optimizer(optimizer: Any, args: TrainingSettings) -> dict[str, Any] | None:
    groups = _groups(optimizer)
    name = type(optimizer).__name__ if groups else getattr(args, "optim", None)
    if name is None:
        return None
    found: dict[str, Any] = {"name": str(getattr(name, "value", name))}
    if groups:
        found["weight_decay"] = max(float(group.get("weight_decay", 0.0)) for group in groups)
        found |= _plain({key: groups[0][key] for key in _OF_OPTIMIZERS if key in groups[0]})
    clipped = getattr(args, "max_grad_norm", None)
    if clipped is not None:
        found["max_grad_norm"] = float(clipped)
    return found


def _batch(args: TrainingSettings, state: TrainingProgress, world_size: int) -> dict[str, int]:
    """Rows of one optimizer step over all processes, and what they are made of."""
    per_process = getattr(state, "train_batch_size", None) or getattr(args, "per_device_train_batch_size", None)
    if not per_process:
        return {}
    accumulated = int(getattr(args, "gradient_accumulation_steps", 1))
    return {
        "batch_size": int(per_process) * accumulated * world_size,
        "gradient_accumulation_steps": accumulated,
    }


def _trained_parameters(model: nn.Module) -> int:
    """Numbers in the trained weights; those of ZeRO-3 by their whole size."""
    return sum(
        int(getattr(weight, "ds_numel", weight.numel())) for weight in model.parameters() if weight.requires_grad
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as run.json has them, so that a record and a run compare equal."""
    return {str(name): json.loads(json.dumps(value, default=str)) for name, value in values.items()}
