"""What is read of a training loop, and what it may be asked for: one form for every loop, whoever wrote it.

transformers' TrainingArguments, TrainerState and TrainerControl are of this form as they are. Other loops fill in
`LoopSettings`, `LoopProgress` and `LoopControl`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

OPTIONAL = (
    "auto_find_batch_size", "chat_template_kwargs", "fp16", "gradient_accumulation_steps", "label_smoothing_factor",
    "loss_type", "lr_scheduler_kwargs", "max_grad_norm", "optim", "per_device_train_batch_size", "push_to_hub",
    "train_batch_size", "warmup_ratio",
)  # fmt: skip
"""Attributes of settings or progress that are read where they are there: not every version of transformers has all."""


@runtime_checkable
class TrainingSettings(Protocol):
    """What holds for a whole run.

    Attributes:
        device: where the model is.
        output_dir: where the run keeps its files; the record is in `topology` there.
        report_to: trackers of the run, by the names that transformers has for them.
        learning_rate: the highest, where the optimizer does not say it; None where it is not known.
        lr_scheduler_type: name of the schedule; None where it is not known.
        warmup_steps: steps, or a share of all steps where it is below 1.
        seed: of the run; None where it is not known.
        dataloader_num_workers: processes that load data; the worker leaves processors to them.
        load_best_model_at_end: the model at the end is not that of the last step, and is not sampled.
    """

    device: Any
    output_dir: Any
    report_to: Any
    learning_rate: Any
    lr_scheduler_type: Any
    warmup_steps: Any
    seed: Any
    dataloader_num_workers: Any
    load_best_model_at_end: Any


@runtime_checkable
class TrainingProgress(Protocol):
    """How far a run is.

    Attributes:
        global_step: optimizer steps done.
        max_steps: optimizer steps of the whole run.
        num_train_epochs, epoch: passes over the data, planned and done; `epoch` is None where it is not known.
        log_history: what a resumed run had logged, oldest first.
    """

    global_step: Any
    max_steps: Any
    num_train_epochs: Any
    epoch: Any
    log_history: Any


@runtime_checkable
class TrainingControl(Protocol):
    """What an event may ask of the loop: to save a checkpoint, and to stop."""

    should_save: Any
    should_training_stop: Any


@dataclass
class LoopSettings:
    """`TrainingSettings` of a loop that is not transformers'; what is not known has its default."""

    device: torch.device
    output_dir: str
    report_to: Iterable[str] = ()
    learning_rate: float | None = None
    lr_scheduler_type: str | None = None
    lr_scheduler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    warmup_steps: float = 0.0
    seed: int | None = None
    per_device_train_batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    max_grad_norm: float | None = None
    fp16: bool = False
    dataloader_num_workers: int = 0
    load_best_model_at_end: bool = False


@dataclass
class LoopProgress:
    """`TrainingProgress` of a loop that is not transformers'."""

    max_steps: int
    global_step: int = 0
    num_train_epochs: float = 0.0
    epoch: float | None = None
    log_history: Sequence[Mapping[str, Any]] = ()


@dataclass
class LoopControl:
    """`TrainingControl` of a loop that is not transformers'."""

    should_save: bool = False
    should_training_stop: bool = False


def described_schedule(scheduler: Any) -> dict[str, Any]:
    """`lr_scheduler_type` and `lr_scheduler_kwargs` of a scheduler of torch, also inside accelerate's: its name and its
    plain numbers, without where it is at the moment. Nothing where there is none."""
    while hasattr(scheduler, "scheduler"):
        scheduler = scheduler.scheduler
    if scheduler is None:
        return {}
    numbers = {
        name: value
        for name, value in getattr(scheduler, "__dict__", {}).items()
        if not name.startswith("_") and name != "last_epoch" and _is_plain(value)
    }
    return {"lr_scheduler_type": type(scheduler).__name__, "lr_scheduler_kwargs": numbers}


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
