"""Monitor: one training run, watched from one rank. It decides when to read the model and hands samples on."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from torch import nn

from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.distributed.together import ElsewhereError, do_together
from topo_callback.errors import ConfigurationError
from topo_callback.probe import Probe
from topo_callback.sinks import default_sinks
from topo_callback.sinks.protocol import Sink
from topo_callback.spacing import evenly_spaced
from topo_callback.terminal import say
from topo_callback.watching.actions import SAVE, STOP, EventFunction
from topo_callback.watching.budget import OverheadBudget
from topo_callback.watching.kept_prompts import keep_prompts
from topo_callback.watching.reader import Reader, ReadingError
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.resuming import last_facts, mark_checkpoint, open_folder, recorded_batch_size
from topo_callback.watching.run_description import describe_run
from topo_callback.watching.run_probe import run_probe
from topo_callback.watching.schedule import Schedule
from topo_callback.watching.training_facts import TrainingFacts
from topo_callback.watching.unasked import NothingToWatchError, asked_for
from topo_callback.worker.executor import default_threads
from topo_callback.worker.findings import check_references

_SKIP, _TAKE, _END = 0, 1, 2  # what is done at a scheduled step
_ACTIONS = 4  # combinations of what actions ask for

logger = logging.getLogger("topo_callback")


class Monitor:
    """One training run, from `begin` to `close`. The model is passed in anew each time and never kept.

    `begin` may raise; what the other methods raise is for `fail`.

    Attributes:
        folder: the trajectory's folder, on the first rank, once there is one.
        off: nothing is to be done any more.
        running: between `begin` and `close`.
        budget: the time spent on the training thread.
    """

    def __init__(
        self,
        config: TopologyConfig,
        given: Probe | Sequence[Any] | None,
        *,
        processing_class: Any,
        executor: Executor | None,
        sinks: Sequence[Sink] | None,
        on_event: Sequence[EventFunction] = (),
    ) -> None:
        self.folder: Path | None = None
        self.off = False
        self.running = False
        self.budget = OverheadBudget(config.max_overhead)
        self._config = config
        self._given = given
        self._processing_class = processing_class
        self._executor = executor
        self._sinks = sinks
        self._on_event = on_event
        self._ranks = Ranks()
        self._schedule = Schedule(0, 1)
        self._probe: Probe | None = None
        self._reader: Reader | None = None
        self._recorder: Recorder | None = None
        self._training: TrainingFacts | None = None
        self._pictured: frozenset[int] = frozenset()
        self._last_sampled: int | None = None
        self._refused: int | None = None
        self._asked = 0
        self._broken = False
        self._warned_skip = False

    def begin(self, args: Any, state: Any, model: nn.Module, context: Mapping[str, Any], again: Path | None) -> None:
        """Set up on every rank, and take the sample of the step where training begins.

        Args:
            args, state, model, context: what the trainer's event gives.
            again: the folder of this run when the trainer starts it over with a smaller batch.

        Raises:
            TopologyError: a probe, setting or model that cannot work, on every rank.
        """
        self._ranks = Ranks.here(args.device)
        self.budget.begin()
        try:
            with asked_for(self._given is not None or self._config != TopologyConfig()):
                do_together(self._ranks, lambda: self._prepare(args, state, model, context))
                assert self._reader is not None
                do_together(self._ranks, self._reader.agree)
                do_together(self._ranks, lambda: self._open(args, state, model, context, again))
        except NothingToWatchError as error:
            self.close(finished=False)
            self.off = True
            logger.warning("monitoring is off, training goes on: %s", error)
            return
        except Exception:
            self.close(finished=False)
            self.off = True
            raise
        self.running = True
        # a resumed run may have died between saving its checkpoint and sampling it
        saved = state.global_step > 0 and self._samples_at_saves
        if saved or state.global_step in self._schedule:
            self._sample(model, state, must=True)
        self._announce_cost(state.global_step)

    def step_ended(self, model: nn.Module, state: Any, control: Any) -> None:
        """An optimizer step is done; `control` is told when an event asks to save or to stop, on every rank."""
        self.poll()
        if self._training is not None and not self._broken:
            self._training.step_ended()
        if state.global_step in self._schedule:
            self._sample(model, state, must=self._schedule.never_thinned(state.global_step))
        asked, self._asked = self._asked, 0
        if asked & SAVE:
            control.should_save = True
        if asked & STOP:
            control.should_training_stop = True

    def saved(self, model: nn.Module, args: Any, state: Any) -> None:
        """A checkpoint has been saved."""
        self._mark(args, state)
        if self._samples_at_saves:
            self._sample(model, state, must=False)

    def logged(self, logs: Mapping[str, Any]) -> None:
        """The trainer has logged something."""
        self.poll()
        if self._training is not None:
            self._training.logged(logs)

    def ended(self, model: nn.Module, args: Any, state: Any) -> None:
        """Training has come to its end."""
        try:
            # with load_best_model_at_end the model is now the best one, not the one of the last step
            if not args.load_best_model_at_end and self._config.steps is None:
                self._sample(model, state, must=True)
        except Exception:  # noqa: BLE001 - the run has come to its end all the same
            self.fail()
        if self._recorder is not None and self.budget.thinned:
            left_out = (
                f"{self.budget.thinned} planned samples were" if self.budget.thinned > 1 else "a planned sample was"
            )
            say(f"{left_out} left out to stay below max_overhead={self._config.max_overhead:g} of the run")
        self.close(finished=True)

    def poll(self) -> None:
        """Forward what has finished. Raises no Exception, because a sample that all ranks take may follow."""
        if self._recorder is None or self._broken:
            return
        try:
            self._recorder.poll()
        except Exception:  # noqa: BLE001 - known to all ranks at the next sample
            self.fail()

    def close(self, *, finished: bool, drain_seconds: float | None = None, goes_on: bool = False) -> None:
        """End the recording; the arguments are those of `Recorder.close`."""
        recorder, self._recorder, self._reader, self._training = self._recorder, None, None, None
        self.running = False
        if recorder is not None:
            recorder.close(finished=finished, drain_seconds=drain_seconds, goes_on=goes_on)

    def fail(self) -> None:
        """Something of ours raised: say it once, and be nothing from here on."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, ElsewhereError) else logging.WARNING
        logger.log(level, "monitoring is off, training goes on: %s: %s", type(error).__name__, error, exc_info=True)
        if self._recorder is not None:
            self._recorder.note("stopped", reason=f"{type(error).__name__}: {error}")
        if self._ranks.count == 1:
            self.off = True
            self.close(finished=False, drain_seconds=0.0)  # what waits stays in the spool: training goes on now
        else:
            self._broken = True  # told to the other ranks at the next scheduled sample

    # setting up

    def _prepare(self, args: Any, state: Any, model: nn.Module, context: Mapping[str, Any]) -> None:
        """Everything that needs neither other ranks nor the disk."""
        self._probe, cut = run_probe(
            self._given,
            self._config,
            self._processing_class or context.get("processing_class"),
            args,
            model,
            getattr(context.get("train_dataloader"), "dataset", None),
        )
        if cut and self._ranks.first:
            say(cut)
        self._schedule = Schedule.of(state.max_steps, self._config)
        planned = self._schedule.planned()
        if not planned:
            raise ConfigurationError(
                f"steps={list(self._config.steps or ())} has no step of this run, which has {state.max_steps}; give "
                "some of them, or None for the default schedule"
            )
        self._pictured = frozenset(planned[i] for i in evenly_spaced(len(planned), self._config.pictures))
        # a resumed run keeps its batches: another shape would round differently
        recorded = recorded_batch_size(self._root(args), _checkpoint(args, state)) if state.global_step > 0 else None
        self._reader = Reader(model, self._probe, self._config, self._ranks, recorded)

    def _open(self, args: Any, state: Any, model: nn.Module, context: Mapping[str, Any], again: Path | None) -> None:
        """Open the folder, the worker and the sinks, on the first rank."""
        if not self._ranks.first or self._reader is None or self._probe is None:
            return
        run = describe_run(self._config, self._probe, self._reader, model, args, state, self._ranks.count)
        if self._config.references is not None:
            check_references(self._config.references, run)
        folder = open_folder(self._root(args), run, state.global_step, checkpoint=_checkpoint(args, state), again=again)
        self.folder = folder.path
        say(
            f"{len(self._probe)} prompts ({self._probe.source}), {len(self._reader.layers)} of {self._reader.depth} "
            f"layers, record in {folder.path}"
        )
        if run["model"]["blocks_choice"]:
            say(run["model"]["blocks_choice"])
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.count))
        threads = self._config.threads or default_threads(ranks_here, args.dataloader_num_workers)
        sinks = self._sinks if self._sinks is not None else default_sinks(args.report_to)
        self._training = TrainingFacts(
            model,
            context.get("lr_scheduler"),
            seed=self._config.seed,
            before=last_facts(folder),
            log_history=state.log_history,
            blocks=self._reader.stack_path,
            start_file=folder.start_weights,
            resumed=state.global_step > 0,
        )
        self._recorder = Recorder(folder, self._config, sinks, self._executor, threads=threads, on_event=self._on_event)
        self._recorder.start()
        keep_prompts(folder, self._probe if self._config.keep_prompts else None, args)

    def _root(self, args: Any) -> Path:
        return Path(self._config.folder or Path(args.output_dir) / "topology")

    @property
    def _samples_at_saves(self) -> bool:
        return self._config.sample_on_save and self._config.steps is None

    def _mark(self, args: Any, state: Any) -> None:
        """Say in the checkpoint just saved whose it is; one that cannot be written is resumed by the newest run."""
        checkpoint = _checkpoint(args, state)
        if self._recorder is not None and checkpoint.is_dir():
            self._recorder.note("saved", step=state.global_step)
            with contextlib.suppress(OSError):
                mark_checkpoint(checkpoint, self._recorder.folder.path)

    # sampling

    def _sample(self, model: nn.Module, state: Any, *, must: bool) -> None:
        """Take one sample, once per step, if the first rank allows it. All ranks come here at the same steps."""
        step = state.global_step
        if self._reader is None or self._last_sampled == step or (self._refused == step and not must):
            return
        started = time.perf_counter()
        # the first rank's actions ride on the collective that is made anyway
        asked = self._recorder.actions.asked() if self._recorder is not None and not self._broken else 0
        decision, asked = divmod(self._ranks.worst(_ACTIONS * self._wish(step, must) + asked), _ACTIONS)
        self._asked |= asked
        if decision == _END:
            self.off = True
            self.close(finished=False, drain_seconds=0.0)
            return
        if decision == _SKIP:
            self._refused = step
            return
        self._last_sampled = step
        try:
            sample = self._reader.read(model, step, self._facts(step, state))
        except ReadingError as error:
            self._skipped(step, error)
            return
        if sample is not None and self._recorder is not None:
            self._recorder.put(sample)
        self.budget.sampled(time.perf_counter() - started)

    def _facts(self, step: int, state: Any) -> dict[str, Any]:
        """What is known beside the model at a sample."""
        facts: dict[str, Any] = {
            "epoch": state.epoch,
            "world_size": self._ranks.count,
            "overhead": self.budget.overhead(),
            "thinned_samples": self.budget.thinned,
            "pictures": step in self._pictured,
            "progress": step / state.max_steps if state.max_steps > 0 else None,
        }
        if self.budget.last_cost > 0:
            facts["previous_sample_seconds"] = self.budget.last_cost
        if self._training is not None:
            facts |= self._training.now()
        return facts

    def _skipped(self, step: int, error: ReadingError) -> None:
        if self._recorder is None:
            return
        self._recorder.note("skipped", step=step, cause=str(error))
        if not self._warned_skip:
            self._warned_skip = True
            logger.warning(
                "step %d could not be read and is skipped: %s (later ones go to %s only)",
                step,
                error,
                self._recorder.folder.journal_file,
            )

    def _wish(self, step: int, must: bool) -> int:
        """What this rank wants: the first one decides for all, and any rank can end it. Raises no Exception."""
        if self._broken:
            return _END
        try:
            return self._decision(step, must)
        except Exception:  # noqa: BLE001 - the other ranks wait for the answer
            self.fail()
            return _END

    def _decision(self, step: int, must: bool) -> int:
        """What the first rank decides; the others follow."""
        if self._recorder is None:
            return _SKIP
        if self._recorder.stopped is not None:
            return _END
        if self._recorder.has(step):
            return _SKIP
        if must:
            return _TAKE
        if self._adapted_away(step):
            return _SKIP
        if self.budget.allows():
            return _TAKE
        self._recorder.note("thinned", step=step, cause=f"overhead {self.budget.overhead():.4f}")
        return _SKIP

    def _adapted_away(self, step: int) -> bool:
        """Whether an adaptive schedule leaves a step out: one in between unless the model moves fast, and every second
        regular one when it has settled."""
        if self._recorder is None or self._schedule.dense is None:
            return False
        if not self._schedule.is_fixed(step):
            return not self._recorder.pace.faster
        settled = self._recorder.actions.settled and not self._recorder.pace.faster
        return settled and self._schedule.is_spare(step)

    def _announce_cost(self, now: int) -> None:
        """What the first sample cost, and what the rest will at most."""
        cost = self.budget.last_cost
        if self._recorder is None or cost == 0:  # a resumed run may already have the sample of its checkpoint
            return
        later = sum(step > now for step in self._schedule.planned())
        share = self._config.max_overhead
        limit = "" if share is None else f", or as many as fit into {share:.0%} of the run (max_overhead)"
        say(f"a sample takes {cost:.2g} s of training time; {later} more planned, about {cost * later:.2g} s{limit}")


def _checkpoint(args: Any, state: Any) -> Path:
    """Where the trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
