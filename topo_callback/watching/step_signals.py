"""StepSignals: what training itself says at every optimizer step, without waiting for its device.

The loss of each micro batch and the gradient norm before clipping come from the training loop that is calling, the
learning rates from optimizer and scheduler, the length of the step from the path of the weights. transformers hands
callbacks neither of the first two: both are local variables of the training loop, `tr_loss_step` and `grad_norm`, in
every version from 4.55 on, and are read in the frame that is calling. No frame is kept, and nothing of frame, model,
trainer, optimizer or scheduler is changed.
"""

from __future__ import annotations

import functools
import logging
import math
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor

from topo_callback.errors import USERS_OWN, described
from topo_callback.records.training_steps import COLUMNS, Row
from topo_callback.terminal import show_if_asked
from topo_callback.training_loop import TrainingSettings
from topo_callback.watching.harmless import unheard
from topo_callback.watching.late_reading import LateReading, Value, Values
from topo_callback.watching.training_facts import TrainingFacts

_LOSS_LOCAL, _NORM_LOCAL = "tr_loss_step", "grad_norm"
_DEEPEST = 40  # frames between the loop and a callback: some ten, and twice as many where calls are checked


class LoopLocals:
    """Finds the training loop among the callers, once, and reads there from then on.

    Attributes:
        absent: there is no such loop among them.
    """

    def __init__(self) -> None:
        self.absent = False
        self._code: CodeType | None = None
        self._depth = 1  # of the loop's frame when it was found, which is where it is looked for first

    def read(self) -> tuple[Any, Any]:
        """The loss of the newest micro batch, and the gradient norm of the newest step before it was clipped.

        None for each that the loop does not have, or not yet.
        """
        if self.absent:
            return None, None
        try:
            frame = sys._getframe(self._depth)
        except ValueError:
            frame = None
        if frame is None or frame.f_code is not self._code:
            frame = self._search()
        return (None, None) if frame is None else _values(frame)

    def _search(self) -> FrameType | None:
        """The frame of the loop among the callers of `read`."""
        frame = sys._getframe(1)
        for depth in range(_DEEPEST):
            if frame.f_code is self._code or (self._code is None and _is_loop(frame.f_code)):
                self._code, self._depth = frame.f_code, depth
                return frame
            if frame.f_back is None:
                break
            frame = frame.f_back
        self.absent = self._code is None
        return None


def _is_loop(code: CodeType) -> bool:
    return _LOSS_LOCAL in code.co_varnames or _LOSS_LOCAL in code.co_cellvars


def _values(frame: FrameType) -> tuple[Any, Any]:
    held = frame.f_locals
    found = held.get(_LOSS_LOCAL), held.get(_NORM_LOCAL)
    if sys.version_info < (3, 13):
        # a copy that stays with the frame, and with it a whole batch: let go of it
        held.clear()
    return found


_LOSS, _NORM, _MOVED = (COLUMNS.index(name) for name in ("loss", "grad_norm", "moved"))
_LOGGED_LOSS = "this training loop does not show it; the logged one where every step is logged"
_FOLLOWED_NORM = "this training loop does not show it; that of the followed weights, after clipping"
_SHARD_NORM = "estimated from the shards of the first process"
_UNKNOWN_NORM = "it cannot be had in this training loop"
_ZEROED = "the gradients were zeroed before the step was told; give grad_norm, or zero them afterwards"

_NO_RATES: tuple[Value, Value, Value, Value] = (None, None, None, None)

