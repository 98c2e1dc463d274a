"""TopologyCallback: when to read the model, and handing samples on; what it reads and records is elsewhere."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from topo_callback.budget import OverheadBudget
from topo_callback.config import TopologyConfig
from topo_callback.errors import TopologyError
from topo_callback.probe import Probe, check_rows, choose_probe
from topo_callback.ranks import Ranks
from topo_callback.reader import Reader, ReadingError
from topo_callback.recorder import Recorder, mark_checkpoint, open_folder, recorded_batch_size
from topo_callback.run_description import describe_run
from topo_callback.schedule import Schedule
from topo_callback.sinks import default_sinks
from topo_callback.sinks.protocol import Sink
from topo_callback.spacing import evenly_spaced
from topo_callback.terminal import say
from topo_callback.worker.executor import default_threads

_SKIP, _TAKE, _END = 0, 1, 2  # what is done at a scheduled step
_OURS, _USERS = 1, 2  # whose error it is when setting up fails

logger = logging.getLogger("topo_callback")


class _ElsewhereError(Exception):
    """Setting up failed on another rank, which says so."""


def _harmless(event: Callable[..., None]) -> Callable[..., None]:
    """Keep every Exception of an event away from the trainer: one warning, and the callback is off.

    Only setting up may raise: a TopologyError before the first training step is the user's to see.
    """

    @functools.wraps(event)
    def guarded(self: TopologyCallback, args: Any, state: Any, control: Any, **context: Any) -> None:
        if self._disabled or (self._off and event.__name__ != "on_train_begin"):
            return
        started = time.perf_counter()
        try:
            event(self, args, state, control, **context)
        except TopologyError:
            if event.__name__ == "on_train_begin":
                raise
            self._fail()
        except Exception:  # noqa: BLE001 - nothing of ours reaches the trainer
            self._fail()
        self._budget.spend(time.perf_counter() - started)

    return guarded


def _checkpoint(args: Any, state: Any) -> Path:
    """Where the trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


