"""A small run that breaks off while samples wait for the worker.

    python broken_off_run.py OUTPUT_DIR WAY

WAY: raise | exit | os_exit | terminate (SIGTERM) | interrupt (SIGINT)
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig
from topo_callback.worker import dispatcher_thread

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
DRAIN_SECONDS = 120.0


class Ending(TrainerCallback):
    """Ends the run at step 2 in one of the ways, once its samples are on disk."""

    def __init__(self, way: str, spool: Any) -> None:
        self._way, self._spool = way, spool

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step < 2:
            return
        until = time.monotonic() + 60
        while len(self._spool()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        print("here", time.time(), flush=True)
        if self._way == "raise":
            raise RuntimeError("training breaks off")
        if self._way == "exit":
            sys.exit(7)
        if self._way == "os_exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGTERM if self._way == "terminate" else signal.SIGINT)
        time.sleep(60)


def main(output_dir: str, way: str) -> None:
    import ways_to_die

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
    dispatcher_thread.measure_spooled = ways_to_die.endless  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(TEXTS)["input_ids"]]
    config = TopologyConfig(
        neighbours=3, general_text=4, drain_seconds=DRAIN_SECONDS, engine="gudhi", zigzag_engine="off", pictures=0,
        max_overhead=None,
    )  # fmt: skip
    callback = TopologyCallback(Probe.from_rows(TEXTS, tokenizer), config=config, sinks=[])

    def spool() -> list[Any]:
        return [] if callback.folder is None else list((callback.folder / "spool").glob("step-*.npz"))

    args = TrainingArguments(
        output_dir=output_dir, max_steps=4, per_device_train_batch_size=1, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=[callback, Ending(way, spool)]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
