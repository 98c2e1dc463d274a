"""Small TRL runs, quiet ones and ones with a planted event, and what their trainers log, for benchmarks/logged.py.

    python benchmarks/logged_runs.py --work FOLDER [--only KIND ...]

A Llama of 4 blocks and width 64, pretrained for 400 steps on the reference text of the demo, goes on for 128 steps of 4
rows (GRPO: 4 completions of 2 prompts) under SFT, DPO and GRPO at a constant rate, logging every step. An event begins
after step 64. Runs that FOLDER does not have yet are carried out, and all are packed into data/logged.npz: for each
run, float32 [steps, numbers], NaN where nothing was logged.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
from topo_callback.demo.surroundings import offline_preferences, offline_questions
from topo_callback.records.logged_numbers import LOGGED, numbers_in
from topo_callback.watching.weight_path import WeightPath

PACKED = Path(__file__).parent / "data" / "logged.npz"
STEPS, EVENT = 128, 64
NUMBERS = ("loss", "grad_norm", "moved", *LOGGED)
KINDS = {
    "quiet-sft": 12, "quiet-dpo": 12, "quiet-grpo": 12,
    "constant-sft": 4, "rate-sft": 4, "swapped-dpo": 4, "rate-dpo": 4, "flipped-grpo": 4, "rate-grpo": 4,
}  # fmt: skip


class Event(TrainerCallback):
    """Keeps what is logged, and makes the event of a kind."""

    def __init__(self, kind: str) -> None:
        self.kind, self.rows, self.happened = kind, {}, False

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.happened = state.global_step >= EVENT
        if self.happened and self.kind == "rate":
            for group in optimizer.param_groups:
                group["lr"] = 8 * args.learning_rate

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.path = WeightPath(model, seed=0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.path.step_ended()
        self.rows[state.global_step] = {"moved": float(self.path.moved)}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        own = {name: logs[name] for name in ("loss", "grad_norm") if name in logs}
        self.rows.get(state.global_step, {}).update({**own, **numbers_in(logs)})


class Rows:
    """Rows in a seeded order, others once the event has happened."""

    def __init__(self, rows: list[dict[str, str]], seed: int, kind: str, batch: int) -> None:
        rows = [row for row in rows if len(row.get("completion", row.get("chosen", ""))) < 400]
        random.Random(seed).shuffle(rows)
        self.rows = rows[: STEPS * batch]
        for place in range(EVENT * batch, len(self.rows)):
            row = self.rows[place]
            if kind == "constant":
                self.rows[place] = {**row, "completion": " I cannot help with that."}
            if kind == "swapped":
                self.rows[place] = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def make_base(folder: Path) -> None:
    corpus = gather_corpus()
    tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
    model = build_model(tokenizer, layers=4, width=64)
    pretrain(model, token_stream(tokenizer, corpus.reference), steps=400)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def carry_out(base: str, name: str, scratch: Path) -> np.ndarray:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    kind, method, seed = name.replace("_", "-").split("-")
    event = Event(kind)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    shared: dict[str, Any] = {
        "output_dir": str(scratch), "max_steps": STEPS, "logging_steps": 1, "seed": int(seed), "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "lr_scheduler_type": "constant", "bf16": False,
        "gradient_checkpointing": False, "shuffle_dataset": False, "dataloader_pin_memory": False,
    }  # fmt: skip
    given: dict[str, Any] = {"processing_class": tokenizer, "callbacks": [event]}
    if method == "grpo":
        rows = Rows(offline_questions(), int(seed), kind, 2).rows

        def vowels(completions: list[str], **_: Any) -> list[float]:
            """How much of a completion is vowels; after the event how little."""
            share = [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]
            return [-each for each in share] if event.happened and kind == "flipped" else share

        config = GRPOConfig(
            **shared, learning_rate=5e-4, beta=0.04, num_generations=4, per_device_train_batch_size=8,
            max_completion_length=12,
        )  # fmt: skip
        prompts = Dataset.from_list([{"prompt": row["prompt"][-120:]} for row in rows])
        trainer: Any = GRPOTrainer(model, vowels, config, train_dataset=prompts, **given)
    elif method == "dpo":
        config = DPOConfig(**_without(shared), learning_rate=1e-3, per_device_train_batch_size=4, max_length=64)
        rows = Rows(offline_preferences(seed=int(seed)), int(seed), kind, 4).rows
        trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(rows), **given)
    else:
        config = SFTConfig(**_without(shared), learning_rate=1e-3, per_device_train_batch_size=4, max_length=64)
        rows = Rows(offline_questions(), int(seed), kind, 4).rows
        trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), **given)
    if method != "grpo":
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()
    return np.array(
        [[event.rows.get(step, {}).get(each, np.nan) for each in NUMBERS] for step in range(1, STEPS + 1)], np.float32
    )


def _without(shared: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shared.items() if name != "shuffle_dataset"}


def names() -> Iterator[str]:
    for kind, count in KINDS.items():
        yield from (f"{kind}_{seed}" for seed in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="KIND")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = given.work / "base"
    if not base.exists():
        make_base(base)
    for name in names():
        file = given.work / f"{name}.npy"
        if file.exists() or (given.only and name.rsplit("_", 1)[0] not in given.only):
            continue
        start = time.perf_counter()
        np.save(file, carry_out(str(base), name, given.work / "scratch"))
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    if not given.only:
        held = {
            kind: np.stack([np.load(given.work / f"{kind}_{n}.npy") for n in range(count)])
            for kind, count in KINDS.items()
        }
        np.savez_compressed(PACKED, allow_pickle=False, **held)


if __name__ == "__main__":
    main()
