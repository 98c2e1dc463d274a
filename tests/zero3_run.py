"""One rank of two fine-tuning runs under DeepSpeed's ZeRO-3, the second one watched; each rank writes what it saw.

python -m torch.distributed.run --nproc_per_node 2 zero3_run.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True,
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}},
}


def run(folder: Path, watched: bool) -> dict[str, Any]:
    import deepspeed
    import torch
    from small_runs import LIGHT, TEXTS
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig

    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    encoded = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    config = TopologyConfig(**LIGHT, layers="all", probe_batch=8, keep_distances=True, drain_seconds=200.0)
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, sinks=[])
    args = TrainingArguments(
        str(folder), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_steps=1, seed=3, deepspeed=ZERO3,
    )  # fmt: skip
    model = tiny_llama(tokenizer, layers=3)
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[callback] if watched else [])
    trainer.train()
    sharded = all(parameter.numel() == 0 for parameter in model.parameters())
    weights = hashlib.sha256()
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        for parameter in model.parameters():
            weights.update(parameter.detach().contiguous().numpy().tobytes())
    return {
        "sharded": sharded,
        "weights": weights.hexdigest(),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "folder": None if callback.folder is None else str(callback.folder),
    }


if __name__ == "__main__":
    root = Path(sys.argv[1])
    seen = {name: run(root / name, name == "watched") for name in ("unwatched", "watched")}
    (root / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))
