"""Lightning: a callback of its Trainer, over the same core as that of the Hugging Face Trainer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from topo_callback.callback import TopologyCallback
from topo_callback.config import TopologyConfig
from topo_callback.errors import MissingExtraError
from topo_callback.probe import Probe
from topo_callback.sinks.console import ConsoleSink
from topo_callback.sinks.live import LiveSink
from topo_callback.sinks.protocol import Sink
from topo_callback.sinks.tensorboard import TensorBoardSink
from topo_callback.sinks.wandb import WandbSink
from topo_callback.training_loop import LoopControl, LoopProgress, LoopSettings, described_schedule


def _callback_class() -> Any:
    # the two names of the package have classes of their own, each of which takes only its own callbacks
    for name in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise MissingExtraError("the callback needs Lightning; install it with: pip install lightning")


_Callback: Any = _callback_class()


class LightningTopologyCallback(_Callback):
    """Watches `Trainer.fit` of Lightning: add it to the Trainer's `callbacks`.

    The LightningModule holds a transformers model anywhere inside. Steps are those of the optimizer. The record is in
    `<default_root_dir>/topology`; a run that is resumed starts a new one. The model is read under the Trainer's mixed
    precision, as it is trained. The record says the batch size, optimizer, learning rate, schedule and data of the fit,
    so that it can be a reference, or be compared with references.

    Args:
        probe: a Probe, a list of texts, or dataset rows in any format that TRL accepts, whose column `group` may name
            the group of a row; or a mapping from the names of groups to such lists. None: a seeded sample of the
            data set of the train_dataloader.
        config: every setting.
        processing_class: the tokenizer for texts and rows.
        sinks: where numbers go beside the disk. None: the terminal, and W&B and TensorBoard where the Trainer has their
            loggers.

    Raises:
        TopologyError: here, or before the first step: a probe, setting or model that cannot work.
    """

    def __init__(
        self,
        probe: Probe | Sequence[Any] | Mapping[Any, Any] | None = None,
        *,
        config: TopologyConfig | None = None,
        processing_class: Any = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"config": config, "processing_class": processing_class}
        self._probe = probe
        self._sinks = sinks
        self._watch = TopologyCallback(probe, **self._options)
        self._args: LoopSettings | None = None
        self._step = 0

    @property
    def folder(self) -> Path | None:
        """The trajectory folder, on the first rank; None before training begins."""
        return self._watch.folder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        sinks = _sinks(trainer) if self._sinks is None else self._sinks
        watch = TopologyCallback(self._probe, **self._options, sinks=sinks)
        watch._take_place_of(self._watch)
        self._watch = watch
        self._args = _arguments(trainer)
        self._step = trainer.global_step
        context = {"train_dataloader": _loader(trainer), "lr_scheduler": _scheduler(trainer)}
        if trainer.optimizers:
            context["optimizer"] = trainer.optimizers[0]
        with _as_trained(trainer):
            self._watch.on_train_begin(self._args, _state(trainer), LoopControl(), model=pl_module, **context)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self._step:  # gradients are still being accumulated
            return
        self._step = trainer.global_step
        control = LoopControl()
        with _as_trained(trainer):
            self._watch.on_step_end(self._args, _state(trainer), control, model=pl_module)
        if control.should_save:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / f"topology-step-{self._step}.ckpt")
        if control.should_training_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        with _as_trained(trainer):
            self._watch.on_train_end(self._args, _state(trainer), LoopControl(), model=pl_module)


def _as_trained(trainer: Any) -> AbstractContextManager[Any]:
    """The autocast that training steps run under; the Trainer of Lightning leaves callbacks outside of it."""
    cast = getattr(trainer.precision_plugin, "autocast_context_manager", None)  # of mixed precision only
    found: AbstractContextManager[Any] = nullcontext() if cast is None else cast()
    return found


def _loader(trainer: Any) -> Any:
    """The first data loader that a fit draws from, where it has several."""
    loader = trainer.train_dataloader
    while isinstance(loader, (Mapping, list, tuple)) and loader:
        loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader))
    return loader


def _scheduler(trainer: Any) -> Any:
    """The schedule of the first optimizer that has one; None without."""
    configs = trainer.lr_scheduler_configs
    return configs[0].scheduler if configs else None


def _schedule(trainer: Any) -> dict[str, Any]:
    """Name of the schedule and its numbers, without where it is at the moment."""
    scheduler = _scheduler(trainer)
    if scheduler is None:
        return {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {}}
    config = trainer.lr_scheduler_configs[0]
    found = described_schedule(scheduler)
    found["lr_scheduler_kwargs"] |= {"interval": str(config.interval), "frequency": int(config.frequency)}
    return found


def _batch_size(trainer: Any) -> int | None:
    """Rows of one batch of one process; None where the data loader does not say."""
    loader = _loader(trainer)
    for each in (loader, getattr(loader, "batch_sampler", None)):
        size = getattr(each, "batch_size", None)
        if type(size) is int:
            return size
    return None


def _arguments(trainer: Any) -> LoopSettings:
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    return LoopSettings(
        device=trainer.strategy.root_device,
        output_dir=trainer.default_root_dir,
        fp16=str(trainer.precision).startswith("16"),
        learning_rate=max(rates, default=0.0),
        **_schedule(trainer),
        per_device_train_batch_size=_batch_size(trainer),
        gradient_accumulation_steps=int(trainer.accumulate_grad_batches),
        max_grad_norm=trainer.gradient_clip_val,
        seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        dataloader_num_workers=int(getattr(_loader(trainer), "num_workers", 0)),
    )


def _state(trainer: Any) -> LoopProgress:
    return LoopProgress(
        max_steps=int(trainer.estimated_stepping_batches),
        global_step=int(trainer.global_step),
        num_train_epochs=float(trainer.max_epochs or 0),
        epoch=float(trainer.current_epoch),
    )


def _sinks(trainer: Any) -> list[Sink]:
    """A sink for the terminal and for each logger that has one."""
    sinks: list[Sink] = [ConsoleSink(), LiveSink()]
    for each in trainer.loggers:
        if type(each).__name__ == "WandbLogger":
            sinks.append(WandbSink(each.experiment))
        elif type(each).__name__ == "TensorBoardLogger":
            sinks.append(TensorBoardSink(each.log_dir))
    return sinks
