"""A loop of one's own on one of several ranks, without and with `watch`, and with a reading that fails on one rank.

python loop_rank_run.py FOLDER
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ranks_launch import begin_rank, warnings_noted, write_seen
from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from torch.nn.parallel import DistributedDataParallel

import topo_callback
from topo_callback import TopologyConfig

CONFIG = TopologyConfig(**{**LIGHT, "engine": "gudhi", "zigzag_engine": "off", "drain_seconds": 60.0})


def train(folder: Path, rank: int, *, watched: bool, fails: bool = False) -> dict[str, Any]:
    """Four steps under DistributedDataParallel; what this rank sees of them."""
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    model = DistributedDataParallel(tiny_llama(tokenizer, layers=3))
    rows = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24, return_tensors="pt")[
        "input_ids"
    ]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(rank)
    broken: list[str] = []

    def fail(block: Any, given: Any) -> None:
        if broken and not block.training:
            raise MemoryError(broken[0])

    hook = model.module.model.layers[1].register_forward_pre_hook(fail)
    watch = None
    if watched:
        watch = topo_callback.watch(
            model, TEXTS, folder=folder, total_steps=4, config=CONFIG, processing_class=tokenizer, optimizer=optimizer,
            sinks=[],
        )  # fmt: skip
    if fails and rank == 1:
        broken.append("planted on one rank")
    try:
        for _ in range(4):
            batch = rows[torch.randint(len(rows), (4,), generator=draw)]
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            optimizer.step()
            if watch is not None:
                watch.step(loss=loss)
            optimizer.zero_grad()
        if watch is not None:
            watch.finish()
    finally:
        hook.remove()
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    left = weights + torch.get_rng_state().numpy().tobytes()
    return {"left": hashlib.sha256(left).hexdigest(), "folder": watch is not None and watch.folder is not None}


def main() -> None:
    folder = Path(sys.argv[1])
    rank = begin_rank(60)
    with warnings_noted() as warnings:
        seen = {
            "alone": train(folder / "alone", rank, watched=False),
            "watched": train(folder / "watched", rank, watched=True),
            "fails": train(folder / "fails", rank, watched=True, fails=True),
        }
    write_seen(folder, rank, {**seen, "warnings": warnings})
    sys.stdout.flush()
    os._exit(0)  # as rank_run.py


main()
