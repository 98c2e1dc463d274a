"""A run on a small disk that refuses to be written to after the sample of step 2 is recorded.

    python small_disk_run.py DISK HOW

HOW: full | full-for-a-while (until the end of step 5) | read-only. DISK is a mount point of a few megabytes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break
    return filler


def main(disk: Path, how: str) -> None:
    import torch
    from small_runs import LIGHT, TEXTS
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig, Trajectory
    from topo_callback.worker import dispatcher_thread

    dispatcher_thread._RETRY_SECONDS = 0.2

    class Fate(TrainerCallback):
        filler: Path | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if state.global_step == 3:
                assert callback.folder is not None
                end = time.monotonic() + 200
                while not (callback.folder / "samples" / "step-00000002.npz").exists():
                    assert time.monotonic() < end
                    time.sleep(0.05)
                time.sleep(1)  # for the worker to be done with it
                if how == "read-only":
                    # over itself, because the lock and the worker's log are open on the disk below
                    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
                    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
                else:
                    self.filler = fill(disk)
            if state.global_step == 5:
                time.sleep(3)  # the samples of steps 3 and 4 are refused
                if how == "full-for-a-while" and self.filler is not None:
                    self.filler.unlink()

    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(list(TEXTS))["input_ids"]]
    seconds = 100.0 if how == "full-for-a-while" else 2.0
    config = TopologyConfig(**{**LIGHT, "zigzag_engine": "off", "drain_seconds": seconds, "samples": 6})
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, sinks=[])
    args = TrainingArguments(
        str(disk / "out"), max_steps=5, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(tiny_llama(tokenizer, layers=3), args, train_dataset=rows, callbacks=[Fate(), callback])
    trainer.train()
    print(f"trained {trainer.state.global_step} steps")
    trajectory = Trajectory.load(disk / "out")
    print(f"recorded {trajectory.steps} damaged {sorted(trajectory.damaged)} state {trajectory.state}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