class TopologyCallback(TrainerCallback):
    """Watches a fine-tuning run: add it to `callbacks=[...]` of any transformers or TRL trainer.

    On a schedule it reads the activations of a fixed probe, and a worker process turns them into a trajectory on disk
    and in the trackers of the run. Training is not disturbed, and nothing that goes wrong here stops it: after
    `on_train_begin` no Exception leaves the callback. `TOPO_DISABLED=1` in the environment turns it into nothing.

    Args:
        probe: a Probe, a list of texts, or dataset rows in any format that TRL accepts. None: a seeded sample of the
            training data.
        config: every setting; the defaults suit a 7B model.
        processing_class: the tokenizer for texts and rows. None: the trainer's own.
        executor: None for the built-in worker. Any `concurrent.futures.Executor` will do instead, but then nothing
            limits its memory, a task that hangs is given up rather than killed, a broken executor is not restarted,
            and pending work is lost from view when the trainer is killed.
        sinks: where numbers go beside the disk. None: the trackers in the trainer's `report_to`, as far as there is a
            sink for them, and a line per sample on the terminal.

    Raises:
        TopologyError: here, or in `on_train_begin` before the first step: a probe, setting or model that cannot work.
    """

    def __init__(
        self,
        probe: Probe | Sequence[Any] | None = None,
        *,
        config: TopologyConfig | None = None,
        processing_class: Any = None,
        executor: Executor | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        self.config = config or TopologyConfig()
        self.folder: Path | None = None
        self._given = probe
        self._processing_class = processing_class
        self._executor = executor
        self._sinks = sinks
        self._disabled = os.environ.get("TOPO_DISABLED", "") not in ("", "0")
        self._off = False
        self._broken = False
        self._recorder: Recorder | None = None
        self._reader: Reader | None = None
        self._schedule = Schedule(0, 1)
        self._ranks = Ranks()
        self._budget = OverheadBudget(self.config.max_overhead)
        self._probe: Probe | None = None
        self._pictured: frozenset[int] = frozenset()
        self._warned_skip = False
        self._last_sampled: int | None = None
        self._refused: int | None = None
        self._running = False
        if isinstance(probe, Probe):
            self.config.check_points(len(probe))
        elif probe is not None:
            check_rows(probe)

    # events of the trainer

    @_harmless
    def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        model: nn.Module = context["model"]
        again = self.folder if self._running and getattr(args, "auto_find_batch_size", False) else None
        self._close(finished=False, drain_seconds=0.0)
        self._off = self._broken = self._warned_skip = False
        self._last_sampled = self._refused = None
        self._ranks = Ranks.here(args.device)
        self._budget = OverheadBudget(self.config.max_overhead)
        self._budget.begin()
        self._together(lambda: self._prepare(args, state, model, context))
        assert self._reader is not None
        self._together(self._reader.agree)
        self._together(lambda: self._open(args, state, model, again))
        self._running = True
        # a resumed run may have died between saving its checkpoint and sampling it
        saved = state.global_step > 0 and self.config.sample_on_save and self.config.steps is None
        if saved or state.global_step in self._schedule:
            self._sample(model, state, must=True)
        self._announce_cost(state.global_step)

    @_harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._poll()
        if state.global_step in self._schedule:
            self._sample(context["model"], state, must=self._schedule.never_thinned(state.global_step))

    @_harmless
    def on_save(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._mark(args, state)
        if self.config.sample_on_save and self.config.steps is None:
            self._sample(context["model"], state, must=False)

    @_harmless
    def on_log(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        self._poll()

    @_harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        try:
            # with load_best_model_at_end the model is now the best one, not the one of the last step
            if not args.load_best_model_at_end and self.config.steps is None:
                self._sample(context["model"], state, must=True)
        except Exception:  # noqa: BLE001 - the run has come to its end all the same
            self._fail()
        self._close(finished=True)

    # what the events do

    def _together(self, work: Callable[[], None]) -> None:
        """Do a part of the setting up on every rank; when it fails on one, all ranks fail alike."""
        error: Exception | None = None
        try:
            work()
        except Exception as caught:  # noqa: BLE001 - known to all ranks first, raised below
            error = caught
        code = 0 if error is None else _USERS if isinstance(error, TopologyError) else _OURS
        worst = self._ranks.worst(code)
        if worst == 0:
            return
        self._close(finished=False)
        self._off = True
        said = self._ranks.first_text(f"{type(error).__name__}: {error}" if error is not None and code == worst else "")
        if error is not None and code == worst:
            raise error
        raise (TopologyError if worst == _USERS else _ElsewhereError)(said)

    def _prepare(self, args: Any, state: Any, model: nn.Module, context: dict[str, Any]) -> None:
        """Everything that needs neither other ranks nor the disk."""
        self._probe = choose_probe(
            self._given,
            getattr(context.get("train_dataloader"), "dataset", None),
            self._processing_class or context.get("processing_class"),
            prompts=self.config.prompts,
            max_tokens=self.config.max_tokens,
            seed=self.config.seed,
            chat_template_kwargs=getattr(args, "chat_template_kwargs", None),
        )
        self._schedule = Schedule.of(state.max_steps, self.config)
        planned = self._schedule.planned()
        self._pictured = frozenset(planned[i] for i in evenly_spaced(len(planned), self.config.pictures))
        # a resumed run keeps its batches: another shape would round differently
        recorded = recorded_batch_size(self._root(args), _checkpoint(args, state)) if state.global_step > 0 else None
        self._reader = Reader(model, self._probe, self.config, self._ranks, recorded)

    def _open(self, args: Any, state: Any, model: nn.Module, again: Path | None) -> None:
        """Open the folder, the worker and the sinks, on the first rank."""
        if not self._ranks.first or self._reader is None or self._probe is None:
            return
        run = describe_run(self.config, self._probe, self._reader, model, args, state, self._ranks.count)
        folder = open_folder(self._root(args), run, state.global_step, checkpoint=_checkpoint(args, state), again=again)
        self.folder = folder.path
        say(
            f"{len(self._probe)} prompts ({self._probe.source}), {len(self._reader.layers)} of {self._reader.depth} "
            f"layers, record in {folder.path}"
        )
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.count))
        threads = self.config.threads or default_threads(ranks_here, args.dataloader_num_workers)
        sinks = self._sinks if self._sinks is not None else default_sinks(args.report_to)
        self._recorder = Recorder(folder, self.config, sinks, self._executor, threads=threads)
        self._recorder.start()

    def _mark(self, args: Any, state: Any) -> None:
        """Say in the checkpoint just saved whose it is; one that cannot be written is resumed by the newest run."""
        checkpoint = _checkpoint(args, state)
        if self._recorder is not None and checkpoint.is_dir():
            self._recorder.note("saved", step=state.global_step)
            with contextlib.suppress(OSError):
                mark_checkpoint(checkpoint, self._recorder.folder.path)

    def _root(self, args: Any) -> Path:
        return Path(self.config.folder or Path(args.output_dir) / "topology")

    def _sample(self, model: nn.Module, state: Any, *, must: bool) -> None:
        """Take one sample, once per step, if the first rank allows it. All ranks come here at the same steps."""
        step = state.global_step
        if self._reader is None or self._last_sampled == step or (self._refused == step and not must):
            return
        started = time.perf_counter()
        decision = self._ranks.worst(self._wish(step, must))
        if decision == _END:
            self._off = True
            self._close(finished=False, drain_seconds=0.0)
            return
        if decision == _SKIP:
            self._refused = step
            return
        self._last_sampled = step
        facts: dict[str, Any] = {
            "epoch": state.epoch,
            "world_size": self._ranks.count,
            "overhead": self._budget.overhead(),
            "thinned_samples": self._budget.thinned,
            "pictures": step in self._pictured,
        }
        if self._budget.last_cost > 0:
            facts["previous_sample_seconds"] = self._budget.last_cost
        try:
            sample = self._reader.read(model, step, facts)
        except ReadingError as error:
            if self._recorder is not None:
                self._recorder.note("skipped", step=step, cause=str(error))
                if not self._warned_skip:
                    self._warned_skip = True
                    logger.warning(
                        "step %d could not be read and is skipped: %s (later ones go to %s only)",
                        step,
                        error,
                        self._recorder.folder.journal_file,
                    )
            return
        if sample is not None and self._recorder is not None:
            self._recorder.put(sample)
        self._budget.sampled(time.perf_counter() - started)

    def _wish(self, step: int, must: bool) -> int:
        """What this rank wants: the first one decides for all, and any rank can end it. Raises no Exception."""
        if self._broken:
            return _END
        try:
            return self._decision(step, must)
        except Exception:  # noqa: BLE001 - the other ranks wait for the answer
            self._fail()
            return _END

    def _decision(self, step: int, must: bool) -> int:
        """What the first rank decides; the others follow."""
        if self._recorder is None:
            return _SKIP
        if self._recorder.stopped is not None:
            return _END
        if self._recorder.has(step):
            return _SKIP
        if must or self._budget.allows():
            return _TAKE
        self._recorder.note("thinned", step=step, cause=f"overhead {self._budget.overhead():.4f}")
        return _SKIP

    def _poll(self) -> None:
        """Forward what has finished. Raises no Exception, because a sample that all ranks take may follow."""
        if self._recorder is None or self._broken:
            return
        try:
            self._recorder.poll()
        except Exception:  # noqa: BLE001 - known to all ranks at the next sample
            self._fail()

    def _close(self, *, finished: bool, drain_seconds: float | None = None) -> None:
        recorder, self._recorder, self._reader = self._recorder, None, None
        self._running = False
        if recorder is not None:
            recorder.close(finished=finished, drain_seconds=drain_seconds)

    def _fail(self) -> None:
        """Something of ours raised: say it once, and be nothing from here on."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, _ElsewhereError) else logging.WARNING
        logger.log(level, "monitoring is off, training goes on: %s: %s", type(error).__name__, error, exc_info=True)
        if self._recorder is not None:
            self._recorder.note("stopped", reason=f"{type(error).__name__}: {error}")
        if self._ranks.count == 1:
            self._off = True
            self._close(finished=False, drain_seconds=0.0)  # what waits stays in the spool: training goes on now
        else:
            self._broken = True  # told to the other ranks at the next scheduled sample

    def _announce_cost(self, now: int) -> None:
        """What the first sample cost, and what the rest will at most."""
        cost = self._budget.last_cost
        if self._recorder is None or cost == 0:  # a resumed run may already have the sample of its checkpoint
            return
        later = sum(step > now for step in self._schedule.planned())
        limit = "" if self.config.max_overhead is None else f", at most {self.config.max_overhead:.0%} of the run"
        say(f"a sample takes {cost:.2g} s of training time; {later} more planned, about {cost * later:.2g} s{limit}")
