"""Fine-tuning runs of a Trainer whose device is the stand-in; each leaves hashes of all that training leaves behind.

    python device/training_run.py FOLDER WATCH [WATCH ...]
    python device/training_run.py FOLDER ranks|offloaded

WATCH: none | callback | waiting (a callback that reads a number at every step, to be noticed) | one of `FAULTS`. The
second form, on one rank or several, reads one sample of a model that every rank has a copy of on the device; or, on the
processor, of one that FSDP2 shards and offloads where there are several ranks.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device.accounts import ACCOUNTS
from device.stand_in import NAME, host_of_any, stand_in
from ranks_launch import begin_rank, losses_of, rows_of, train_and_catch, warnings_noted, write_seen
from tiny import tiny_llama, tiny_tokenizer
from torch.utils._pytree import tree_map
from transformers import Trainer, TrainerCallback, TrainingArguments
from undisturbed_run import TEXTS, digest, tensors

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.distributed.ranks import Ranks
from topo_callback.geometry import invalid_points
from topo_callback.reader.reader import Reader

STEPS = 7
SAMPLED = (0, 3, 6)
FAULTS = ("memory", "memory_of_training", "lost", "kernel")


class Witness(TrainerCallback):
    """Notes after every step what waited for the device, the device's random state and its memory."""

    def __init__(self) -> None:
        self.ours: dict[int, dict[str, int]] = {}
        self.theirs: dict[int, int] = {}
        self.states: list[str] = []
        self.held: list[int] = []
        self.peaks: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        ACCOUNTS.transfers.clear()
        torch.get_device_module(NAME).reset_peak_memory_stats()

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        gc.collect()
        self.ours[state.global_step] = dict(ACCOUNTS.blocking())
        self.theirs[state.global_step] = sum(ACCOUNTS.blocking(ours=False).values())
        self.states.append(digest(torch.get_device_module(NAME).get_rng_state().numpy().tobytes()))
        self.held.append(ACCOUNTS.held[0])
        self.peaks.append(ACCOUNTS.peak[0])


class Waiting(TopologyCallback):
    """Reads a number of the device at every step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        super().on_step_end(args, state, control, **context)
        invalid_points(next(context["model"].parameters()).detach())


class Planting(TrainerCallback):
    """Plants a fault: in the reading of the second sample, or in the training step after it."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step != SAMPLED[1]:
            return
        if self.fault == "memory":
            ACCOUNTS.fails_in = "capture/"
        elif self.fault == "lost":
            ACCOUNTS.lost_after = 150
        elif self.fault == "kernel":
            ACCOUNTS.breaks_after = 150

    def on_step_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        ACCOUNTS.fails_in = ""
        if state.global_step == SAMPLED[1] and self.fault == "memory_of_training":
            ACCOUNTS.fails_at = ACCOUNTS.allocations + 100


def train(folder: Path, watch: str) -> dict[str, Any]:
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    model.config._attn_implementation = "eager"
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    args = TrainingArguments(
        output_dir=str(folder / watch),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        logging_steps=STEPS,
        save_strategy="no",
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        seed=3,
        dataloader_pin_memory=False,
    )
    assert str(args.device) == f"{NAME}:0"
    witness = Witness()
    callbacks: list[Any] = [witness]
    if watch != "none":
        config = TopologyConfig(
            prompts=16, max_overhead=None, neighbours=3, measures=("scale", "mutual_knn"), steps=SAMPLED,
            general_text=4, drain_seconds=100.0, pictures=0, page=False, engine="gudhi", zigzag_engine="off",
        )  # fmt: skip
        kind = Waiting if watch == "waiting" else TopologyCallback
        callbacks.insert(0, kind(config=config, processing_class=tokenizer))
        callbacks.insert(0, Planting(watch))
    with warnings_noted() as warned:
        trainer = Trainer(model, args, train_dataset=rows_of(tokenizer, TEXTS, masked=True), callbacks=callbacks)
        error = train_and_catch(trainer, Exception)
    ACCOUNTS.lost_after, ACCOUNTS.broken, ACCOUNTS.breaks_after = -1, "", -1
    left = {
        "weights": digest(*tensors(tree_map(host_of_any, dict(model.state_dict())))),
        "optimizer": digest(*tensors(tree_map(host_of_any, trainer.optimizer.state_dict()))),
        "losses": losses_of(trainer),
        "states": witness.states,
    }
    seen: dict[str, Any] = {"left": left, "error": error, "warned": warned, "step": trainer.state.global_step}
    seen |= {name: getattr(witness, name) for name in ("ours", "theirs", "held", "peaks")}
    if watch != "none":
        trajectory = Trajectory.load(folder / watch)
        # a training that raises waits for nobody, so what was skipped is written a little later
        deadline = time.monotonic() + (20.0 if watch in ("lost", "kernel") else 0.0)
        while time.monotonic() < deadline and not any(entry["event"] == "skipped" for entry in trajectory.journal):
            time.sleep(0.02)
            trajectory = Trajectory.load(folder / watch)
        seen["steps"] = trajectory.steps
        seen["skipped"] = [
            (entry["step"], entry["cause"]) for entry in trajectory.journal if entry["event"] == "skipped"
        ]
        seen["facts"] = {step: trajectory.snapshot(step).provenance["facts"] for step in trajectory.steps}
        seen["trained"] = len(trajectory.training_steps())
    return seen


def shard_and_offload(model: Any) -> None:
    """FSDP2 with its parameters in the processor's memory; nothing is pinned, for there is no accelerator."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=mesh, offload_policy=CPUOffloadPolicy(pin_memory=False))


def read_on_ranks(folder: str, *, offloaded: bool) -> None:
    """Read a sample together with the other ranks, if any; gloo sends from the processor's memory."""
    rank = begin_rank(60) if "RANK" in os.environ else 0
    device = "cpu" if offloaded else NAME
    texts = [f"{place} {text}" for place, text in enumerate(TEXTS[:18])]  # a model that is sharded shares none
    probe = Probe.from_rows(texts, tiny_tokenizer())
    config = TopologyConfig(neighbours=3, probe_batch=4, token_measures=("curvature",), next_token_prompts=7)
    with stand_in():
        model = tiny_llama(tiny_tokenizer(), layers=3).to(device)
        if offloaded and "RANK" in os.environ:
            shard_and_offload(model)
        reader = Reader(model, probe, config, Ranks.here(torch.device(device)))
        reader.agree(model)
        sample = reader.read(model, 0, {})
    seen = None
    if sample is not None:
        arrays = (sample.distances, sample.norms, sample.centroids, sample.token_numbers, sample.next_token_codes)
        seen = [digest(np.ascontiguousarray(each).tobytes()) for each in arrays]
    write_seen(folder, rank, seen)


def main(folder: str, *watches: str) -> None:
    if watches[0] in ("ranks", "offloaded"):
        read_on_ranks(folder, offloaded=watches[0] == "offloaded")
        return
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{NAME}:0"
    torch.set_num_threads(1)
    seen = {}
    for watch in watches:
        with stand_in():
            seen[watch] = train(Path(folder), watch)
    write_seen(folder, 0, seen)


if __name__ == "__main__":
    main(*sys.argv[1:])
