"""watch: the callback for a training loop of one's own, told what happens where transformers' Trainer tells it."""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import torch
from torch import nn

from topo_callback.callback import TopologyCallback
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.probe import Probe
from topo_callback.sinks.protocol import Sink
from topo_callback.training_loop import LoopControl, LoopProgress, LoopSettings, described_schedule
from topo_callback.watching.actions import EventFunction
from topo_callback.watching.attached import Attached

_Conditions = Callable[[], AbstractContextManager[Any]]

logger = logging.getLogger("topo_callback")


def watch(
    model: nn.Module,
    probe: Probe | Sequence[Any] | Mapping[Any, Any] | None = None,
    *,
    folder: str | Path,
    total_steps: int,
    config: TopologyConfig | None = None,
    processing_class: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    train_dataset: Any = None,
    autocast: torch.dtype | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    start_step: int = 0,
    checkpoint: str | Path | None = None,
    report_to: str | Sequence[str] = (),
    executor: Executor | None = None,
    sinks: Sequence[Sink] | None = None,
    on_event: EventFunction | Sequence[EventFunction] = (),
) -> Watch:
    """Watch a training loop of your own.

        with topo_callback.watch(model, prompts, folder="runs/sft", total_steps=1000, processing_class=tokenizer) as w:
            for batch in batches:
                ...
                optimizer.step()
                scheduler.step()
                w.step(loss=loss)
                optimizer.zero_grad()

    The model is sampled here for the first time. With several processes each of them calls this, and every method, at
    the same steps. Training is as undisturbed as with `TopologyCallback`: the weights are bit-identical with and
    without it, and after this function nothing of ours is raised into the loop. `TOPO_DISABLED=1` in the environment
    disables it.

    Args:
        model: a transformers model, also inside DistributedDataParallel, FSDP2, a compiled module or a module of yours.
        probe: as of `TopologyCallback`. None: a seeded sample of `train_dataset`.
        folder: where the run keeps its files; the record is in `topology` there.
        total_steps: optimizer steps of the whole run, those before `start_step` included. A run may end earlier.
        config: every setting.
        processing_class: the tokenizer for texts and rows.
        optimizer, scheduler: for learning rates, and for what run.json says of them. The scheduler has `get_last_lr`,
            as torch's do. Neither is changed.
        train_dataset: what is trained on: rows, of which run.json has the number and a digest.
        autocast: the dtype under which the loop's forward passes run, if they run under `torch.autocast`; the model is
            then read in the same way.
        batch_size: rows of one optimizer step in this process, for run.json.
        seed: of the run, for run.json.
        start_step: optimizer steps already done, in a run that goes on from a checkpoint.
        checkpoint: what `saved` was given then; None: the newest run in `folder` is gone on with.
        report_to: trackers, by transformers' names: wandb, tensorboard, mlflow, trackio.
        executor, sinks, on_event: as of `TopologyCallback`.

    Raises:
        TopologyError: a probe, setting or model that cannot work.
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"the first argument is a {type(model).__name__}; accepted: the model, then the probe")
    _check_steps(total_steps, start_step)
    if checkpoint is not None and start_step == 0:
        raise ConfigurationError("checkpoint is of a run that goes on, and start_step is 0; give start_step too")
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ConfigurationError(f"autocast is {autocast!r}; accepted: torch.bfloat16, torch.float16, or None for none")
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    settings = LoopSettings(
        device,
        os.fspath(folder),
        report_to=report_to,
        **described_schedule(scheduler),
        seed=seed,
        per_device_train_batch_size=batch_size,
        fp16=autocast is torch.float16,
    )
    callback = _OfLoop(
        probe, config=config, processing_class=processing_class, executor=executor, sinks=sinks, on_event=on_event
    )

    def conditions() -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)

    watched = Watch(callback, model, settings, LoopProgress(total_steps, start_step), conditions, optimizer, scheduler)
    watched._begin(train_dataset, checkpoint)
    return watched


class _OfLoop(TopologyCallback):
    """The callback of a loop that tells its steps."""

    def _attach(self) -> Attached:
        return Attached(watch.__name__, loop=True)


class Watch:
    """A training loop that is being watched; made by `watch`. As a context manager it ends with its block.

    All methods are called on every process at the same steps, and raise nothing but KeyboardInterrupt and SystemExit.
    """

    def __init__(
        self,
        callback: TopologyCallback,
        model: nn.Module,
        settings: LoopSettings,
        progress: LoopProgress,
        conditions: _Conditions,
        optimizer: Any,
        scheduler: Any,
    ) -> None:
        self._callback = callback
        self._model: nn.Module | None = model
        self._settings, self._progress = settings, progress
        self._conditions = conditions
        self._optimizer, self._scheduler = optimizer, scheduler
        self._control = LoopControl()

    @property
    def folder(self) -> Path | None:
        """The trajectory folder, on the first process; None where nothing is watched."""
        return self._callback.folder

    @property
    def steps_done(self) -> int:
        """Optimizer steps of the run so far."""
        return self._progress.global_step

    @property
    def should_save(self) -> bool:
        """Whether an event asked for a checkpoint at the newest step; see the setting `actions`."""
        return self._control.should_save

    @property
    def should_stop(self) -> bool:
        """Whether an event has asked to stop; see the setting `actions`."""
        return self._control.should_training_stop

    def step(
        self,
        loss: SupportsFloat | None = None,
        *,
        lr: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        epoch: SupportsFloat | None = None,
    ) -> None:
        """An optimizer step is done. Call it at its end: after `optimizer.step()` and `scheduler.step()`, best before
        `zero_grad()`.

        A tensor of one number stays on its device and is read later: nothing is waited for on an ordinary step. What is
        no number is left out.

        Args:
            loss: of the step, of this process.
            lr: the learning rate of the step. None: that of the optimizer given to `watch`, as it was before the step.
            grad_norm: before clipping. None: estimated on the followed weights while there are gradients.
            epoch: passes over the data so far, with a fraction.
        """
        if self._model is None:
            return
        self._progress.global_step += 1
        self._progress.epoch = float(epoch) if isinstance(epoch, numbers.Real) and math.isfinite(epoch) else None
        self._control.should_save = False
        self._tell("_told", loss=loss, norm=grad_norm, rate=lr)
        self._tell("on_step_end", optimizer=self._optimizer)
        self._tell("_look_ahead", optimizer=self._optimizer, lr_scheduler=self._scheduler)

    def log(self, logs: Mapping[str, Any]) -> None:
        """Numbers that the loop logs at this step, by TRL's names: reward, kl, entropy, eval_loss and the like.

        They are recorded, drawn, and said beside a change; names that are not known are left out, and so are tensors,
        which would have to be waited for.
        """
        if isinstance(logs, Mapping):
            self._tell("on_log", logs=logs)
        else:
            logger.warning("log takes numbers by their names, and got a %s; it is left out", type(logs).__name__)

    def sample(self) -> None:
        """Read the model now, whatever it costs, unless it has been read at this step."""
        self._tell("_asked")

    def saved(self, checkpoint: str | Path) -> None:
        """A checkpoint has been saved: the model is sampled, and a small file in the folder, or beside the file, says
        which run it is of, so that a run which goes on from it finds its record."""
        if isinstance(checkpoint, (str, os.PathLike)):
            self._tell("on_save", checkpoint=Path(checkpoint))
        else:
            logger.warning("saved takes a file or folder, and got a %s", type(checkpoint).__name__)

    def finish(self) -> None:
        """Training is over: the last sample is taken and waited for, as long as `drain_seconds` says."""
        self._tell("on_train_end")
        self._model = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._tell("_broken_off")
            self._model = None

    def _begin(self, train_dataset: Any, checkpoint: str | Path | None) -> None:
        context: dict[str, Any] = {"lr_scheduler": self._scheduler, "checkpoint": checkpoint}
        if self._optimizer is not None:
            context["optimizer"] = self._optimizer
        if train_dataset is not None:
            context["train_dataloader"] = _Loader(train_dataset)
        self._tell("on_train_begin", **context)
        self._tell("_look_ahead", optimizer=self._optimizer, lr_scheduler=self._scheduler)

    def _tell(self, event: str, **context: Any) -> None:
        if self._model is None:
            return
        with self._conditions():
            getattr(self._callback, event)(self._settings, self._progress, self._control, model=self._model, **context)


class _Loader:
    """A data set in the place where the Trainer has its loader."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset


def _check_steps(total_steps: int, start_step: int) -> None:
    for name, value, least in (("total_steps", total_steps, 1), ("start_step", start_step, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(
                f"{name} is {value!r}; accepted: a whole number of optimizer steps, {least} or more"
            )
    if start_step > total_steps:
        raise ConfigurationError(
            f"start_step is {start_step}, beyond total_steps, {total_steps}; total_steps counts the whole run"
        )
