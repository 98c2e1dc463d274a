"""Two ranks shard a model by FSDP2 and save it as accelerate does: `pytorch_model_fsdp_0` and `optimizer_0`, by DCP.

python sharded_run.py FOLDER MODEL CHECKPOINT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ranks_launch import begin_rank, write_seen
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM


def main(folder: str, model: str, checkpoint: str) -> None:
    rank = begin_rank(60.0)
    sharded = AutoModelForCausalLM.from_pretrained(model)
    for block in sharded.model.layers:
        fully_shard(block)
    fully_shard(sharded)
    optimizer = torch.optim.AdamW(sharded.parameters(), 1e-2)
    sharded(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
    optimizer.step()
    save({"model": get_model_state_dict(sharded)}, checkpoint_id=Path(checkpoint) / "pytorch_model_fsdp_0")
    save({"optimizer": get_optimizer_state_dict(sharded, optimizer)}, checkpoint_id=Path(checkpoint) / "optimizer_0")
    whole = {name: weight.full_tensor().double().sum().item() for name, weight in sharded.named_parameters()}
    write_seen(Path(folder), rank, whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
