"""Small GRPO runs, quiet ones and ones in which a failure of RL is planted, for benchmarks/rl.py.

    python benchmarks/rl_runs.py --work FOLDER [--only KIND ...]

A Llama of 4 blocks and width 64, pretrained on the reference text of the demo for 400 steps and for 150 on short
answers that end, goes on under TRL's GRPO for 128 steps of 2 prompts with 4 completions of at most 16 tokens, at a
constant rate unless the kind says otherwise, logging every step. The callback samples every 8 steps; its probe is the
prompts of the rollouts. A failure begins after step 64: the reward asks for something else, as a broken reward does.

Runs whose kind begins with "fresh-" are of other seeds, and have no samples: what was chosen on the others is tried on
them. Runs that FOLDER does not have yet are carried out, and all are packed into data/rl.npz: float32 [runs, steps,
numbers] of every kind, NaN where nothing was logged, and the events that were found, as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from logged_runs import Event, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.demo.surroundings import offline_questions
from topo_callback.dynamics import Series, find_events
from topo_callback.records.logged_numbers import LOGGED

PACKED = Path(__file__).parent / "data" / "rl.npz"
STEPS, EVENT, EVERY = 128, 64, 8
COLUMNS = ("loss", "grad_norm", "moved", "planned", *LOGGED)
MEASURES = ("next_token_tv.first", "mutual_knn.first")  # answers moved and structure kept, at every sample
QUIET = {"quiet-vowels": 7, "quiet-linear": 6, "quiet-free": 6, "quiet-spaces": 6}
PLANTED = {"entropy": 4, "length": 4, "constant": 4, "hack": 4}
FRESH = {
    "fresh-quiet-vowels": 2, "fresh-quiet-linear": 2, "fresh-quiet-free": 1, "fresh-quiet-spaces": 1,
    "fresh-entropy": 1, "fresh-length": 1, "fresh-constant": 1, "fresh-hack": 1,
}  # fmt: skip
APART = 100  # between the seeds of fresh runs and those of the others
CONSTANT = " It returns a new list of the given object."


def vowels(text: str, tokens: int) -> float:
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))


def spaces(text: str, tokens: int) -> float:
    return text.count(" ") / max(1, len(text))


def repeated(text: str, tokens: int) -> float:
    """How much of a text is its most frequent letter: what is rewarded is one token, again and again."""
    return 3 * max(Counter(text).values(), default=0) / max(1, len(text))


def long(text: str, tokens: int) -> float:
    return tokens / 16


def constant(text: str, tokens: int) -> float:
    """Overlap with one text in pairs of letters, whatever the prompt."""
    wanted = {CONSTANT[place : place + 2] for place in range(len(CONSTANT) - 1)}
    found = {text[place : place + 2] for place in range(len(text) - 1)}
    return 3 * len(wanted & found) / max(1, len(wanted | found))


def broken(text: str, tokens: int) -> float:
    """A checker that can be satisfied by any sign of punctuation."""
    return 5.0 * any(letter in ".,:;()'\"" for letter in text) + 5.0 * text.count(".") / max(1, len(text))


Reward = Callable[[str, int], float]
AFTER: dict[str, Reward] = {
    "entropy": repeated, "length": long, "constant": constant, "hack": broken,
}  # fmt: skip


class Planted(TrainerCallback):
    """Knows whether the failure has begun."""

    happened = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.happened = state.global_step >= EVENT


def short_answers(base: Path) -> None:
    """Teach the base answers of a few words that end, so that completions have lengths."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = [row for row in offline_questions() if len(row["completion"]) > 20]
    chance = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(150):
        texts = [row["prompt"][-120:] + answer_of(row, chance) + tokenizer.eos_token for row in chance.sample(rows, 8)]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=72, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for row, text in enumerate(texts):  # the end counts, also where it is the padding's token
            length = len(tokenizer(text)["input_ids"])
            if length <= labels.shape[1]:
                labels[row, length - 1] = tokenizer.eos_token_id
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(base)


def answer_of(row: dict[str, str], chance: random.Random) -> str:
    return " ".join(row["completion"].split(" ")[: chance.randint(2, 5)])


