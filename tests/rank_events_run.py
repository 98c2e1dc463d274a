"""Runs of two gloo ranks in which something of the callback's own raises on one of them; each rank writes what it saw.

    python -m torch.distributed.run --nproc_per_node 2 rank_events_run.py FOLDER CASE [CASE ...]

CASE: RANK-PLACE-ERROR, with PLACE one of `PLACES` and ERROR one of `ERRORS`, or "unwatched" for a run without the
callback. From the chosen moment on, the place raises on that rank whenever it is come to.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from ranks_launch import begin_rank, losses_of, rows_of, train_and_catch, warnings_noted, write_seen
from small_runs import TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, callback
from topo_callback.capture import NextTokens
from topo_callback.distributed import turns
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader import agreed_reading
from topo_callback.reader.reader import Reader
from topo_callback.studies import StudyRunner, running
from topo_callback.watching import beginning, monitor, run_probe
from topo_callback.watching.actions import Actions
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.schedule import OverheadBudget, Pace, Schedule
from topo_callback.watching.training_facts import TrainingFacts

STEPS, SAVE_STEPS = 6, 3  # step 3 is sampled only because it is saved
CONFIG = TopologyConfig(
    neighbours=3, probe_batch=8, max_overhead=None, measures=("scale",), next_token_prompts=4, pictures=0, samples=3,
    engine="gudhi", zigzag_engine="off", drain_seconds=20.0, keep_prompts=True,
    studies=("random_tokens",),
)  # fmt: skip


class Panic(BaseException):
    """What pyo3 makes of a panic in Rust: no Exception."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("injected"),
    "cancelled": lambda: asyncio.CancelledError("injected"),
    "generator": lambda: GeneratorExit("injected"),
    "stop": lambda: StopIteration("injected"),
    "value": lambda: ValueError("injected"),
    "disk": lambda: PermissionError(13, "injected"),
    "odd": lambda: OSError("errno may be anything", "injected"),
    "key": lambda: KeyError("injected"),
}

AT_THE_START = -1  # from before `on_train_begin`
# where it raises -> what is replaced, and from the end of which step on
PLACES: dict[str, tuple[Any, str, int]] = {
    # on_train_begin
    "choose_probe": (run_probe, "choose_probe", AT_THE_START),
    "schedule": (Schedule, "planned", AT_THE_START),
    "make_batches": (agreed_reading, "make_batches", AT_THE_START),
    "study_plan": (StudyRunner, "_make_plan", AT_THE_START),
    "describe_run": (beginning, "describe_run", AT_THE_START),
    "open_folder": (beginning, "open_folder", AT_THE_START),
    "recorder_start": (Recorder, "start", AT_THE_START),
    "keep_prompts": (beginning, "keep_prompts", AT_THE_START),
    "announce": (monitor, "announce_cost", AT_THE_START),
    # on_step_end, before ranks meet and after
    "poll": (Recorder, "poll", 1),
    "followed_weights": (TrainingFacts, "step_ended", 1),
    "never_thinned": (Schedule, "never_thinned", 1),
    "spare": (Schedule, "is_fixed", 1),
    "pace": (Pace, "faster", 1),
    "asked": (Actions, "asked", 1),
    "has": (Recorder, "has", 1),
    "overhead": (OverheadBudget, "overhead", 1),
    "facts": (TrainingFacts, "now", 1),
    "enter_quiet": (turns, "quiet", 1),
    "head": (NextTokens, "head", 1),
    "leave_quiet": (turns, "_left", 1),
    "study_batches": (running, "make_batches", 1),
    "geometry": (Reader, "_geometry", 1),
    "put": (Recorder, "put", 1),
    # on_save, on_log, on_train_end
    "name": (callback, "checkpoint_folder", 1),
    "checkpoint": (Path, "exists", 1),
    "mark": (monitor, "mark_checkpoint", 1),
    "note": (Recorder, "tell", 1),
    "logged": (TrainingFacts, "logged", 1),
    "logged_at_the_end": (TrainingFacts, "logged", STEPS),
    "poll_at_the_end": (Recorder, "poll", STEPS),
    "close": (Recorder, "close", 1),
    "thinned": (monitor, "announce_thinned", 1),
}


class Moment(TrainerCallback):
    """Breaks the place when its moment has come; before our callback in the trainer's list."""

    def __init__(self, begin: Callable[[], None], moment: int) -> None:
        self.begin, self.moment = begin, moment

    def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if self.moment == AT_THE_START:
            self.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step == self.moment:
            self.begin()


@contextlib.contextmanager
def broken(case: str, rank: int, callbacks: list[TrainerCallback], hits: list[int]) -> Iterator[None]:
    """Let the place of a case raise on its rank from its moment on, until the run is over."""
    where, place, kind = case.split("-")
    owner, name, moment = PLACES[place]
    if place == "leave_quiet":
        owner, name = turns, "quiet"
    old = owner.__dict__[name]

    def raising(*arguments: Any, **options: Any) -> Any:
        if place == "checkpoint" and not arguments[0].name.startswith("checkpoint-"):
            return old(*arguments, **options)
        hits.append(1)
        raise ERRORS[kind]()

    @contextlib.contextmanager
    def quiet_that_cannot_be_left(*arguments: Any) -> Iterator[None]:
        with old(*arguments):
            yield
        hits.append(1)
        raise ERRORS[kind]()

    def begin() -> None:
        new: Any = quiet_that_cannot_be_left if place == "leave_quiet" else raising
        setattr(owner, name, property(new) if isinstance(old, property) else new)

    if int(where) == rank:
        callbacks.insert(0, Moment(begin, moment))
    try:
        yield
    finally:
        setattr(owner, name, old)


def train(folder: Path, case: str, pool: Executor) -> dict[str, Any]:
    """One run on this rank."""
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    rows = rows_of(tokenizer, TEXTS)
    callbacks: list[TrainerCallback] = []
    if case != "unwatched":
        config = dataclasses.replace(CONFIG, adaptive=case.split("-")[1] in ("spare", "pace"))
        watch = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, executor=pool, sinks=[])
        callbacks.append(watch)
    args = TrainingArguments(
        str(folder / case), max_steps=STEPS, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True,
        report_to=[], disable_tqdm=True, save_strategy="steps", save_steps=SAVE_STEPS, logging_steps=1, seed=3,
        save_only_model=True,
    )  # fmt: skip
    hits: list[int] = []
    started = time.monotonic()
    breaking = broken(case, PartialState().process_index, callbacks, hits) if callbacks else contextlib.nullcontext()
    with warnings_noted() as warnings, breaking:
        trainer = Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=callbacks)
        error = train_and_catch(trainer, BaseException)
    return {
        "error": error,
        "step": trainer.state.global_step,
        "losses": losses_of(trainer),
        "warnings": warnings,
        "raised": len(hits),
        "training": all(module.training for module in trainer.model.modules()),
        "seconds": time.monotonic() - started,
    }


def main(folder: str, *cases: str) -> None:
    rank = begin_rank(30)
    seen = {}
    with ThreadPoolExecutor(1) as pool:
        for case in cases:
            seen[case] = train(Path(folder), case, pool)
            write_seen(folder, rank, seen)
            Ranks.here(torch.device("cpu")).worst(0)  # as many collectives on both ranks, or this one is not met
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
