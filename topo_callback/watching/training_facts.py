"""TrainingFacts: what is known of training itself at a sample: how far the weights went, the loss, the rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from topo_callback.errors import USERS_OWN, RecordError, described
from topo_callback.records.record import read_record, write_record
from topo_callback.records.waiting import LEAST_SECONDS, Patience
from topo_callback.watching.weight_path import WeightPath

_LOGGED = ("loss", "grad_norm", "learning_rate")
_UNREADABLE_START = "the run was resumed, and its weights of the start cannot be read"

logger = logging.getLogger("topo_callback")


class TrainingFacts:
    """Follows one run from step to step. Neither the model nor the scheduler is changed.

    Args:
        model: the model in training, as the trainer's events give it.
        scheduler: the learning-rate scheduler of the trainer, or None.
        seed: of the weights that are followed.
        before: facts of the last sample of a run that is resumed, whose sums are gone on with.
        log_history: what the trainer of such a run had logged, oldest first.
        blocks: dotted path of the block stack, for how far the weights of each layer are from the start.
        start_file: where the followed weights of the start are kept (at most 256 KB), so that a resumed run still knows
            them; None: such a run does not.
        resumed: the run goes on from a checkpoint, so the weights of now are not those of the start.
        patience: how long to wait for the disk with that file.
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: Any,
        *,
        seed: int,
        before: Mapping[str, Any] | None = None,
        log_history: Sequence[Mapping[str, Any]] = (),
        blocks: str | None = None,
        start_file: Path | None = None,
        resumed: bool = False,
        patience: Patience | None = None,
    ) -> None:
        before = before or {}
        start = _sum_of(before, "path_length")
        self._path: WeightPath | None = WeightPath(model, seed=seed, start=start, blocks=blocks)
        patience = patience or Patience(LEAST_SECONDS)
        self._no_start = patience.ask(_remember_start, self._path, start_file, resumed=resumed, known=bool(before))
        self._scheduler = scheduler
        self._rate = self._current_rate()
        self._rates = _sum_of(before, "learning_rate_sum")
        self._logged: dict[str, float] = {}
        for logs in log_history:
            self.logged(logs)

    def step_ended(self) -> None:
        """An optimizer step is done."""
        if self._path is not None:
            try:
                self._path.step_ended()
            except USERS_OWN:
                raise
            except BaseException as error:  # noqa: BLE001 - weights that moved elsewhere: no path, nothing more
                self._path = None
                logger.warning("the path of the weights is no longer followed: %s", described(error))
        if self._rate is not None:
            self._rates += self._rate
            self._rate = self._current_rate()

    @property
    def moved(self) -> Tensor | None:
        """Length of the newest step of the trained weights, on their device; None where they are not followed."""
        return None if self._path is None else self._path.moved

    def gradient_norm(self) -> Tensor | None:
        """The norm of the gradients there are now, estimated on the weights that are followed, on their device."""
        return None if self._path is None else self._path.gradient_norm()

    def logged(self, logs: Mapping[str, Any]) -> None:
        """The trainer has logged something; the newest loss, gradient norm and learning rate are kept.

        One that is not finite takes the place of an older one as well: then there is none.
        """
        for name in _LOGGED:
            if name in logs:
                value = _number(logs[name])
                self._logged.pop(name, None)
                if value is not None:
                    self._logged[name] = value

    def now(self) -> dict[str, Any]:
        """`path_length` and `learning_rate_sum` since step 0, and the newest logged `loss`, `grad_norm` and
        `learning_rate`; what is unknown or not finite is left out. Waits for the model's device.

        `parameter_change` and `parameter_change_relative` are mappings from a layer's number, in text, to how far its
        trained weights are from the start; `parameter_change_missing` says why there are none.
        """
        facts: dict[str, Any] = dict(self._logged)
        length = None if self._path is None else self._path.length()
        if length is not None and math.isfinite(length):
            facts["path_length"] = length
        facts |= self._layer_changes()
        if self._rate is not None and math.isfinite(self._rates):
            facts["learning_rate_sum"] = self._rates
        return facts

    def _layer_changes(self) -> dict[str, Any]:
        changes = None if self._path is None else self._path.layer_changes()
        if changes is None:
            reason = "the weights are no longer followed" if self._path is None else self._no_start
            return {"parameter_change_missing": reason or "no trained weights in known blocks are followed"}
        numbers = {
            "parameter_change": {str(layer): change for layer, (change, _) in changes.items()},
            "parameter_change_relative": {str(layer): relative for layer, (_, relative) in changes.items()},
        }
        return {
            name: {layer: value for layer, value in by_layer.items() if math.isfinite(value)}
            for name, by_layer in numbers.items()
        }

    def _current_rate(self) -> float | None:
        """The learning rate of the next step, of the first parameter group."""
        if self._scheduler is None:
            return None
        try:
            return _number(self._scheduler.get_last_lr()[0])
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - a scheduler of the user's: the sum is missing, nothing more
            self._scheduler = None
            logger.warning("the learning rates are no longer followed: %s", described(error))
            return None


def _remember_start(path: WeightPath, start_file: Path | None, *, resumed: bool, known: bool) -> str:
    """Let a path know the weights of the start; returns why it does not, or nothing.

    Args:
        resumed: the weights of now may not be those of the start.
        known: there are samples of the run from before.
    """
    if path.first is None:
        return ""
    kept = start_file is not None and start_file.exists()
    if resumed and (known or kept):
        path.first, reason = _kept_start(start_file, path.choice, path.first.shape)
        return reason
    if start_file is not None:
        try:
            write_record(start_file, {"entries": path.first}, {"kind": "start of the weights", "choice": path.choice})
        except (OSError, RecordError) as error:
            logger.debug("the weights of the start are not kept for a resumed run: %s", described(error))
    return ""


def _kept_start(start_file: Path | None, choice: str, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str]:
    """The followed weights of the start of a run that is resumed, or why there are none."""
    if start_file is None or not start_file.exists():
        return None, "the run was resumed, and its weights of the start were not kept"
    try:
        arrays, manifest = read_record(start_file)
        first, kept_choice = arrays["entries"], manifest["choice"]
    except (OSError, RecordError, LookupError):
        return None, _UNREADABLE_START
    if first.dtype != np.float32 or (kept_choice == choice and first.shape != shape):
        return None, _UNREADABLE_START
    if kept_choice != choice:
        return None, "the run was resumed, and follows other weights than before"
    return first, ""


def _sum_of(before: Mapping[str, Any], name: str) -> float:
    """A sum to go on with: 0 where there was none, and NaN, which is never recorded, where it is damaged."""
    value = _number(before.get(name, 0.0))
    return math.nan if value is None or value < 0 else value


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one of tensors
        return None
    return number if math.isfinite(number) else None
