"""Small Axolotl runs in a process of their own, through the function behind `axolotl train`.

    python axolotl_run.py CONFIG [CONFIG ...]

The random state is set before each: Axolotl 0.19 draws the start of an adapter from an unseeded one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tiny import tiny_llama, tiny_tokenizer

COMMON: dict[str, Any] = {
    "base_model": "model",
    "val_set_size": 0,
    "sequence_len": 256,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_steps": 3,
    "optimizer": "adamw_torch",
    "lr_scheduler": "cosine",
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "dataset_num_proc": 1,
    "seed": 3,
    "use_cpu": True,
    # what else needs a GPU
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "flash_attention": False,
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
}
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True}
SUMS = {"datasets": [{"path": "sums.jsonl", "ds_type": "json", "type": "alpaca"}]}
PAIRS = {
    "rl": "dpo",
    "datasets": [
        {
            "path": "pairs.jsonl",
            "ds_type": "json",
            "split": "train",
            "type": {
                **{f"field_{name}": name for name in ("prompt", "chosen", "rejected")},
                **{f"{name}_format": f"{{{name}}}" for name in ("prompt", "chosen", "rejected")},
            },
        }
    ],
}
KINDS: dict[str, dict[str, Any]] = {
    "full": SUMS,
    "lora": {**SUMS, **LORA},
    "packed": {**SUMS, **LORA, "sample_packing": True, "pad_to_sequence_len": True, "micro_batch_size": 1},
    "dpo": {**PAIRS, **LORA},
}
WATCHED = {
    "plugins": ["topo_callback.integrations.axolotl.TopologyPlugin"],
    "topo_max_overhead": "none",
    "topo_drain_seconds": 200,
    "topo_measures": "scale",
    "topo_prompts": 12,
}


def prepare(folder: Path) -> None:
    """Write a model, its tokenizer and data sets."""
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=3).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    sums = [(f"What do {i} and {i * 7 % 23} make?", str(i + i * 7 % 23)) for i in range(24)]
    rows = [json.dumps({"instruction": question, "input": "", "output": answer}) for question, answer in sums]
    pairs = [json.dumps({"prompt": question, "chosen": answer, "rejected": "no"}) for question, answer in sums]
    (folder / "sums.jsonl").write_text("\n".join(rows))
    (folder / "pairs.jsonl").write_text("\n".join(pairs))


def main(*configs: str) -> None:
    import torch
    from axolotl.cli.train import do_cli

    sys.argv = sys.argv[:1]  # Axolotl reads further arguments by itself
    for config in configs:
        torch.manual_seed(3)
        do_cli(config)


if __name__ == "__main__":  # Axolotl counts packed batches in processes that import this file again
    main(*sys.argv[1:])
