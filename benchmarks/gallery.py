"""Four ways in which a fine-tuning run goes, side by side: what the callback shows of each.

    python benchmarks/gallery.py FOLDER [--seeds 3] [--steps 120]

One small Llama is pretrained as in `topo-callback demo`. From it, with each seed, four LoRA runs learn: the answers of
the demo at its learning rate (healthy), at a rate 30 times as high, one constant answer to every question (collapse),
and 32 rows again and again (forgetting). All are watched on the same 160 prompts, which none of them trains on. Writes
docs/gallery-NAME.png, of the first seed, and RESULTS_gallery.md: the numbers of all seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from rich.console import Console

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.demo.corpus import Corpus, gather_corpus
from topo_callback.demo.fine_tuning import SMALL, make_trainer, prepare_tokenizer
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
from topo_callback.demo.run import HELD_OUT_ROWS, PRETRAINING_STEPS
from topo_callback.figures.figures import trajectory_figure
from topo_callback.libraries import quiet_libraries
from topo_callback.probe.data_rows import Row

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PROBE_PROMPTS = 160
FORGETTING_ROWS = 32
RATE_FACTOR = 30
KINDS = ("healthy", "rate", "collapse", "forgetting")
MEASURES = {
    "neighbours kept since the start": ("mutual_knn.first", 1),
    "effective rank, end over start": ("effective_rank", None),
    "median distance, end over start": ("median_distance", None),
    "displacement of loops since the start": ("wasserstein_h1.first", 1),
    "CKA with the start": ("cka.first", 1),
}


def rows_of(kind: str, corpus: Corpus, rows: Sequence[Row]) -> list[Row]:
    """What a run trains on."""
    if kind == "collapse":
        return [{**row, "completion": " It depends."} for row in rows]
    if kind == "forgetting":
        return list(rows[:FORGETTING_ROWS])
    return list(rows)


def train(kind: str, base: Path, corpus: Corpus, folder: Path, seed: int, steps: int) -> dict[str, float]:
    """One run; its numbers at the end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    prepare_tokenizer(tokenizer, conversational=False)
    rate = SMALL.learning_rate * (RATE_FACTOR if kind == "rate" else 1)
    prompts = [row["prompt"] for row in corpus.training_rows[-PROBE_PROMPTS:]]
    config = TopologyConfig(samples=16, max_overhead=None, drain_seconds=600.0, pictures=0)
    trainer = make_trainer(
        model,
        tokenizer,
        rows_of(kind, corpus, corpus.training_rows[:-PROBE_PROMPTS]),
        corpus.held_out_rows[:HELD_OUT_ROWS],
        recipe=dataclasses.replace(SMALL, steps=steps, learning_rate=rate),
        small=True,
        folder=folder,
        seed=seed,
        callbacks=[TopologyCallback(prompts, config=config, processing_class=tokenizer)],
    )
    before = reference_loss(trainer.model, tokenizer, corpus)
    trainer.train()
    losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    found = {
        "held-out loss at the end": losses[-1],
        "training loss at the end": [row["loss"] for row in trainer.state.log_history if "loss" in row][-1],
        "loss on the text of pretraining, end less start": reference_loss(trainer.model, tokenizer, corpus) - before,
    }
    trajectory = Trajectory.load(folder)
    for name, (measure, scale) in MEASURES.items():
        values = trajectory.array(measure)
        ratio = values[-1] / (values[0] if scale is None else scale)
        found[name] = float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else math.nan
    return found


@torch.no_grad()
def reference_loss(model: Any, tokenizer: Any, corpus: Corpus) -> float:
    """Nats per token on windows of the text that the base model was pretrained on."""
    tokens = token_stream(tokenizer, corpus.reference)
    starts = torch.linspace(0, len(tokens) - 65, 64).long()
    windows = tokens[starts[:, None] + torch.arange(64)]
    training = model.training
    model.eval()
    loss = float(model(input_ids=windows, labels=windows, use_cache=False).loss)
    model.train(training)
    return loss


def pretrained(corpus: Corpus, folder: Path) -> Path:
    tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
    model = build_model(tokenizer, seed=0)
    pretrain(model, token_stream(tokenizer, corpus.reference), steps=PRETRAINING_STEPS, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def table(found: dict[str, list[dict[str, float]]]) -> str:
    names = list(found["healthy"][0])
    lines = ["| | " + " | ".join(KINDS) + " |", "|---|" + "---|" * len(KINDS)]
    for name in names:
        cells = []
        for kind in KINDS:
            values = np.array([run[name] for run in found[kind]])
            cells.append(f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe_machine()
    console = Console()
    with quiet_libraries():
        corpus = gather_corpus()
        base = pretrained(corpus, given.folder / "base")
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for seed in range(given.seeds):
            for kind in KINDS:
                folder = given.folder / f"{kind}-{seed}"
                found[kind].append(train(kind, base, corpus, folder, seed, given.steps))
                console.print(kind, seed, found[kind][-1])
                if seed == 0:
                    picture = trajectory_figure(Trajectory.load(folder))
                    picture.savefig(DOCS / f"gallery-{kind}.png", dpi=110)
    runs = f"- {given.seeds} seeds, {given.steps} steps of {SMALL.batch} rows; medians over the layers"
    text = f"# Four ways in which a run goes\n\n{machine}\n{runs}: mean (least to largest)\n\n{table(found)}\n"
    (HERE / "RESULTS_gallery.md").write_text(text)


if __name__ == "__main__":
    main()
