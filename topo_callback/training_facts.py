"""TrainingFacts: what is known of training itself at a sample: how far the weights went, the loss, the rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from topo_callback.weight_path import WeightPath

_LOGGED = ("loss", "grad_norm", "learning_rate")

logger = logging.getLogger("topo_callback")


class TrainingFacts:
    """Follows one run from step to step. Neither the model nor the scheduler is changed.

    Args:
        model: the model in training, as the trainer's events give it.
        scheduler: the learning-rate scheduler of the trainer, or None.
        seed: of the weights that are followed.
        before: facts of the last sample of a run that is resumed, whose sums are gone on with.
        log_history: what the trainer of such a run had logged, oldest first.
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: Any,
        *,
        seed: int,
        before: Mapping[str, Any] | None = None,
        log_history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        before = before or {}
        start = float(before.get("path_length", 0.0))
        self._path: WeightPath | None = WeightPath(model, seed=seed, start=start)
        self._scheduler = scheduler
        self._rate = self._current_rate()
        self._rates = float(before.get("learning_rate_sum", 0.0))
        self._logged: dict[str, float] = {}
        for logs in log_history:
            self.logged(logs)

    def step_ended(self) -> None:
        """An optimizer step is done."""
        if self._path is not None:
            try:
                self._path.step_ended()
            except Exception as error:  # noqa: BLE001 - weights that moved elsewhere: the path is missing, nothing more
                self._path = None
                logger.warning("the path of the weights is no longer followed: %s: %s", type(error).__name__, error)
        if self._rate is not None:
            self._rates += self._rate
            self._rate = self._current_rate()

    def logged(self, logs: Mapping[str, Any]) -> None:
        """The trainer has logged something; the newest loss, gradient norm and learning rate are kept."""
        for name in _LOGGED:
            value = _number(logs.get(name))
            if value is not None:
                self._logged[name] = value

    def now(self) -> dict[str, float]:
        """`path_length` and `learning_rate_sum` since step 0, and the newest logged `loss`, `grad_norm` and
        `learning_rate`; what is unknown or not finite is left out. Waits for the model's device."""
        facts = dict(self._logged)
        length = None if self._path is None else self._path.length()
        if length is not None and math.isfinite(length):
            facts["path_length"] = length
        if self._rate is not None:
            facts["learning_rate_sum"] = self._rates
        return facts

    def _current_rate(self) -> float | None:
        """The learning rate of the next step, of the first parameter group."""
        if self._scheduler is None:
            return None
        return _number(self._scheduler.get_last_lr()[0])


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
