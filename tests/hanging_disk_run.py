"""A small run whose topology folder is on a disk that stops answering, as a network file system whose server is away.

    python hanging_disk_run.py OUTPUT_DIR WHEN

WHEN: never | begin | resume (of a run of this script) | step | end. Every call of Python that names a file of ours then
waits for ever, on whichever thread it is. Printed are the steps trained, seconds, and from where the training thread
itself has named such a file.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import Any

OUTPUT_DIR, WHEN = sys.argv[1], sys.argv[2]
FOLDER = os.path.join(OUTPUT_DIR, "topology")
MARK = "topo_callback.json"
DRAIN_SECONDS = 2.0

hung = threading.Event()
touched: set[str] = set()
main_thread = threading.get_ident()


def look_at(path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        return
    name = os.fspath(path)
    if not isinstance(name, str) or not (name.startswith(FOLDER) or name.endswith(MARK)):
        return
    if threading.get_ident() == main_thread:
        if name.endswith(MARK) and not any("/topo_callback/" in frame.filename for frame in traceback.extract_stack()):
            return  # the trainer looks at all that is in a checkpoint
        touched.add(" < ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[-3:-9:-1]))
    while hung.is_set():
        time.sleep(1)


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        for argument in arguments[:2]:
            look_at(argument)


def watched(function: Any) -> Any:
    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        look_at(path)
        return function(path, *arguments, **options)

    return call


def main() -> None:
    import torch
    from small_runs import LIGHT, TEXTS
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig
    from topo_callback.sinks import MemorySink
    from topo_callback.watching import monitor

    monitor.LEAST_SECONDS = 2.0
    torch.set_num_threads(1)
    torch.manual_seed(3)

    class Hang(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if WHEN == "step" and state.global_step == 3:
                hung.set()

        def on_train_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if WHEN == "end":
                hung.set()

    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(list(TEXTS))["input_ids"]]
    steps = 8 if WHEN == "resume" else 5
    args = TrainingArguments(
        OUTPUT_DIR, max_steps=steps, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True,
        save_steps=2, logging_steps=1,
    )  # fmt: skip
    config = TopologyConfig(
        **{**LIGHT, "pictures": 2}, drain_seconds=DRAIN_SECONDS, folder=FOLDER, keep_prompts=True, engine="gudhi",
        zigzag_engine="off",
    )  # fmt: skip
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, sinks=[MemorySink()])
    trainer = Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=[Hang(), callback])
    sys.addaudithook(audit)
    os.stat, os.lstat = watched(os.stat), watched(os.lstat)
    if WHEN in ("begin", "resume"):
        hung.set()
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=os.path.join(OUTPUT_DIR, "checkpoint-4") if WHEN == "resume" else None)
    print(f"trained {trainer.state.global_step} steps in {time.monotonic() - started:.1f} s", flush=True)
    for place in sorted(touched):
        print("touched", place)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
