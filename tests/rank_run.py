"""Fine-tuning runs of one rank, alone or under torchrun, one after the other; each rank writes what it saw.

    python rank_run.py FOLDER KIND CASE [CASE ...]
    python -m torch.distributed.run --nproc_per_node 2 rank_run.py FOLDER KIND CASE [CASE ...]

KIND: plain (one process, or DDP) | fsdp2. CASE: MODEL-FAULT, with MODEL full | lora and FAULT one of `FAULTS`, "fine",
or "unwatched" for a run without the callback. A fault is injected on one rank only, as it would happen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from ranks_launch import begin_rank, losses_of, rows_of, train_and_catch, warnings_noted, write_seen
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader.reader import Reader
from topo_callback.watching.recorder import Recorder

TEXTS = [f"{i} is the number of a text that says {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(48)]
STEPS = 5
PROMPTS, PROBE_BATCH = 18, 4  # five batches: two ranks take three turns, and one batch is read twice
CONFIG = TopologyConfig(
    neighbours=3,
    probe_batch=PROBE_BATCH,
    max_overhead=None,
    measures=("scale", "mutual_knn"),
    token_measures="all",
    general_text=6,  # two batches, one turn of two ranks
    next_token_prompts=7,  # of 18, so that batches hold different numbers of them
    pictures=0,
    keep_distances=True,
    engine="gudhi",  # nothing to compile in these short runs
    zigzag_engine="off",
    drain_seconds=20.0,
)


class Broken(Executor):
    """A user's executor whose workers have died."""

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        raise RuntimeError("the pool is broken")


class Run:
    """One run on this rank: what is injected into it, and what is seen of it."""

    left_alone_by_probe = True  # it counts the probe's passes

    def __init__(self, folder: Path, kind: str, case: str, pool: Executor) -> None:
        self.folder = folder / case
        self.kind = kind
        self.base, self.fault = case.split("-")
        self.rank = PartialState().process_index
        self.tokenizer = tiny_tokenizer()
        self.probe: Any = Probe.from_rows(TEXTS[:PROMPTS], self.tokenizer)
        self.processing_class = self.tokenizer
        self.config = CONFIG
        self.pool = pool
        self.forwards: dict[int, int] = {}
        self.in_block: Callable[[], None] | None = None
        self.undo: list[Callable[[], None]] = []
        self.trainer: Any = None
        self.settled = False  # the reading is proved, and passes are those of samples

    @property
    def step(self) -> int:
        return int(self.trainer.state.global_step)

    def replace(self, owner: Any, name: str, new: Callable[..., Any]) -> None:
        """Put `new(old, ...)` in the place of a method until the run is over."""
        old = getattr(owner, name)
        setattr(owner, name, lambda *arguments, **options: new(old, *arguments, **options))
        self.undo.append(lambda: setattr(owner, name, old))

    def model(self) -> Any:
        model = tiny_llama(self.tokenizer, layers=3)
        if self.base == "lora":
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(5)
            model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear"))
        inner = model.get_base_model() if self.base == "lora" else model

        def count(module: Any, arguments: Any, options: Any) -> None:
            if not torch.is_grad_enabled() and self.trainer is not None and self.settled:
                self.forwards[self.step] = self.forwards.get(self.step, 0) + 1

        def inside(module: Any, arguments: Any) -> None:
            if not torch.is_grad_enabled() and self.in_block is not None:
                self.in_block()

        inner.register_forward_pre_hook(count, with_kwargs=True)
        inner.model.layers[1].mlp.register_forward_pre_hook(inside)
        return model

    def train(self) -> dict[str, Any]:
        def agree(old: Any, reader: Any, model: Any) -> None:
            old(reader, model)
            self.settled = True

        self.replace(Reader, "agree", agree)
        FAULTS.get(self.fault, lambda run: None)(self)
        torch.manual_seed(3)
        rows = rows_of(self.tokenizer, TEXTS, masked=True)
        callbacks = []
        if self.fault != "unwatched":
            callbacks.append(
                TopologyCallback(
                    self.probe,
                    config=self.config,
                    processing_class=self.processing_class,
                    executor=self.pool,
                    sinks=[],
                )
            )
        args = TrainingArguments(
            output_dir=str(self.folder),
            max_steps=STEPS,
            per_device_train_batch_size=2,
            save_strategy="steps",
            save_steps=3,
            learning_rate=1e-2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            logging_steps=1,
            seed=3,
            **({"fsdp": True, "fsdp_config": {"version": 2}} if self.kind == "fsdp2" else {}),
        )
        if self.kind == "fsdp2":
            # accelerate shards on accelerators only; told that this is one, it does the very same on the CPU
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        model = self.model()
        self.trainer = Trainer(model, args, train_dataset=rows, callbacks=callbacks)
        with warnings_noted() as lines:
            error = train_and_catch(self.trainer, Exception)
        for undo in self.undo:
            undo()
        weights = hashlib.sha256()
        for parameter in model.parameters():
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            weights.update(whole.detach().contiguous().view(torch.uint8).numpy().tobytes())
        folder = callbacks[0].folder if callbacks else None
        return {
            "error": error,
            "step": self.step,
            "forwards": self.forwards,
            "warnings": lines,
            "weights": weights.hexdigest(),
            "losses": losses_of(self.trainer),
            "norms": [entry["grad_norm"] for entry in self.trainer.state.log_history if "grad_norm" in entry],
            "training": all(module.training for module in model.modules()),
            "own_sharding": self.trainer.accelerator.distributed_type.value,
            "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()),
            "folder": None if folder is None else str(folder.relative_to(self.folder)),
        }


