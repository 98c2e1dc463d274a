"""A training loop written by hand, without a Trainer, watched by topo_callback.

python examples/own_loop.py                                                         # offline, a small model
python examples/own_loop.py --model Qwen/Qwen2.5-0.5B                               # from the hub
torchrun --nproc_per_node 2 examples/own_loop.py                                    # DistributedDataParallel
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, AutoTokenizer

import topo_callback
from topo_callback.demo.surroundings import offline_model, offline_questions

BATCH, ACCUMULATED, LENGTH = 8, 2, 96


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain PyTorch loop, watched by topo_callback.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument("--output-dir", default="own-loop")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()

    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(0)
    # every process builds the small model in a folder of its own: they are equal
    name = given.model or offline_model(f"{given.output_dir}/base_model-{rank}")
    tokenizer = AutoTokenizer.from_pretrained(name)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(name).to(device)
    if ranks > 1:
        model = DistributedDataParallel(model)

    questions = offline_questions()
    texts = [f"{row['prompt']}{row['completion']}" for row in questions]
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=given.steps)
    draw = torch.Generator().manual_seed(rank)

    with topo_callback.watch(
        model,
        [row["prompt"] for row in questions[:200]],
        folder=given.output_dir,
        total_steps=given.steps,
        processing_class=tokenizer,
        optimizer=optimizer,
        scheduler=scheduler,
        batch_size=BATCH * ACCUMULATED,
        seed=0,
    ) as watched:
        for _ in range(given.steps):
            losses = []
            for _ in range(ACCUMULATED):
                chosen = torch.randint(len(labels), (BATCH,), generator=draw)
                batch = {key: value[chosen].to(device) for key, value in rows.items() if key != "token_type_ids"}
                loss = model(**batch, labels=labels[chosen].to(device)).loss / ACCUMULATED
                loss.backward()
                losses.append(loss.detach())
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            watched.step(loss=torch.stack(losses).sum(), grad_norm=norm)
            optimizer.zero_grad()
            if watched.should_stop:
                break

    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
