"""A loop with accelerate, watched by topo_callback: prepared objects, accumulation, one process or several.

python examples/accelerate_loop.py                                                  # offline, a small model
accelerate launch --num_processes 2 examples/accelerate_loop.py --model Qwen/Qwen2.5-0.5B
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

import topo_callback
from topo_callback.demo.surroundings import offline_model, offline_questions

BATCH, ACCUMULATED, LENGTH = 8, 2, 96


def main() -> None:
    parser = argparse.ArgumentParser(description="A loop with accelerate, watched by topo_callback.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument("--output-dir", default="accelerate-loop")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()

    accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATED)
    set_seed(0)
    # every process builds the small model in a folder of its own: they are equal
    name = given.model or offline_model(f"{given.output_dir}/base_model-{accelerator.process_index}")
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    questions = offline_questions()
    rows = [
        tokenizer(f"{row['prompt']}{row['completion']}", padding="max_length", truncation=True, max_length=LENGTH)
        for row in questions
    ]
    examples = [{key: torch.tensor(row[key]) for key in ("input_ids", "attention_mask")} for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # accelerate steps the schedule once for each process at an optimizer step
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, given.steps * accelerator.num_processes)
    loader = DataLoader(examples, batch_size=BATCH, shuffle=True)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)

    watched = topo_callback.watch(
        model,
        [row["prompt"] for row in questions[:200]],
        folder=given.output_dir,
        total_steps=given.steps,
        processing_class=tokenizer,
        optimizer=optimizer,
        scheduler=scheduler,
        autocast={"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision),
        batch_size=BATCH * ACCUMULATED,
        seed=0,
    )
    with watched:
        while watched.steps_done < given.steps and not watched.should_stop:
            losses = []
            for batch in loader:
                with accelerator.accumulate(model):
                    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
                    loss = model(**batch, labels=labels).loss
                    accelerator.backward(loss)
                    losses.append(loss.detach() / ACCUMULATED)
                    norm = accelerator.clip_grad_norm_(model.parameters(), 1.0) if accelerator.sync_gradients else None
                    optimizer.step()
                    scheduler.step()
                    if accelerator.sync_gradients:
                        watched.step(loss=torch.stack(losses).sum(), grad_norm=norm)
                        losses = []
                    optimizer.zero_grad()
                if watched.steps_done == given.steps or watched.should_stop:
                    break
    accelerator.end_training()


if __name__ == "__main__":
    main()
