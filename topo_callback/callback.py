"""TopologyCallback: the trainer's events, handed on; what is done with them is the monitor's."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import USERS_OWN, ConfigurationError, TopologyError
from topo_callback.probe import Probe, check_rows
from topo_callback.settings import is_disabled
from topo_callback.sinks.protocol import Sink
from topo_callback.watching.actions import EventFunction
from topo_callback.watching.attached import Attached
from topo_callback.watching.beginning import Given, checkpoint_folder
from topo_callback.watching.monitor import Monitor
from topo_callback.worker import early

logger = logging.getLogger("topo_callback")


def _harmless(event: Callable[..., None]) -> Callable[..., None]:
    """Keep all that an event raises away from the trainer: one warning, and the callback is off.

    Only setting up may raise: a TopologyError before the first training step is the user's to see. What is raised to
    end the process passes through. All else does not, panics of Rust libraries and cancelled tasks included.
    """

    @functools.wraps(event)
    def guarded(self: TopologyCallback, args: Any, state: Any, control: Any, **context: Any) -> None:
        beginning = event.__name__ == "on_train_begin"
        if not beginning and (self._disabled or self._monitor.off):
            return
        started = time.perf_counter()
        try:
            event(self, args, state, control, **context)
        except USERS_OWN:
            raise
        except BaseException as error:  # nothing of ours reaches the trainer
            if beginning and isinstance(error, TopologyError):
                raise
            self._monitor.fail(error)
        self._monitor.budget.spend(time.perf_counter() - started)

    return guarded


class TopologyCallback(TrainerCallback):
    """Watches a fine-tuning run: add it to `callbacks=[...]` of any transformers or TRL trainer.

    On a schedule it reads the activations of a fixed probe, and a worker process turns them into a trajectory on disk
    and in the trackers of the run. That process is started here, so that it is ready when model and data are. Training
    is not disturbed, and nothing that goes wrong here stops it: after `on_train_begin` nothing leaves the callback but
    a KeyboardInterrupt or SystemExit. `TOPO_DISABLED=1` in the environment disables it, on all ranks when it is set on
    one.

    Args:
        probe: a Probe, a list of texts, or dataset rows in any format that TRL accepts, whose column `group` may name
            the group of a row; or a mapping from the names of groups to such lists. None: a seeded sample of the
            evaluation data, or else of the training data.
        config: every setting; the defaults suit a 7B model.
        processing_class: the tokenizer for texts and rows. None: the trainer's own.
        executor: None for the built-in worker. Any `concurrent.futures.Executor` will do instead, but then nothing
            limits its memory, a task that hangs is given up rather than killed, a broken executor is not restarted,
            and pending work is lost from view when the trainer is killed.
        sinks: where numbers go beside the disk. None: the trackers in the trainer's `report_to`, as far as there is a
            sink for them, and a line per sample on the terminal.
        on_event: called on the training thread of the first rank with each `topo_callback.dynamics.Event` when it is
            first known; one that raises is warned about.

    Raises:
        TopologyError: here, or in `on_train_begin` before the first step: a probe, setting or model that cannot work.
    """

    def __init__(
        self,
        probe: Probe | Sequence[Any] | Mapping[Any, Any] | None = None,
        *,
        config: TopologyConfig | None = None,
        processing_class: Any = None,
        executor: Executor | None = None,
        sinks: Sequence[Sink] | None = None,
        on_event: EventFunction | Sequence[EventFunction] = (),
    ) -> None:
        if isinstance(probe, TopologyConfig):
            raise ConfigurationError("the first argument is the probe; give settings as TopologyCallback(config=...)")
        if config is not None and not isinstance(config, TopologyConfig):
            raise ConfigurationError(
                f"config is a {type(config).__name__}; accepted: a TopologyConfig, such as TopologyConfig(layers='all')"
            )
        functions = (on_event,) if callable(on_event) else on_event
        if not isinstance(functions, Sequence) or not all(map(callable, functions)):
            raise ConfigurationError(
                f"on_event is a {type(on_event).__name__}; accepted: a function of an Event, or a list of them"
            )
        self.config = config or TopologyConfig()
        self._given = probe
        self._processing_class = processing_class
        self._executor = executor
        self._sinks = sinks
        self._on_event = tuple(functions)
        self._disabled = is_disabled()
        self._monitor = self._new_monitor()
        if not self._disabled:
            self.config.check_installed()
        if isinstance(probe, Probe):
            self.config.check_points(len(probe))
        elif probe is not None:
            check_rows(probe)
        self._attached = self._attach()  # here, where the callback can be had
        if self._disabled:
            self._attached.dismiss()
        if executor is None and not self._disabled:
            early.start_early(self, self.config)

    @property
    def folder(self) -> Path | None:
        """The trajectory folder of the newest run, on the first rank; None before it begins."""
        return self._monitor.folder

    @_harmless
    def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._attached.dismiss()
        again = self.folder if self._monitor.running and getattr(args, "auto_find_batch_size", False) else None
        self._monitor.abandon(goes_on=again is not None)
        self._monitor = self._new_monitor()
        if _disabled_together(Ranks.here(args.device), self._disabled):
            self._monitor.off = True
            early.end_early()
            return
        self._monitor.begin(args, state, context["model"], context, again)
        if self._monitor.running:
            self._attached.begin(state)

    @_harmless
    def on_substep_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if self._monitor.signals is not None:
            self._monitor.signals.batch_ended()

    @_harmless
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if self._monitor.signals is not None:
            self._monitor.signals.before_optimizer_step(args, context.get("optimizer"), context.get("lr_scheduler"))

    @_harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._attached.stepped = True
        self._monitor.step_ended(context["model"], state, control, context.get("optimizer"))

    @_harmless
    def on_save(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        def checkpoint() -> Path:  # called by the monitor: what raises here on one rank would let the others wait
            return Path(context.get("checkpoint") or checkpoint_folder(args, state))

        self._monitor.saved(context["model"], checkpoint, state)

    @_harmless
    def on_log(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._monitor.logged(state.global_step, context.get("logs") or {})

    @_harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._monitor.ended(context["model"], args, state)

    # for loops that are not transformers': what their author tells, and asks for

    @_harmless
    def _told(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """The loss, gradient norm and learning rate of a step, before `on_step_end`; each may be None."""
        scaled = bool(getattr(args, "fp16", False))
        self._monitor.told(state.global_step, context["loss"], context["norm"], context["rate"], scaled=scaled)

    @_harmless
    def _look_ahead(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """Optimizer and scheduler are ready for the next step."""
        if self._monitor.signals is not None:
            self._monitor.signals.look_ahead(context.get("optimizer"), context.get("lr_scheduler"))

    @_harmless
    def _asked(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """A sample is asked for, on every rank."""
        self._monitor.asked(context["model"], state)

    @_harmless
    def _broken_off(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        """Training has ended before its end; what is measured by now is kept, the rest waits for `finish`."""
        self._attached.dismiss()
        self._monitor.abandon()

    def _take_place_of(self, other: TopologyCallback) -> None:
        """Be the one of the two that is called: nothing is said of the other when the process ends."""
        other._attached.dismiss()

    def _attach(self) -> Attached:
        return Attached(type(self).__name__)

    def _new_monitor(self) -> Monitor:
        given = Given(self.config, self._given, self._processing_class, self._executor, self._sinks, self._on_event)
        return Monitor(given)


def _disabled_together(ranks: Ranks, here: bool) -> bool:
    """Whether some rank is disabled; the others would wait for it in vain. All ranks call this together."""
    disabled = [bool(said) for said in ranks.texts("disabled" if here else "")]
    if any(disabled) and not here and disabled.index(False) == ranks.rank:
        logger.warning(
            "monitoring is off: TOPO_DISABLED is set on rank %d and not on rank %d; set it on every rank or on none",
            disabled.index(True),
            ranks.rank,
        )
    return any(disabled)