logger = logging.getLogger("topo_callback")


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Do nothing once one has failed; the first failure is said. As `guarded`, and quicker, at every step."""

    @functools.wraps(method)
    def harmless(self: StepSignals, *arguments: Any, **options: Any) -> None:
        if self._off:
            return
        try:
            method(self, *arguments, **options)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - the other signals and all else go on
            self._fail(error)

    return harmless


class StepSignals:
    """Collects one row of `records.training_steps.COLUMNS` for each optimizer step, on the first rank.

    No method raises: what goes wrong here is said once, and ends these rows only.

    Args:
        training: the path of the weights, whose step is over before `step_ended` is called.
        hand_on: takes rows that are complete, oldest first.
        note: writes a line to the journal.
    """

    def __init__(
        self, training: TrainingFacts, hand_on: Callable[[Sequence[Row]], None], note: Callable[..., None]
    ) -> None:
        self._training = training
        self._hand_on = hand_on
        self._note = note
        self._loop = LoopLocals()
        self._late = LateReading()
        self._loss: Value = None  # of the micro batches since the last step
        self._norm: Value = None
        self._exact_norm = False  # the loop has shown one
        self._rates = _NO_RATES
        self._ahead = _NO_RATES  # of the next step, in a loop that tells its numbers
        self._said: set[str] = set()
        self._step = -1
        self._logged_at = -1
        self._off = False

    @_harmless
    def batch_ended(self) -> None:
        """A micro batch is done that no optimizer step follows."""
        self._add_loss(self._loop.read()[0])

    @_harmless
    def before_optimizer_step(self, args: TrainingSettings, optimizer: Any, scheduler: Any) -> None:
        """The gradients of a step are complete, and have been clipped.

        Args:
            args: of the trainer.
            optimizer, scheduler: of the trainer, each possibly None.
        """
        loss, norm = self._loop.read()
        self._add_loss(loss)
        self._norm = self._known_norm(norm, scaled=bool(getattr(args, "fp16", False)))
        self._rates = self._current(optimizer, scheduler)

    @_harmless
    def told(self, loss: Any, norm: Any, rate: Any, *, scaled: bool) -> None:
        """A loop that is not transformers' says what it knows of the step that has just been done.

        Args:
            loss, norm, rate: of that step, each a number, a tensor of one, or None.
            scaled: the gradients may still be multiplied by the scale of the loss.
        """
        self._add_loss(loss)
        self._norm = self._known_norm(norm, scaled=scaled)
        value = one_number(rate)
        self._rates = self._ahead if value is None else (value, value, *self._ahead[2:])

    @property
    def rate(self) -> Value:
        """The learning rate of the step told last, of the first parameter group; None where it is not known."""
        return self._rates[0]

    @_harmless
    def look_ahead(self, optimizer: Any, scheduler: Any) -> None:
        """Remember the rates of the next step, for a loop whose optimizer has gone on when it tells its numbers."""
        self._ahead = self._current(optimizer, scheduler)

    @_harmless
    def step_ended(self, step: int, epoch: float | None, optimizer: Any) -> None:
        """An optimizer step is done, and the path of the weights has heard of it."""
        self._pass_on(self._late.ready())
        if self._step < 0:
            self._logged_at = step - 1  # what is logged first is a mean over all steps from here on
        if self._loss is None:
            self._say("loss", step, _LOGGED_LOSS)
        if self._norm is None:
            self._say("grad_norm", step, _UNKNOWN_NORM)
        skipped = getattr(optimizer, "step_was_skipped", None)
        left_out = float(skipped) if isinstance(skipped, bool) else None
        self._late.give((float(step), self._loss, self._norm, self._training.moved, *self._rates, left_out, epoch))
        self._step = step
        self._loss = self._norm = None
        self._rates = _NO_RATES

    @_harmless
    def logged(self, logs: Mapping[str, Any]) -> None:
        """The trainer has logged something: the loss of a step that has none, where the step before was logged too."""
        if "loss" not in logs:
            return
        value = one_number(logs["loss"])
        if value is not None and "loss" in self._said and self._logged_at == self._step - 1:
            self._late.complete(_LOSS, float(value))
        self._logged_at = self._step

    @_harmless
    def read(self, *, ended: bool = False) -> None:
        """Hand on every row there is, but for one whose loss may still be logged. Waits for the device.

        Args:
            ended: nothing is logged any more.
        """
        expected = "loss" in self._said and self._logged_at == self._step - 1
        self._pass_on(self._late.all(but_newest=expected and not ended))

    def _pass_on(self, rows: Sequence[Values]) -> None:
        for row in rows:
            # gradients that are zeroed in place are still there, and no norm of them is 0 where the weights moved
            if not self._exact_norm and row[_NORM] == 0 and row[_MOVED]:
                row[_NORM] = None
                self._say("zeroed", self._step + 1, _ZEROED)
        if rows:
            self._hand_on(rows)

    def _add_loss(self, loss: Any) -> None:
        value = one_number(loss)
        if value is not None:
            self._loss = value if self._loss is None else self._loss + value

    def _known_norm(self, norm: Any, *, scaled: bool) -> Value:
        """The gradient norm of the loop, or the best that can be had in its place.

        Args:
            scaled: the gradients may still be multiplied by the scale of the loss.
        """
        value = one_number(norm)
        if value is None and norm is not None:
            value = _norm_of_shards(norm)
            if value is not None:
                self._say("grad_norm", self._step + 1, _SHARD_NORM)
        if value is not None:
            self._exact_norm = True
        elif not self._exact_norm and not scaled:
            value = self._training.gradient_norm()
            if value is not None:
                self._say("grad_norm", self._step + 1, _FOLLOWED_NORM)
        return value

    def _current(self, optimizer: Any, scheduler: Any) -> tuple[Value, Value, Value, Value]:
        groups = getattr(optimizer, "param_groups", None) or ()
        return (*_first_and_largest([group.get("lr") for group in groups]), *self._planned(scheduler))

    def _planned(self, scheduler: Any) -> tuple[Value, Value]:
        """The rate that the schedule alone asks for: of the first parameter group, and the largest."""
        if scheduler is None:
            return None, None
        try:
            return _first_and_largest(scheduler.get_last_lr())
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - a scheduler of the user's: the column is empty, nothing more
            self._say("planned", self._step + 1, described(error))
            return None, None

    def _say(self, name: str, step: int, said: str) -> None:
        """A column is empty, or not what it should be: a line of the journal, once."""
        if name not in self._said:
            self._said.add(name)
            self._note("signal", name=name, step=step, said=said)

    def _fail(self, error: BaseException) -> None:
        self._off = True
        with unheard():
            logger.warning("what training says at each step is no longer recorded: %s", described(error))
            show_if_asked(error)
            self._note("signals_stopped", step=self._step, cause=described(error))


def one_number(value: Any) -> Value:
    """A real number as it is, or a tensor of one that this process can read alone; else None."""
    if isinstance(value, Tensor):
        placements = getattr(value, "placements", None)  # of a DTensor
        if placements is not None:
            if not all(each.is_replicate() for each in placements):
                return None
            value = value.to_local()  # type: ignore[attr-defined]
        return value.detach() if value.numel() == 1 and not value.is_complex() and not value.is_meta else None
    if not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number beyond any
        return None


def _norm_of_shards(norm: Any) -> Value:
    """The norm over all shards, estimated from those of this process: adding them up takes all processes."""
    placements = getattr(norm, "placements", ())
    if not placements or not all(each.is_partial() or each.is_replicate() for each in placements):
        return None
    share = math.prod(norm.device_mesh.size(dim) for dim, each in enumerate(placements) if each.is_partial())
    local = one_number(norm.to_local())
    return None if local is None else local * math.sqrt(share)


def _first_and_largest(rates: Sequence[Any]) -> tuple[Value, Value]:
    """Of the learning rates of all parameter groups. Those on a device are copied there: schedulers write into them."""
    rates = [rate for rate in rates if rate is not None]  # Adafactor finds its own
    if not rates:
        return None, None
    if all(isinstance(rate, Tensor) for rate in rates):
        copies = torch.stack([rate.detach().reshape(()) for rate in rates])
        return copies[0], copies.max()
    return float(rates[0]), float(max(rates))
