"""A small run that says when it is in the middle of something, and stays there until it is ended.

    python terminated_run.py OUTPUT_DIR PLACE

PLACE: probe (inside a forward pass of the probe at step 1) | wait (at the end of the run, for a worker that never
answers).
"""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import Executor, Future
from typing import Any

import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]


class Silent(Executor):
    """Takes everything and gives nothing."""

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        return Future()


class Herald(TrainerCallback):
    """Says that the end of the run has come, before the callback waits for its worker."""

    def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        say_where()


def say_where() -> None:
    print("here", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)


def main(output_dir: str, place: str) -> None:
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(TEXTS)["input_ids"]]
    config = TopologyConfig(
        neighbours=3, general_text=4, drain_seconds=120, engine="gudhi", zigzag_engine="off", pictures=0
    )
    executor = Silent() if place == "wait" else None
    callback = TopologyCallback(Probe.from_rows(TEXTS, tokenizer), config=config, executor=executor, sinks=[])
    args = TrainingArguments(
        output_dir=output_dir, max_steps=2, per_device_train_batch_size=1, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[Herald(), callback])

    def stay(module: Any, arguments: Any) -> None:
        if place == "probe" and not torch.is_grad_enabled() and trainer.state.global_step == 1:
            say_where()
            time.sleep(120)

    model.model.layers[1].register_forward_pre_hook(stay)
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
