"""Lightning: a callback of its Trainer, over the same core as that of the Hugging Face Trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
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
    `<default_root_dir>/topology`; a run that is resumed starts a new one.

    Args:
        probe: a Probe, a list of texts, or dataset rows in any format that TRL accepts. None: a seeded sample of the
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
        probe: Probe | Sequence[Any] | None = None,
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
        self._args = SimpleNamespace()
        self._step = 0

    @property
    def folder(self) -> Path | None:
        """The trajectory folder, on the first rank; None before training begins."""
        return self._watch.folder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        sinks = _sinks(trainer) if self._sinks is None else self._sinks
        self._watch = TopologyCallback(self._probe, **self._options, sinks=sinks)
        self._args = _arguments(trainer)
        self._step = trainer.global_step
        self._watch.on_train_begin(
            self._args, _state(trainer), _control(), model=pl_module, train_dataloader=trainer.train_dataloader
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self._step:  # gradients are still being accumulated
            return
        self._step = trainer.global_step
        control = _control()
        self._watch.on_step_end(self._args, _state(trainer), control, model=pl_module)
        if control.should_save:
            trainer.save_checkpoint(Path(self._args.output_dir) / f"topology-step-{self._step}.ckpt")
        if control.should_training_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._watch.on_train_end(self._args, _state(trainer), _control(), model=pl_module)


def _arguments(trainer: Any) -> SimpleNamespace:
    """What the core reads of transformers' TrainingArguments."""
    precision = str(trainer.precision)
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return SimpleNamespace(
        device=trainer.strategy.root_device,
        output_dir=trainer.default_root_dir,
        report_to=[],
        bf16=precision.startswith("bf16"),
        fp16=precision.startswith("16"),
        learning_rate=float(rates[0]) if rates else 0.0,
        lr_scheduler_type="lightning",
        warmup_steps=0,
        seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        dataloader_num_workers=int(getattr(trainer.train_dataloader, "num_workers", 0)),
        load_best_model_at_end=False,
    )


def _state(trainer: Any) -> SimpleNamespace:
    """What the core reads of transformers' TrainerState."""
    return SimpleNamespace(
        global_step=int(trainer.global_step),
        max_steps=int(trainer.estimated_stepping_batches),
        num_train_epochs=float(trainer.max_epochs or 0),
        epoch=float(trainer.current_epoch),
        log_history=[],
    )


def _control() -> SimpleNamespace:
    return SimpleNamespace(should_save=False, should_training_stop=False)


def _sinks(trainer: Any) -> list[Sink]:
    """A sink for the terminal and for each logger that has one."""
    sinks: list[Sink] = [ConsoleSink(), LiveSink()]
    for each in trainer.loggers:
        if type(each).__name__ == "WandbLogger":
            sinks.append(WandbSink(each.experiment))
        elif type(each).__name__ == "TensorBoardLogger":
            sinks.append(TensorBoardSink(each.log_dir))
    return sinks
