"""The beginning of a watched run: its probe and reader, its folder, and what is recorded into it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from topo_callback.capture.batches import SHARED
from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks, do_together
from topo_callback.dynamics.findings import check_references
from topo_callback.dynamics.rules import Rule, read_rules
from topo_callback.errors import ConfigurationError
from topo_callback.probe import Probe
from topo_callback.reader.reader import Reader
from topo_callback.reader.run_description import describe_run
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.waiting import Patience
from topo_callback.sinks import default_sinks
from topo_callback.sinks.defaults import instead_of_a_sink, without_sink
from topo_callback.sinks.protocol import Sink
from topo_callback.subsamples import evenly_spaced
from topo_callback.terminal import say
from topo_callback.training_loop import TrainingProgress, TrainingSettings
from topo_callback.watching.actions import EventFunction
from topo_callback.watching.harmless import unheard
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.resuming import last_facts, open_folder, recorded_batches, start_sample
from topo_callback.watching.run_probe import is_uploaded, keep_prompts, run_probe
from topo_callback.watching.schedule import Schedule
from topo_callback.watching.step_signals import StepSignals
from topo_callback.watching.training_facts import TrainingFacts
from topo_callback.worker.executor import default_threads


@dataclass(frozen=True, eq=False)
class Given:
    """What a callback was given for each run that it watches; see `TopologyCallback`."""

    config: TopologyConfig
    probe: Probe | Sequence[Any] | Mapping[Any, Any] | None = None
    processing_class: Any = None
    executor: Executor | None = None
    sinks: Sequence[Sink] | None = None
    on_event: Sequence[EventFunction] = ()


@dataclass(frozen=True, eq=False)
class Watched:
    """What one training run is watched with. The model is never kept.

    Attributes:
        schedule: which steps are sampled.
        meetings: the steps at which ranks meet. They are looked up, not computed, at every step: nothing there can
            fail on one rank alone.
        pictured: the steps of which pictures are drawn.
        reader: on every rank; None in a run that is over.
        recorder, training, signals: on the first rank of a run that goes on.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(0, 1))
    meetings: frozenset[int] = frozenset()
    pictured: frozenset[int] = frozenset()
    reader: Reader | None = None
    recorder: Recorder | None = None
    training: TrainingFacts | None = None
    signals: StepSignals | None = None


@dataclass(frozen=True, eq=False)
class Start:
    """What the trainer's event gives when training begins.

    Attributes:
        again: the folder of this run when the trainer starts it over with a smaller batch.
    """

    args: TrainingSettings
    state: TrainingProgress
    model: nn.Module
    context: Mapping[str, Any]
    again: Path | None = None

    @property
    def resumed(self) -> bool:
        """Whether training goes on from a checkpoint."""
        return bool(self.state.global_step > 0)

    @property
    def checkpoint(self) -> Path:
        """Where the trainer keeps the checkpoint of this step."""
        given = self.context.get("checkpoint")
        return checkpoint_folder(self.args, self.state) if given is None else Path(given)