def carry_out(base: str, name: str, scratch: Path) -> tuple[np.ndarray, str]:
    """The numbers of a run, and what was found in it as JSON; nothing of a fresh one."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    kind, _, number = name.rpartition("_")
    fresh, kind = kind.startswith("fresh-"), kind.removeprefix("fresh-")
    seed = int(number) + APART * fresh
    planted, logged = Planted(), Event("none")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = [row for row in offline_questions() if len(row["completion"]) < 400]
    random.Random(seed).shuffle(rows)
    prompts = [row["prompt"][-120:] for row in rows[: 2 * STEPS]]
    usual: Reward = spaces if kind == "quiet-spaces" else vowels

    def reward(completions: list[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        chosen = AFTER.get(kind, usual) if planted.happened else usual
        return [chosen(text, len(ids)) for text, ids in zip(completions, completion_ids, strict=True)]

    shutil.rmtree(scratch, ignore_errors=True)
    callback = TopologyCallback(
        prompts[:48],  # what the policy is asked anyway
        processing_class=tokenizer,
        config=TopologyConfig(
            layers="all", steps=tuple(range(0, STEPS + 1, EVERY)), max_overhead=None, pictures=0, page=False,
            measures=("mutual_knn", "cka", "rtd", "distance_change", "scale", "spectrum"), next_token_prompts=48,
            general_text=0, zigzag_engine="off", errors=False, map_dimensions=0, actions=(), drain_seconds=120.0,
        ),
        sinks=[],
    )  # fmt: skip
    config = GRPOConfig(
        output_dir=str(scratch), max_steps=STEPS, logging_steps=1, seed=seed, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False,
        lr_scheduler_type="linear" if kind == "quiet-linear" else "constant", dataloader_pin_memory=False,
        shuffle_dataset=False, learning_rate=5e-4, beta=0.0 if kind == "quiet-free" else 0.04, num_generations=4,
        per_device_train_batch_size=8, max_completion_length=16,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward, config, train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer, callbacks=[planted, logged if fresh else callback],
    )  # fmt: skip
    trainer.train()
    if fresh:
        rates = {
            entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry
        }
        rows_of = [{"planned": rates.get(step, np.nan), **logged.rows.get(step, {})} for step in range(1, STEPS + 1)]
        return np.array([[row.get(each, np.nan) for each in COLUMNS] for row in rows_of], np.float32), "{}"
    trajectory = Trajectory.load(scratch)
    numbers = np.full((STEPS, len(COLUMNS)), np.nan, np.float32)
    for table in (trajectory.training_steps(), trajectory.logged_numbers()):
        places = table["step"].to_numpy() - 1
        for column in set(COLUMNS) & set(table.columns):
            numbers[places, COLUMNS.index(column)] = table[column].to_numpy(dtype=float, na_value=np.nan)
    found = [dataclasses.asdict(event) for event in find_events(Series.of(trajectory)).events]
    medians = {
        each: np.nanmedian(trajectory.array(each, _layers(each, trajectory)), axis=1).tolist() for each in MEASURES
    }
    return numbers, json.dumps({"events": found, "steps": list(trajectory.steps), "medians": medians})


def _layers(measure: str, trajectory: Trajectory) -> list[int | None]:
    return [None] if measure.startswith("next_token") else list(trajectory.layers)


def names() -> Iterator[str]:
    for kind, count in {**PLANTED, **QUIET, **FRESH}.items():
        yield from (f"{kind}_{seed}" for seed in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="KIND")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    base = given.work / "base"
    if not base.exists():
        make_base(base)
        short_answers(base)
    for name in sorted(names(), key=lambda name: int(name.rpartition("_")[2])):
        file = given.work / f"{name}.npz"
        if file.exists() or (given.only and name.rpartition("_")[0] not in given.only):
            continue
        start = time.perf_counter()
        numbers, found = carry_out(str(base), name, given.work / "scratch")
        np.savez_compressed(file, numbers=numbers, found=np.array(found))
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    if not given.only:
        pack(given.work)


def pack(work: Path) -> None:
    held: dict[str, np.ndarray] = {}
    for kind, count in {**PLANTED, **QUIET, **FRESH}.items():
        runs = [np.load(work / f"{kind}_{seed}.npz") for seed in range(count)]
        held[kind] = np.stack([run["numbers"] for run in runs])
        held[f"found-{kind}"] = np.array([str(run["found"]) for run in runs])
    np.savez_compressed(PACKED, allow_pickle=False, **held)


if __name__ == "__main__":
    main()
