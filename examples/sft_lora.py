"""Supervised fine-tuning of a LoRA adapter, watched by topo_callback.

python examples/sft_lora.py                                                         # offline, a small model
python examples/sft_lora.py --model Qwen/Qwen2.5-0.5B --dataset trl-lib/Capybara    # from the hub
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from topo_callback import TopologyCallback
from topo_callback.demo.surroundings import offline_model, offline_questions


def main() -> None:
    parser = argparse.ArgumentParser(description="Supervised fine-tuning with LoRA, watched by topo_callback.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument("--dataset", help="hub name of a data set in one of TRL's SFT formats; default: built offline")
    parser.add_argument("--output-dir", default="sft-lora")
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()

    data = load_dataset(given.dataset, split="train") if given.dataset else Dataset.from_list(offline_questions())
    trainer = SFTTrainer(
        model=given.model or offline_model(f"{given.output_dir}/base_model"),
        args=SFTConfig(
            output_dir=given.output_dir, max_steps=given.steps, learning_rate=1e-3, bf16=torch.cuda.is_available()
        ),
        train_dataset=data,
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[TopologyCallback()],  # the one line; the record is in <output-dir>/topology
    )
    trainer.train()


if __name__ == "__main__":
    main()