class Beginning:
    """Sets up what one training run is watched with, once, on every rank."""

    def __init__(self, given: Given, ranks: Ranks, patience: Patience, start: Start) -> None:
        self._given, self._config = given, given.config
        self._ranks = ranks
        self._patience = patience
        self._start = start
        self._probe: Probe | None = None
        self._rules: tuple[Rule, ...] = ()
        self._watched = Watched()  # what there is of it so far

    def watched(self) -> Watched:
        """Set everything up. All ranks call this together; it fails on all or on none, and then leaves nothing open.

        Raises:
            TopologyError: a probe, setting or model that cannot work.
        """
        try:
            do_together(self._ranks, self._prepare)
            do_together(self._ranks, self._agree_on_meeting)
            reader = self._watched.reader
            assert reader is not None
            do_together(self._ranks, lambda: reader.agree(self._start.model))
            do_together(self._ranks, self._open)
        except BaseException:
            if self._watched.recorder is not None:
                with unheard():
                    self._watched.recorder.close(drain_seconds=0.0)
            raise
        return self._watched

    def _prepare(self) -> None:
        """Everything that needs neither other ranks nor the disk."""
        args, state, context = self._start.args, self._start.state, self._start.context
        self._rules = read_rules(self._config.rules)
        self._probe, cut = run_probe(
            self._given.probe,
            self._config,
            self._given.processing_class or context.get("processing_class"),
            args,
            self._start.model,
            getattr(context.get("train_dataloader"), "dataset", None),
        )
        if cut and self._ranks.first:
            say(cut)
        if self._config.drift_words and is_uploaded(self._root, args):
            raise ConfigurationError(
                f"drift_words={self._config.drift_words}: push_to_hub uploads all of output_dir, and tokens that can "
                "echo the training data would be in there; give TopologyConfig(folder=...) outside of it, or "
                "drift_words=0"
            )
        schedule = Schedule.of(state.max_steps, self._config)
        planned = schedule.planned()
        if not planned:
            raise ConfigurationError(
                f"steps={list(self._config.steps or ())} has no step of this run, which has {state.max_steps}; give "
                "some of them, or None for the default schedule"
            )
        # a resumed run keeps its batches: another shape would round differently
        recorded: tuple[int | None, str] = (None, SHARED)
        if self._start.resumed:
            recorded = self._patience.ask(recorded_batches, self._root, self._start.checkpoint)
        self._watched = Watched(
            schedule,
            schedule.meetings(),
            frozenset(planned[i] for i in evenly_spaced(len(planned), self._config.pictures)),
            Reader(self._start.model, self._probe, self._config, self._ranks, *recorded),
        )

    def _agree_on_meeting(self) -> None:
        """Ranks wait for each other at the same steps, for the same things. All ranks call this together.

        Raises:
            ConfigurationError: their settings or numbers of steps differ.
        """
        names = ["samples", "steps", "adaptive", "sample_on_save"]
        names += ["next_token_prompts", "general_text", "token_cloud", "studies", "drift_words"]
        mine = {"max_steps": self._watched.schedule.max_steps, **{name: getattr(self._config, name) for name in names}}
        said = self._ranks.texts(repr(mine))
        if len(set(said)) > 1:
            raise ConfigurationError(
                f"the ranks would read the model at different times ({' | '.join(dict.fromkeys(said))}); give every "
                "rank the same settings and the same number of steps"
            )

    def _open(self) -> None:
        """Open the folder, the worker and the sinks, on the first rank."""
        start, reader = self._start, self._watched.reader
        if not self._ranks.first or reader is None or self._probe is None:
            return
        run = describe_run(
            self._config, self._probe, reader, start.model, start.args, start.state, self._ranks.count, start.context
        )
        run["rules"] = [rule.to_run() for rule in self._rules]
        if self._config.references is not None:
            self._patience.ask(check_references, self._config.references, run)
        folder = open_folder(
            self._root,
            run,
            start.state.global_step,
            checkpoint=start.checkpoint,
            again=start.again,
            patience=self._patience,
        )
        try:
            self._record_in(folder, run, reader, self._probe)
        except BaseException:
            if self._watched.recorder is None:
                self._patience.ask(folder.unlock)
            raise

    def _record_in(self, folder: TrajectoryFolder, run: Mapping[str, Any], reader: Reader, probe: Probe) -> None:
        """Start to record in an open folder."""
        args, state = self._start.args, self._start.state
        say(
            f"{len(probe)} prompts ({probe.source}), {len(reader.layers)} of {reader.depth} layers, record in "
            f"{folder.path}"
        )
        for note in reader.notes:
            say(note)
        if run["model"]["blocks_choice"]:
            say(run["model"]["blocks_choice"])
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.count))
        threads = self._config.threads or default_threads(ranks_here, args.dataloader_num_workers)
        sinks = self._given.sinks if self._given.sinks is not None else default_sinks(args.report_to)
        if self._given.sinks is None and (names := without_sink(args.report_to)):
            instead = instead_of_a_sink(names)
            say(f"there is no sink for {', '.join(names)}; the numbers are in the record, and {instead}")
        if reader.drift_lens.wanted:
            reader.drift_lens.begin_from(self._patience.ask(start_sample, folder))
        training = TrainingFacts(
            self._start.model,
            self._start.context.get("lr_scheduler"),
            seed=self._config.seed,
            before=self._patience.ask(last_facts, folder),
            log_history=state.log_history,
            blocks=reader.stack_path,
            start_file=folder.start_weights,
            resumed=self._start.resumed,
            patience=self._patience,
        )
        recorder = Recorder(
            folder,
            self._config,
            sinks,
            self._given.executor,
            threads=threads,
            on_event=self._given.on_event,
            rules=self._rules,
        )
        signals = StepSignals(training, recorder.put_steps, recorder.note)
        self._watched = replace(self._watched, recorder=recorder, training=training, signals=signals)
        recorder.start(self._patience)
        keep_prompts(folder, probe if self._config.keep_prompts else None, args, recorder.tell)

    @property
    def _root(self) -> Path:
        """Absolute: the loop may change the working directory."""
        return Path(self._config.folder or Path(self._start.args.output_dir) / "topology").absolute()


def checkpoint_folder(args: TrainingSettings, state: TrainingProgress) -> Path:
    """Where the trainer keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
