"""One fine-tuning run of the demo's small model, watched by the callback, and what it leaves on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from fine_tuning_data import Kinds, gather_kinds, kind_names, rows_of_run
from fine_tuning_series import SWITCH
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
from topo_callback.demo.surroundings import one_thread
from topo_callback.libraries import quiet_libraries

STEPS = 80  # optimizer steps of a run; the data are switched after half of them
EVERY = 4  # steps from sample to sample
SEEDS, QUIET = 5, 40  # seeds of every pair, and of the quiet reference runs
BATCH = 4  # rows of a step, so that no row is seen twice
LONGEST = 96  # tokens of a row
LONGEST_PROBE = 40  # tokens of a prompt of the probe, cut on the left
LEARNING_RATE = 2e-3
WARM_UP = 5  # steps
DEPTH, WIDTH = 6, 64  # the demo's model, smaller
LAYERS = (1, 3, 5, 6)
PRETRAINING_STEPS = 300
MEASURES = (
    "scale", "barcode_features", "wasserstein", "rtd", "mutual_knn", "cka", "distance_change", "spectrum",
    "survival", "survival_gaussian", "time_persistence",
)  # fmt: skip
RECORD = "training.json"  # of a run that is done: its losses, and the hash of its weights
SCHEDULES = {  # our name: that of transformers
    "constant": "constant_with_warmup",
    "cosine": "cosine",
}


@dataclass(frozen=True)
class Run:
    """Which run: what it trains on, by which schedule, from which seed, and at every how many steps it is sampled."""

    condition: str
    schedule: str
    seed: int
    every: int

    @property
    def name(self) -> str:
        return f"{self.condition}-{self.schedule}-seed{self.seed:02d}-every{self.every}"


def groups() -> dict[str, list[Run]]:
    """The runs by what they are for; a run may be in several groups and is carried out once."""
    first, second, *more = kind_names()
    pairs = [
        Run(condition, schedule, seed, EVERY)
        for schedule in SCHEDULES
        for seed in range(SEEDS)
        for condition in (first, f"{first}-to-{second}")
    ]
    return {
        "pairs": pairs,
        "densities": [Run(f"{first}-to-{second}", "constant", 0, every) for every in (1, EVERY, 16)],
        "quiet": [Run(first, "constant", seed, EVERY) for seed in range(QUIET)],
        "far": [
            Run(f"{first}-to-{kind}", schedule, seed, EVERY)
            for schedule in SCHEDULES
            for seed in range(SEEDS)
            for kind in more
        ],
        "objectives": [
            Run(condition, schedule, seed, EVERY)
            for schedule in SCHEDULES
            for seed in range(SEEDS)
            for condition in (first, second, "mixed")
        ],
    }


def base_model(work: Path) -> Path:
    """The folder of the pretrained model, which is made there unless it is there already."""
    folder = work / "base_model"
    if not (folder / "config.json").is_file():
        corpus = gather_corpus()
        tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
        model = build_model(tokenizer, layers=DEPTH, width=WIDTH, seed=0)
        with one_thread(enabled=True):
            losses = pretrain(model, token_stream(tokenizer, corpus.reference), steps=PRETRAINING_STEPS, seed=0)
        print(f"pretrained: loss {losses[0]:.2f} -> {sum(losses[-20:]) / 20:.2f} nats per token", flush=True)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)  # the configuration comes with it, last
    return folder


def carry_out(runs: Iterable[Run], work: Path, executor: Executor) -> None:
    """Train every run that is not there yet; each leaves its trajectory and training.json in its folder.

    Several processes may do this with the same runs: each takes those that no other one is at.
    """
    base = base_model(work)
    tokenizer = AutoTokenizer.from_pretrained(base)
    kinds = gather_kinds(gather_corpus(), tokenizer)
    print({name: len(rows) for name, rows in kinds.rows.items()}, "rows,", len(kinds.probe), "prompts", flush=True)
    with quiet_libraries(), one_thread(enabled=True):
        for run in runs:
            folder = work / "runs" / run.name
            with _claim(folder) as ours:
                if ours and not (folder / RECORD).is_file():
                    seconds = _train(run, base, kinds, tokenizer, folder, executor)
                    print(f"{run.name}: {seconds:.1f} s of the training process", flush=True)


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether this process is the one to carry out a run; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claim").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _train(run: Run, base: Path, kinds: Kinds, tokenizer, folder: Path, executor: Executor) -> float:
    from datasets import Dataset

    started = time.process_time()
    config = TopologyConfig(
        layers=LAYERS, max_tokens=LONGEST_PROBE, measures=MEASURES, steps=range(0, STEPS + 1, run.every),
        max_overhead=None, time_window=None, pictures=0, drain_seconds=600.0, threads=1,
    )  # fmt: skip
    watch = TopologyCallback(kinds.probe, config=config, processing_class=tokenizer, executor=executor, sinks=[])
    arguments = SFTConfig(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, max_length=LONGEST,
        learning_rate=LEARNING_RATE, lr_scheduler_type=SCHEDULES[run.schedule], warmup_steps=WARM_UP,
        train_sampling_strategy="sequential", seed=run.seed, logging_steps=1, save_strategy="no", report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=arguments,
        train_dataset=Dataset.from_list(rows_of_run(kinds, run.condition, run.seed, STEPS * BATCH, SWITCH * BATCH)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[watch],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()
    logs = [row for row in trainer.state.log_history if "loss" in row]
    digest = hashlib.sha256()
    for name, weight in sorted(trainer.model.named_parameters()):
        if weight.requires_grad:
            digest.update(name.encode() + weight.detach().numpy().tobytes())
    record = {
        "run": run.name,
        "weights": digest.hexdigest(),
        "threads": torch.get_num_threads(),
        **{key: [row[key] for row in logs] for key in ("step", "loss", "grad_norm", "learning_rate")},
    }
    seconds = time.process_time() - started
    (folder / RECORD).write_text(json.dumps({**record, "seconds": round(seconds, 1)}))
    return seconds
