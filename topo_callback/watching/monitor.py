"""Monitor: one training run, watched from one rank. It decides when to read the model and hands samples on.

What is done at a step where ranks meet is decided by the first rank and agreed on in one number, the same everywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import ElsewhereError, Ranks
from topo_callback.errors import described
from topo_callback.reader.reader import ReadingError
from topo_callback.records.logged_numbers import LoggedNumbers
from topo_callback.records.waiting import LEAST_SECONDS, Patience
from topo_callback.terminal import show_if_asked
from topo_callback.training_loop import TrainingControl, TrainingProgress, TrainingSettings
from topo_callback.watching.actions import SAVE, STOP
from topo_callback.watching.beginning import Beginning, Given, Start, Watched
from topo_callback.watching.harmless import NothingToWatchError, asked_for, guarded, unheard
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.resuming import mark_checkpoint
from topo_callback.watching.schedule import OverheadBudget, Schedule, announce_cost, announce_thinned
from topo_callback.watching.step_signals import StepSignals, one_number
from topo_callback.worker.early import end_early

_Facts = dict[str, Any]

SKIP, TAKE, END = 0, 1, 2  # what may be decided
_ACTIONS = 4  # combinations of what actions ask for

logger = logging.getLogger("topo_callback")


class Monitor:
    """One training run, from `begin` to `close`. The model is passed in anew each time and never kept.

    Every event of the trainer has one form, `_event`: what this rank does alone, guarded; then the one collective, if
    the schedule has one there, in which a rank that failed says so; then what all ranks do. So no rank ever waits for
    one that failed. Only `begin` may raise.

    Args:
        given: by the user, for this run and others.

    Attributes:
        folder: the trajectory's folder, on the first rank, once there is one.
        off: nothing is to be done any more.
        running: between `begin` and `close`.
        budget: the time spent on the training thread.
    """

    def __init__(self, given: Given) -> None:
        self.folder: Path | None = None
        self.off = False
        self.running = False
        self.budget = OverheadBudget(given.config.max_overhead)
        self._given, self._config = given, given.config
        self._ranks = Ranks()
        self._watched = Watched()
        self._logged = LoggedNumbers()
        self._last_sampled: int | None = None
        self._refused: int | None = None
        self._asked = 0
        self._broken = False
        self._warned_skip = False

    def begin(
        self,
        args: TrainingSettings,
        state: TrainingProgress,
        model: nn.Module,
        context: Mapping[str, Any],
        again: Path | None,
    ) -> None:
        """Set up on every rank, and take the sample of the step where training begins.

        Args:
            args, state, model, context: what the trainer's event gives.
            again: the folder of this run when the trainer starts it over with a smaller batch.

        Raises:
            TopologyError: a probe, setting or model that cannot work, on every rank.
        """
        self._ranks = Ranks.here(args.device)
        self.budget.begin()
        patience = Patience(max(self._config.drain_seconds, LEAST_SECONDS))
        start = Start(args, state, model, context, again)
        try:
            with asked_for(self._given.probe is not None or self._config != TopologyConfig()):
                self._watched = Beginning(self._given, self._ranks, patience, start).watched()
        except NothingToWatchError as error:
            self.off = True
            logger.warning("monitoring is off, training goes on: %s", error)
            return
        except BaseException:
            self.off = True
            raise
        finally:
            if self._watched.recorder is None:
                end_early()
        if self._watched.recorder is not None:
            self.folder = self._watched.recorder.folder.path
        self.running = True
        # a resumed run may have died between saving its checkpoint and sampling it
        saved = start.resumed and self._samples_at_saves
        self._event(model, state, sampled=saved or state.global_step in self._watched.meetings, must=True)
        with guarded(self.fail):
            if self._watched.recorder is not None:
                announce_cost(self.budget, self._watched.schedule, state.global_step)

    @property
    def signals(self) -> StepSignals | None:
        """What is to hear of every micro batch and optimizer step, if anything; no ranks meet there."""
        return None if self._broken else self._watched.signals

    def told(self, step: int, loss: Any, norm: Any, rate: Any, *, scaled: bool) -> None:
        """What a loop says of a step before it ends here; see `StepSignals.told`. No ranks meet here, and a device is
        waited for where the model may be read."""
        if self.signals is not None:
            self.signals.told(loss, norm, rate, scaled=scaled)
        if self._watched.training is not None and step in self._watched.meetings and not self._broken:
            if rate is None and self.signals is not None:
                rate = self.signals.rate
            said = {"loss": loss, "grad_norm": norm, "learning_rate": rate}
            found = {name: one_number(value) for name, value in said.items()}
            self._watched.training.logged({name: value for name, value in found.items() if value is not None})

    def step_ended(
        self, model: nn.Module, state: TrainingProgress, control: TrainingControl, optimizer: Any = None
    ) -> None:
        """An optimizer step is done; `control` is told when an event asks to save or to stop, on every rank."""

        def follow() -> None:
            self.poll()
            if self._watched.training is not None and not self._broken:
                self._watched.training.step_ended()
            if self.signals is not None:
                self.signals.step_ended(state.global_step, state.epoch, optimizer)

        self._event(model, state, follow, sampled=state.global_step in self._watched.meetings)
        asked, self._asked = self._asked, 0
        if asked & SAVE:
            control.should_save = True
        if asked & STOP:
            control.should_training_stop = True
            if self._watched.recorder is not None:
                self._watched.recorder.actions.stopped(state.global_step)

    def asked(self, model: nn.Module, state: TrainingProgress) -> None:
        """A sample is wanted now, whatever it costs. All ranks call this together."""
        self._event(model, state, sampled=True, must=True)

    def saved(self, model: nn.Module, checkpoint: Callable[[], Path], state: TrainingProgress) -> None:
        """A checkpoint has been saved, in the folder or file that `checkpoint` names."""
        self._event(model, state, lambda: self._mark(checkpoint(), state), sampled=self._samples_at_saves, must=False)

    def logged(self, step: int, logs: Mapping[str, Any]) -> None:
        """The trainer has logged something; no ranks meet here."""
        with guarded(self.fail):
            self.poll()
            if self._watched.recorder is not None and not self._broken:
                self._watched.recorder.put_logged(self._logged.take(step, logs))
            if self._watched.training is not None and not self._broken:
                self._watched.training.logged(logs)
            if self.signals is not None:
                self.signals.logged(logs)

    def ended(self, model: nn.Module, args: TrainingSettings, state: TrainingProgress) -> None:
        """Training has come to its end."""
        # with load_best_model_at_end the model is now the best one, not the one of the last step
        sampled = not args.load_best_model_at_end and self._config.steps is None
        self._event(model, state, sampled=sampled, must=True)
        with guarded(self.fail):
            if self._watched.recorder is not None:
                announce_thinned(self.budget)
        with guarded(self.fail):
            self.close(finished=not self._broken)

    def poll(self) -> None:
        """Forward what has finished."""
        if self._watched.recorder is not None and not self._broken:
            self._watched.recorder.poll()

    def close(self, *, finished: bool, drain_seconds: float | None = None, goes_on: bool = False) -> None:
        """End the recording; the arguments are those of `Recorder.close`."""
        recorder = self._watched.recorder
        if self.signals is not None:
            self.signals.read(ended=True)
        if recorder is not None:
            recorder.put_logged(self._logged.rest())
        self._watched = replace(self._watched, reader=None, recorder=None, training=None, signals=None)
        self.running = False
        if recorder is not None:
            recorder.close(finished=finished, drain_seconds=drain_seconds, goes_on=goes_on)

    def abandon(self, *, goes_on: bool = False) -> None:
        """Close at once what is open of a run that does not come to its end; what waits stays in the spool. Raises
        nothing but what is the user's."""
        with unheard():
            self.close(finished=False, drain_seconds=0.0, goes_on=goes_on)

    def fail(self, error: BaseException) -> None:
        """Something of ours raised: say it once, and be nothing from here on. Raises nothing but what is the user's.

        The other ranks hear of it at the next step where ranks meet, and until then this one meets them as before.
        """
        known, self._broken = self._broken, True
        alone = self._ranks.count == 1
        self.off = self.off or alone
        said = str(error) if isinstance(error, ElsewhereError) else described(error)
        with unheard():  # also what writes lines and logs may raise
            quietly = known or isinstance(error, ElsewhereError)
            logger.log(logging.DEBUG if quietly else logging.WARNING, "monitoring is off, training goes on: %s", said)
            show_if_asked(error)
        with unheard():
            if self._watched.recorder is not None and not known:
                self._watched.recorder.note("stopped", reason=said)
        if alone:
            self.abandon()

    def _mark(self, checkpoint: Path, state: TrainingProgress) -> None:
        """Say in the checkpoint just saved whose it is; one that cannot be written is resumed by the newest run."""
        if self.signals is not None:
            self.signals.read()  # a run that goes on from here has the steps up to here
        if self._watched.recorder is not None:
            self._watched.recorder.put_logged(self._logged.rest())
            self._watched.recorder.tell(mark_checkpoint, checkpoint, self._watched.recorder.folder, state.global_step)

    # sampling

    @property
    def _samples_at_saves(self) -> bool:
        return self._config.sample_on_save and self._config.steps is None

    def _event(
        self,
        model: nn.Module,
        state: TrainingProgress,
        alone: Callable[[], None] | None = None,
        *,
        sampled: bool,
        must: bool | None = None,
    ) -> None:
        """One event of the trainer, in the only form an event has.

        Args:
            alone: what this rank does by itself; it may raise anything.
            sampled: the step may be sampled; the same on every rank.
            must: the sample is taken whatever it costs; None: as the schedule says.
        """
        if alone is not None:
            with guarded(self.fail):
                alone()
        if sampled:
            self._sample(model, state, must=must)

    def _sample(self, model: nn.Module, state: TrainingProgress, *, must: bool | None) -> None:
        """Take one sample, once per step, if the first rank allows it. All ranks come here at the same steps.

        Whether there is a collective follows from what all ranks know; what it says, from a guarded wish.
        """
        step = state.global_step
        if not self.running or self._last_sampled == step or (self._refused == step and not must):
            return
        started = time.perf_counter()
        wish, facts = (END, 0), _Facts()
        with guarded(self.fail):
            wish, facts = self._wish(step, state, must)
        try:
            decision, asked = agree(self._ranks, *wish)
        except RuntimeError as error:  # a rank is lost: there is nobody to meet any more
            self.fail(error)
            self.off = True
            return
        self._asked |= asked
        if decision == END:
            self.off = True
            self.abandon()
        elif decision == SKIP:
            self._refused = step
        else:
            self._last_sampled = step
            with guarded(self.fail):
                self._take(model, step, facts)
                self.budget.sampled(time.perf_counter() - started)

    def _take(self, model: nn.Module, step: int, facts: _Facts) -> None:
        """Read the model, on all ranks together, and hand the sample on."""
        assert self._watched.reader is not None
        try:
            sample = self._watched.reader.read(model, step, facts)
        except ReadingError as error:
            self._skipped(step, error)
            return
        if sample is not None and self._watched.recorder is not None:
            self._watched.recorder.put(sample)

    def _facts(self, step: int, state: TrainingProgress) -> dict[str, Any]:
        """What is known beside the model at a sample."""
        facts: dict[str, Any] = {
            "epoch": state.epoch,
            "world_size": self._ranks.count,
            "overhead": self.budget.overhead(),
            "thinned_samples": self.budget.thinned,
            "pictures": step in self._watched.pictured,
            "progress": step / state.max_steps if state.max_steps > 0 else None,
        }
        if self.budget.last_cost > 0:
            facts["previous_sample_seconds"] = self.budget.last_cost
        if self._watched.training is not None:
            facts |= self._watched.training.now()
        return facts

    def _skipped(self, step: int, error: ReadingError) -> None:
        if self._watched.recorder is None:
            return
        self._watched.recorder.note("skipped", step=step, cause=str(error))
        if not self._warned_skip:
            self._warned_skip = True
            logger.warning(
                "step %d could not be read and is skipped: %s (later ones go to %s only)",
                step,
                error,
                self._watched.recorder.folder.journal_file,
            )

    def _wish(self, step: int, state: TrainingProgress, must: bool | None) -> tuple[tuple[int, int], _Facts]:
        """What this rank says to the others: the first one decides for all, any rank can end it, and what the first
        rank's actions ask for rides along. With it, what is known beside the model at a sample that is to be taken."""
        if self._broken:
            return (END, 0), {}
        if self._watched.recorder is None:
            return (SKIP, 0), {}
        decision = decide(self._watched.recorder, self._watched.schedule, self.budget, step, must)
        if decision == TAKE and self.signals is not None:
            self.signals.read()
        if decision == TAKE:
            self._watched.recorder.put_logged(self._logged.before(step))
        facts = self._facts(step, state) if decision == TAKE else {}
        return (decision, self._watched.recorder.actions.asked()), facts


