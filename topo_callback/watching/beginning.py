"""The beginning of a watched run: its probe and reader, its folder, and what is recorded into it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from torch import nn

from topo_callback.capture.batches import PADDED
from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.dynamics.findings import check_references
from topo_callback.errors import ConfigurationError
from topo_callback.probe import Probe
from topo_callback.reader.reader import Reader
from topo_callback.reader.run_description import describe_run
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.waiting import Patience
from topo_callback.sinks import default_sinks
from topo_callback.sinks.protocol import Sink
from topo_callback.spacing import evenly_spaced
from topo_callback.terminal import say
from topo_callback.watching.actions import EventFunction
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.resuming import last_facts, open_folder, recorded_batches
from topo_callback.watching.run_probe import keep_prompts, run_probe
from topo_callback.watching.schedule import OverheadBudget, Schedule
from topo_callback.watching.training_facts import TrainingFacts
from topo_callback.worker.executor import default_threads


class Beginning:
    """What one training run is watched with, set up once, on every rank. The model is never kept.

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
        self._meetings: frozenset[int] = frozenset()
        self._probe: Probe | None = None
        self._reader: Reader | None = None
        self._recorder: Recorder | None = None
        self._training: TrainingFacts | None = None
        self._patience = Patience(0.0)
        self._pictured: frozenset[int] = frozenset()
        self._last_sampled: int | None = None
        self._refused: int | None = None
        self._asked = 0
        self._broken = False
        self._warned_skip = False

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
        # looked up, not computed, at every step: nothing there can fail on one rank alone
        self._meetings = self._schedule.meetings()
        self._pictured = frozenset(planned[i] for i in evenly_spaced(len(planned), self._config.pictures))
        # a resumed run keeps its batches: another shape would round differently
        resumed = state.global_step > 0
        recorded: tuple[int | None, str] = (None, PADDED)
        if resumed:
            recorded = self._patience.ask(recorded_batches, self._root(args), checkpoint_folder(args, state))
        self._reader = Reader(model, self._probe, self._config, self._ranks, *recorded)

    def _agree_on_meeting(self) -> None:
        """Ranks wait for each other at the same steps, for the same things. All ranks call this together.

        Raises:
            ConfigurationError: their settings or numbers of steps differ.
        """
        names = ("samples", "steps", "adaptive", "sample_on_save", "next_token_prompts", "token_cloud", "studies")
        mine = {"max_steps": self._schedule.max_steps, **{name: getattr(self._config, name) for name in names}}
        said = self._ranks.texts(repr(mine))
        if len(set(said)) > 1:
            raise ConfigurationError(
                f"the ranks would read the model at different times ({' | '.join(dict.fromkeys(said))}); give every "
                "rank the same settings and the same number of steps"
            )

    def _open(self, args: Any, state: Any, model: nn.Module, context: Mapping[str, Any], again: Path | None) -> None:
        """Open the folder, the worker and the sinks, on the first rank."""
        if not self._ranks.first or self._reader is None or self._probe is None:
            return
        run = describe_run(self._config, self._probe, self._reader, model, args, state, self._ranks.count, context)
        if self._config.references is not None:
            self._patience.ask(check_references, self._config.references, run)
        folder = open_folder(
            self._root(args),
            run,
            state.global_step,
            checkpoint=checkpoint_folder(args, state),
            again=again,
            patience=self._patience,
        )
        try:
            self._record_in(folder, run, args, state, model, context)
        except BaseException:
            if self._recorder is None:
                self._patience.ask(folder.unlock)
            raise

    def _record_in(
        self,
        folder: TrajectoryFolder,
        run: Mapping[str, Any],
        args: Any,
        state: Any,
        model: nn.Module,
        context: Mapping[str, Any],
    ) -> None:
        """Start to record in an open folder."""
        assert self._reader is not None
        assert self._probe is not None
        self.folder = folder.path
        say(
            f"{len(self._probe)} prompts ({self._probe.source}), {len(self._reader.layers)} of {self._reader.depth} "
            f"layers, record in {folder.path}"
        )
        for note in self._reader.notes:
            say(note)
        if run["model"]["blocks_choice"]:
            say(run["model"]["blocks_choice"])
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.count))
        threads = self._config.threads or default_threads(ranks_here, args.dataloader_num_workers)
        sinks = self._sinks if self._sinks is not None else default_sinks(args.report_to)
        self._training = TrainingFacts(
            model,
            context.get("lr_scheduler"),
            seed=self._config.seed,
            before=self._patience.ask(last_facts, folder),
            log_history=state.log_history,
            blocks=self._reader.stack_path,
            start_file=folder.start_weights,
            resumed=state.global_step > 0,
            patience=self._patience,
        )
        self._recorder = Recorder(folder, self._config, sinks, self._executor, threads=threads, on_event=self._on_event)
        self._recorder.start(self._patience)
        keep_prompts(folder, self._probe if self._config.keep_prompts else None, args, self._recorder.tell)

    def _root(self, args: Any) -> Path:
        return Path(self._config.folder or Path(args.output_dir) / "topology")

    @property
    def _samples_at_saves(self) -> bool:
        return self._config.sample_on_save and self._config.steps is None


def checkpoint_folder(args: Any, state: Any) -> Path:
    """Where the trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