def forward_raises(run: Run) -> None:
    """A block raises on the last rank, at one step."""

    def fail() -> None:
        if run.rank == 1 and run.step == 2:
            raise RuntimeError("injected: this block is unwell")

    run.in_block = fail


def embedding_raises(run: Run) -> None:
    """The embedding raises on the last rank, at one step, before any block."""

    def fail(old: Any, module: Any, *arguments: Any) -> Any:
        if run.rank == 1 and run.step == 2 and not torch.is_grad_enabled():
            raise RuntimeError("injected: the embedding is unwell")
        return old(module, *arguments)

    run.replace(torch.nn.Embedding, "forward", fail)


def memory_runs_out_once(run: Run) -> None:
    """The last rank has no memory for one forward pass."""
    left = [1]

    def fail() -> None:
        if run.rank == 1 and run.step == 2 and left:
            left.pop()
            raise torch.OutOfMemoryError("injected: out of memory")

    run.in_block = fail


def probe_cannot_be_read(run: Run) -> None:
    """The last rank has lost its tokenizer."""
    run.probe = TEXTS[:PROMPTS]
    if run.rank == 1:
        run.processing_class = None


def probes_differ(run: Run) -> None:
    """The ranks read different files."""
    run.probe = TEXTS[:PROMPTS] if run.rank == 0 else TEXTS[1 : PROMPTS + 1]


def folder_cannot_be_written(run: Run) -> None:
    """Only the first rank tries to make the folder, below something that is no folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "occupied").write_text("")
    run.config = dataclasses.replace(CONFIG, folder=str(run.folder / "occupied" / "topology"))


def worker_dies(run: Run) -> None:
    """Three samples in a row are lost; the first rank, which alone knows, is given time to notice."""
    run.pool = Broken()

    def wait(old: Any, recorder: Any) -> None:
        end = time.monotonic() + 20
        while run.step >= 3 and recorder.stopped is None and time.monotonic() < end:
            time.sleep(0.01)
        old(recorder)

    run.replace(Recorder, "poll", wait)


def no_budget(run: Run) -> None:
    """Only early samples are affordable; what the first rank decides by its clock holds for all."""
    run.config = dataclasses.replace(CONFIG, max_overhead=0.0 if run.rank == 0 else 1.0, samples=2)


def geometry_raises(run: Run) -> None:
    """Something of ours breaks on the first rank, after the clouds are gathered."""

    def fail(old: Any, *arguments: Any) -> Any:
        if run.step == 2:
            raise RuntimeError("injected: the geometry is unwell")
        return old(*arguments)

    run.replace(Reader, "_geometry", fail)


def polling_raises(run: Run) -> None:
    """Something of ours breaks on the first rank, at a scheduled step and before its sample."""

    def fail(old: Any, recorder: Any) -> None:
        if run.step == 2:
            raise RuntimeError("injected: polling is unwell")
        old(recorder)

    run.replace(Recorder, "poll", fail)


def disk_gone(run: Run) -> None:
    """The first rank's disk does not answer when it is asked what is recorded."""

    def fail(old: Any, recorder: Any, step: int) -> bool:
        if step == 2:
            raise OSError("injected: stale file handle")
        return bool(old(recorder, step))

    run.replace(Recorder, "has", fail)


def gathering_fails(run: Run) -> None:
    """The first rank has no memory to receive the other's clouds."""

    def fail(old: Any, ranks: Any, mine: Any) -> Any:
        if run.step == 2 and run.rank == 0:
            raise torch.OutOfMemoryError("injected: out of memory")
        return old(ranks, mine)

    run.replace(Ranks, "room", fail)


FAULTS: dict[str, Callable[[Run], None]] = {
    function.__name__: function
    for function in (
        forward_raises,
        embedding_raises,
        memory_runs_out_once,
        probe_cannot_be_read,
        probes_differ,
        folder_cannot_be_written,
        worker_dies,
        no_budget,
        geometry_raises,
        polling_raises,
        disk_gone,
        gathering_fails,
    )
}


def main(folder: str, kind: str, *cases: str) -> None:
    rank = begin_rank(60)
    seen = {}
    # a thread in the place of the worker: these runs are about ranks, and a worker process would double their time
    with ThreadPoolExecutor(1) as pool:
        for case in cases:
            seen[case] = Run(Path(folder), kind, case, pool).train()
            write_seen(folder, rank, seen)
    if dist.is_initialized():
        dist.destroy_process_group()
        # a thread of gloo's that is left aborts now and then while the interpreter ends, also on a rank that has no
        # worker: "terminate called without an active exception"; how ranks end is what ending_ranks_run.py is about
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
