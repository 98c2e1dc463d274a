"""Small runs of ms-swift in a process of their own; prints a hash of the weights of each.

    python ms_swift_run.py FOLDER KIND,WATCH [KIND,WATCH ...]

FOLDER holds what `prepare` writes, and is the working directory. WATCH: none | callback.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors_hash import weights_hash
from tiny import tiny_llama, tiny_tokenizer

COMMON: dict[str, Any] = {
    "model": "model", "model_type": "llama", "template": "dummy", "dataset": ["sums.jsonl"], "max_steps": 3,
    "per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1, "save_steps": 3, "report_to": "none",
    "torch_dtype": "float32", "seed": 3, "data_seed": 3, "max_length": 64, "add_version": False,
    "save_only_model": True, "gradient_accumulation_steps": 1, "dataloader_num_workers": 0, "use_hf": True,
    "split_dataset_ratio": 0.0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "full": {"tuner_type": "full"},
    "lora": {"tuner_type": "lora", "lora_rank": 4, "lora_dropout": 0.1},
}
SETTINGS = {
    "TOPO_PROMPTS": "12", "TOPO_NEIGHBOURS": "3", "TOPO_MEASURES": "scale", "TOPO_MAX_OVERHEAD": "none",
    "TOPO_PICTURES": "0", "TOPO_DRAIN_SECONDS": "200",
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Write a model, its tokenizer and a data set."""
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=3).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [(f"What do {i} and {i * 7 % 23} make?", str(i + i * 7 % 23)) for i in range(24)]
    lines = [json.dumps({"query": question, "response": answer}) + "\n" for question, answer in rows]
    (folder / "sums.jsonl").write_text("".join(lines))


def train(kind: str, watch: str) -> str:
    from swift import SftArguments, sft_main

    from topo_callback.integrations import ms_swift

    output_dir = f"{kind},{watch}"
    plugins = {} if watch == "none" else {"external_plugins": [str(ms_swift.__file__)], "callbacks": [ms_swift.NAME]}
    sft_main(SftArguments(**COMMON, **KINDS[kind], **plugins, output_dir=output_dir))
    return weights_hash(Path(output_dir) / "checkpoint-3")


def main(folder: str, *runs: str) -> None:
    os.chdir(folder)
    os.environ.update(SETTINGS)
    print(json.dumps({run: train(*run.split(",")) for run in runs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
