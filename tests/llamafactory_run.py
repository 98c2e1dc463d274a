"""Small LLaMA-Factory runs in a process of their own; prints a hash of the weights and what a probe would hold.

    python llamafactory_run.py FOLDER KIND,WATCH [KIND,WATCH ...]

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
    "model_name_or_path": "model",
    "template": "default",
    "dataset_dir": "data",
    "cutoff_len": 64,
    "overwrite_cache": True,
    "do_train": True,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 3,
}
LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_dropout": 0.1}
KINDS: dict[str, dict[str, Any]] = {
    "full": {"stage": "sft", "dataset": "sums", "finetuning_type": "full"},
    "sft": {"stage": "sft", "dataset": "sums", **LORA},
    "packed": {"stage": "sft", "dataset": "sums", "packing": True, "cutoff_len": 128, **LORA},
    "neat": {"stage": "sft", "dataset": "sums", "neat_packing": True, "cutoff_len": 128, "flash_attn": "sdpa", **LORA},
    "dpo": {"stage": "dpo", "dataset": "pairs", **LORA},
    "kto": {"stage": "kto", "dataset": "judged", **LORA},
    "reward": {"stage": "rm", "dataset": "pairs", **LORA},
    "pretraining": {"stage": "pt", "dataset": "texts", **LORA},
}


def prepare(folder: Path) -> None:
    """Write a model, its tokenizer and data sets in LLaMA-Factory's formats."""
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=3).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    sums = [(f"What do {i} and {i * 7 % 23} make?", str(i + i * 7 % 23)) for i in range(24)]
    columns = {"prompt": "instruction"}
    answered = {**columns, "response": "output"}
    files: dict[str, Any] = {
        "sums": [{"instruction": question, "output": answer} for question, answer in sums],
        "pairs": [{"instruction": question, "chosen": answer, "rejected": "no"} for question, answer in sums],
        "judged": [{"instruction": sums[i][0], "output": sums[i][1], "kto_tag": i % 2 == 0} for i in range(24)],
        "texts": [{"text": f"{question} {answer}"} for question, answer in sums],
    }
    described: dict[str, Any] = {
        "sums": {"columns": answered},
        "pairs": {"columns": {**columns, "chosen": "chosen", "rejected": "rejected"}, "ranking": True},
        "judged": {"columns": {**answered, "kto_tag": "kto_tag"}},
        "texts": {"columns": {"prompt": "text"}},
    }
    (folder / "data").mkdir()
    for name, rows in files.items():
        (folder / f"data/{name}.json").write_text(json.dumps(rows))
        described[name]["file_name"] = f"{name}.json"
    (folder / "data/dataset_info.json").write_text(json.dumps(described))


def train(kind: str, watch: str) -> dict[str, Any]:
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    from topo_callback import TopologyCallback, TopologyConfig
    from topo_callback.probe.sampling import sample_probe

    seen: dict[str, Any] = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            tokenizer = context["processing_class"]
            probe = sample_probe(context["train_dataloader"].dataset, None, tokenizer)
            seen["prompts"] = [
                (tokenizer.decode(ids[:end]), tokenizer.decode(ids[end:]))
                for ids, end in zip(probe.token_ids, probe.prompt_lengths, strict=True)
            ]

    output_dir = f"{kind},{watch}"
    callbacks: list[Any] = [Look()]
    if watch == "callback":
        config = TopologyConfig(
            prompts=12, neighbours=3, measures=("scale",), max_overhead=None, pictures=0, drain_seconds=200.0
        )
        callbacks.append(TopologyCallback(config=config))
    run_exp({**COMMON, **KINDS[kind], "output_dir": output_dir}, callbacks=callbacks)
    return {"weights": weights_hash(Path(output_dir)), **seen}


def main(folder: str, *runs: str) -> None:
    os.chdir(folder)
    results = {run: train(*run.split(",")) for run in runs}
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
