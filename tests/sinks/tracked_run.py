"""A small training run of transformers that reports to trackers, watched by the callback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tiny import tiny_llama, tiny_tokenizer

from topo_callback import TopologyConfig

LIGHT = TopologyConfig(
    prompts=8,
    neighbours=3,
    measures=("scale", "wasserstein", "mutual_knn"),
    layers=2,
    general_text=4,
    pictures=1,
    max_overhead=None,
    drain_seconds=200.0,
)
"""Settings whose numbers and pictures are all there at every step."""


def train(output_dir: Path, report_to: list[str], *, attached: bool = False) -> None:
    """Train four steps.

    Args:
        output_dir: the trainer's.
        report_to: the trackers.
        attached: add the callback through DEFAULT_CALLBACKS, where it runs before those of the trackers.
    """
    import transformers
    from transformers import Trainer, TrainingArguments

    from topo_callback.callback import TopologyCallback

    executor = ThreadPoolExecutor(1)

    class Attached(TopologyCallback):
        def __init__(self) -> None:
            super().__init__(config=LIGHT, executor=executor)

    tokenizer = tiny_tokenizer()
    encoded = tokenizer([f"text {i} is about {i * 7 % 5}" for i in range(16)], padding="max_length", max_length=16)
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        str(output_dir), max_steps=4, per_device_train_batch_size=2, learning_rate=1e-2, logging_steps=2, use_cpu=True,
        report_to=report_to, disable_tqdm=True, save_strategy="no", run_name="watched",
    )  # fmt: skip
    defaults: list[Any] = transformers.trainer.DEFAULT_CALLBACKS
    try:
        if attached:
            defaults.append(Attached)
        Trainer(
            tiny_llama(tokenizer, layers=3),
            args,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=None if attached else [TopologyCallback(config=LIGHT, executor=executor)],
        ).train()
    finally:
        executor.shutdown()
        if attached:
            defaults.remove(Attached)
