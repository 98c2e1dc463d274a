"""Do alignment objectives differ by more than their seeds? Helpful, harmless and mixed, five seeds each, one report.

python examples/objectives.py --dataset FOLDER    # offline, a small model; helpful.jsonl.gz and harmless.jsonl.gz there
python examples/objectives.py --model Qwen/Qwen2.5-0.5B --dataset Anthropic/hh-rlhf --steps 400    # from the hub

Every run fine-tunes a LoRA adapter on the preferred answers of its objective. `topo-callback compare` and
`topo-callback report` say the same of runs that are there already.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from pathlib import Path
from random import Random

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.comparison import compare_runs, load_runs, write_comparison, write_tables
from topo_callback.demo.surroundings import offline_model, one_thread
from topo_callback.libraries import quiet_libraries
from topo_callback.page import report_page, write_page

KINDS = ("helpful", "harmless")
OBJECTIVES = (*KINDS, "mixed")
SPEAKER = re.compile(r"(?:\A|\n\n)(?:Human|Assistant):\s*")


def main() -> None:
    parser = argparse.ArgumentParser(description="Objectives against seeds, watched by topo_callback.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument(
        "--dataset", required=True, help="folder with helpful.jsonl and harmless.jsonl (or .jsonl.gz), or hub name"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("objectives"), help="finished runs in it are kept")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each objective")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="rows per step")
    parser.add_argument("--probe-size", type=int, default=96, help="prompts, half of each kind, never trained on")
    parser.add_argument("--longest", type=int, default=400, help="characters of a row; longer ones are left out")
    parser.add_argument("--learning-rate", type=float, help="default: 4e-3 for the small model, 2e-4 for others")
    given = parser.parse_args()

    rows, probe = rows_and_probe(given.dataset, given.probe_size, given.longest)
    model = given.model or small_model(given.output_dir / "base_model")
    rate = given.learning_rate or (2e-4 if given.model else 4e-3)
    runs: dict[str, list[str | Path]] = {}
    for number, objective in enumerate(OBJECTIVES):
        for repeat in range(given.seeds):
            # every run has a seed of its own: with five shared ones no claim about a pair could reach 5 %
            seed = number * given.seeds + repeat
            folder = given.output_dir / f"{objective}-{seed}"
            if not is_finished(folder):
                print(f"training on {objective}, seed {seed}")
                # for matrices as small as the offline model's, the other core is better left to the worker
                with quiet_libraries(), one_thread(enabled=given.model is None):
                    train(model, rows_of(objective, rows, seed), probe, folder, seed, given.steps, given.batch, rate)
            runs.setdefault(objective, []).append(folder)

    comparison = compare_runs(load_runs(runs))
    write_comparison(comparison, given.output_dir / "comparison")  # numbers as JSON, figures as PNG and SVG
    write_tables(comparison, sys.stdout)
    trajectories = [Trajectory.load(folder) for folders in runs.values() for folder in folders]
    objectives = [objective for objective, folders in runs.items() for _ in folders]
    print(f"wrote {write_page(given.output_dir / 'report.html', report_page(trajectories, objectives=objectives))}")


def train(
    model: str,
    rows: list[dict[str, str]],
    probe: list[str],
    folder: Path,
    seed: int,
    steps: int,
    batch: int,
    rate: float,
) -> None:
    """One run; its trajectory is in `folder`."""
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            seed=seed,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=rate,
            max_length=512,
            logging_steps=5,
            save_strategy="no",
            disable_tqdm=True,
            bf16=torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[
            TopologyCallback(
                probe,
                # every objective has to have the same samples, so none is left out to save time
                config=TopologyConfig(samples=8, max_overhead=None, pictures=0, drain_seconds=300),
                sinks=[],
            )
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def rows_and_probe(source: str, prompts: int, longest: int) -> tuple[dict[str, list[dict[str, str]]], list[str]]:
    """Rows of each kind to train on, as many of one as of the other, and the prompts of the probe."""
    rows, probe = {}, []
    for kind in KINDS:
        read_rows = (conversation(row, longest) for row in read(source, kind))
        found = {row["prompt"]: row for row in read_rows if row is not None}
        kept = list(found.values())  # every prompt once
        Random(0).shuffle(kept)
        if len(kept) <= prompts // 2:
            raise SystemExit(f"{source} has {len(kept)} usable {kind} rows; more than {prompts // 2} are needed")
        probe += [row["prompt"] for row in kept[: prompts // 2]]
        rows[kind] = kept[prompts // 2 :]
    fewest = min(map(len, rows.values()))
    return {kind: kept[:fewest] for kind, kept in rows.items()}, probe


def rows_of(objective: str, rows: dict[str, list[dict[str, str]]], seed: int) -> list[dict[str, str]]:
    """The rows of one run, in the order of its seed; mixed: half of each kind."""
    if objective in rows:
        chosen = list(rows[objective])
        Random(seed).shuffle(chosen)
        return chosen
    halves = [row for kind in rows for row in rows_of(kind, rows, seed)[: len(rows[kind]) // 2]]
    Random(seed).shuffle(halves)
    return halves


def read(source: str, kind: str) -> list[dict[str, str]]:
    """Rows with prompt and completion, or with chosen: whole conversations as Anthropic/hh-rlhf has them."""
    for name, opened in ((f"{kind}.jsonl", open), (f"{kind}.jsonl.gz", gzip.open)):
        file = Path(source) / name
        if file.is_file():
            with opened(file, "rt", encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
    if Path(source).is_dir():
        raise SystemExit(f"{source} has neither {kind}.jsonl nor {kind}.jsonl.gz")
    return list(load_dataset(source, data_dir=f"{kind}-base", split="train"))


def conversation(row: dict[str, str], longest: int) -> dict[str, str] | None:
    """A row in one form for all sources, "Human: ... Assistant:" and the answer; None where it is empty or too long."""
    prompt, answer = (
        (row["prompt"], row["completion"]) if "prompt" in row else row["chosen"].rsplit("\n\nAssistant:", 1)
    )
    turns = [turn.strip() for turn in SPEAKER.split(prompt) if turn.strip()]
    if not turns or not answer.strip() or len(prompt) + len(answer) > longest:
        return None
    speakers = ("Human", "Assistant")
    text = "\n\n".join(f"{speakers[number % 2]}: {turn}" for number, turn in enumerate(turns))
    return {"prompt": f"{text}\n\nAssistant:", "completion": f" {answer.strip()}"}


def small_model(folder: Path) -> str:
    """The small model; built once."""
    return str(folder) if (folder / "config.json").is_file() else offline_model(folder, pretraining_steps=240)


def is_finished(folder: Path) -> bool:
    return (folder / "topology" / "latest").is_file() and Trajectory.load(folder).state == "finished"


if __name__ == "__main__":
    main()