def agree(ranks: Ranks, decision: int, asked: int) -> tuple[int, int]:
    """What holds for all ranks: the largest of their decisions, and what the actions of that rank ask for.

    All ranks call this together; it is the one collective of an event.
    """
    return divmod(ranks.worst(_ACTIONS * decision + asked), _ACTIONS)


def decide(recorder: Recorder, schedule: Schedule, budget: OverheadBudget, step: int, must: bool | None) -> int:
    """What the first rank decides.

    Args:
        must: the sample is taken whatever it costs; None: as the schedule says.
    """
    if recorder.stopped is not None:
        return END
    if recorder.has(step):
        return SKIP
    if schedule.never_thinned(step) if must is None else must:
        return TAKE
    if _adapted_away(recorder, schedule, step):
        return SKIP
    if budget.allows(schedule.least_from(step)):
        return TAKE
    recorder.note("thinned", step=step, cause=f"overhead {budget.overhead():.4f}")
    return SKIP


def _adapted_away(recorder: Recorder, schedule: Schedule, step: int) -> bool:
    """Whether an adaptive schedule leaves a step out: one in between unless the model moves fast, and every second
    regular one when it has settled."""
    if schedule.dense is None:
        return False
    if not schedule.is_fixed(step):
        return not recorder.pace.faster
    return recorder.actions.settled and not recorder.pace.faster and schedule.is_spare(step)
