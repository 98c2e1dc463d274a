"""What a sample of the demo's probe costs in a fine-tuning of SmolLM2-135M-Instruct, in training steps of 8 rows.

    python benchmarks/real_model_cost.py

The demo's model, trainer, rows and probe (64 requests in two groups, 32 passages of general text, 8 of 30 layers), one
thread. Rows are those of the demo, or as long as its recipe allows (96 tokens). Seconds are those that the training
thread had a processor, medians of four steps without a sample and of three samples after the two in which reading is
proved. Writes RESULTS_real_model_cost.md; what is below its heading "Read with this" is kept.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from real_model import KEPT
from real_model_rows import paragraphs
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.demo import fine_tuning, refusals, smollm2
from topo_callback.demo.run import CHAT_PROMPTS
from topo_callback.libraries import quiet_libraries

SAMPLED = (0, 1, 4, 7, 10)  # the reading is proved at the first two
STEPS = 10
RESULTS = Path(__file__).parent / "RESULTS_real_model_cost.md"


class Clock(TrainerCallback):
    """Readings of the training thread's processor time at the ends of steps, before or after a sample is taken."""

    def __init__(self) -> None:
        self.begun: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.begun[state.global_step + 1] = time.thread_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.ended[state.global_step] = time.thread_time()


def measure(dtype: torch.dtype, *, longest: bool, folder: Path) -> tuple[float, float, float]:
    """Tokens of a padded row, in the mean; seconds of a training step, and of a sample."""
    source = smollm2.smollm2_folder()
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    training, held_out = refusals.chat_rows(model, tokenizer, source / "topo_callback-answers.json")
    if longest:
        texts = paragraphs(len(training))
        training = [
            {**row, "completion": [{"role": "assistant", "content": text}]}
            for row, text in zip(training, texts * len(training), strict=False)
        ]
    fine_tuning.prepare_tokenizer(tokenizer, conversational=True)
    before, after, lengths = Clock(), Clock(), []
    config = TopologyConfig(steps=SAMPLED, max_overhead=None, pictures=0, page=False, drain_seconds=600.0, threads=1)
    watch = TopologyCallback(refusals.probe_rows(CHAT_PROMPTS), config=config, processing_class=tokenizer)
    recipe = dataclasses.replace(fine_tuning.CHAT, steps=STEPS)
    trainer = fine_tuning.make_trainer(
        model, tokenizer, training, held_out[:8], recipe=recipe, small=True, folder=folder,
        callbacks=[before, watch, after],
    )  # fmt: skip
    collate = trainer.data_collator

    def noted(rows: Any) -> Any:
        batch = collate(rows)
        lengths.append(batch["input_ids"].shape[1])
        return batch

    trainer.data_collator = noted
    trainer.train()
    step = statistics.median(before.ended[each] - before.begun[each] for each in range(2, STEPS) if each not in SAMPLED)
    sample = statistics.median(after.ended[each] - before.ended[each] for each in SAMPLED[2:])
    return statistics.mean(lengths), step, sample


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "# What a sample costs in a fine-tuning of a real model",
        "",
        "`python benchmarks/real_model_cost.py`",
        "",
        describe_machine(),
        "",
        "| weights | rows | tokens of a padded row | a step of 8 rows, s | a sample of 64 prompts, s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    with quiet_libraries():
        for dtype in (torch.float32, torch.bfloat16):
            for longest in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    tokens, step, sample = measure(dtype, longest=longest, folder=Path(folder))
                kind = "as long as allowed" if longest else "the demo's"
                lines.append(
                    f"| {str(dtype).removeprefix('torch.')} | {kind} | {tokens:.0f} | {step:.2f} | {sample:.2f} | "
                    f"{sample / step:.2f} |"
                )
                print(lines[-1], flush=True)
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.is_file() else ""
    RESULTS.write_text("\n".join(lines) + "\n" + (KEPT + kept if kept else ""))


if __name__ == "__main__":
    main()
