"""Runs in which foreign code raises errors that quote a prompt, its tokens and a key, each in another place.

`python leaking_run.py FOLDER` trains each once; what is left in FOLDER and on the terminal is searched by the test.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.measures.registry import layer_measures
from topo_callback.studies.registry import ProbeStudy, studies
from topo_callback.worker.executor import WorkerExecutor

WORD = "quokkazanzibar"
KEY = "hf_sentinelSentinelSentinelSentinel1"
PROMPTS = tuple(f'{WORD} "{i}" says {i * 7 % 23}\n and {i * i}' for i in range(24))
PLACES = (
    "forward", "memory", "panic", "study", "study_itself", "sink_start", "sink_log", "sink_finish", "sink_alert",
    "event", "data_set", "template", "tokenizer", "no_copy", "executor", "measure", "worker", "schedule",
)  # fmt: skip


def quoting() -> str:
    """What an error of foreign code may say."""
    ids = tiny_tokenizer()(PROMPTS[3])["input_ids"]
    said = [PROMPTS[3], json.dumps(PROMPTS[3]), repr(PROMPTS[3]), str(ids), repr(torch.tensor(ids)), PROMPTS[3].upper()]
    return f"cannot take {' '.join(said)} with {os.environ.get('HF_TOKEN', KEY)}"


class Panic(BaseException):
    """As a Rust library raises."""


def fail(*_: Any, **__: Any) -> Any:
    raise ValueError(quoting())


class Sink:
    """Raises in one of its methods."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __getattr__(self, name: str) -> Any:
        if name == "alert" and self._method != "sink_alert":
            raise AttributeError(name)
        return fail if self._method == f"sink_{name}" else (lambda *_: {})


class Failing(Executor):
    """Every task ends with an error."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(ValueError(quoting()))
        return future


class Worker(WorkerExecutor):
    """A worker in which a measure, a thread and a warning quote what they were given."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        import leaking_run  # by its name: the worker never sees the script that is run

        return super().submit(leaking_run.in_broken_worker, function, *arguments)


def in_broken_worker(function: Callable[..., Any], *arguments: Any) -> Any:
    layer_measures["scale"] = fail
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    warnings.warn(quoting(), stacklevel=1)
    return function(*arguments)


class Rows(torch.utils.data.Dataset):
    """Rows that cannot be read when a probe is drawn from them."""

    def __init__(self, rows: list[Any], *, broken: bool) -> None:
        self.rows, self.broken = rows, broken

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return fail() if self.broken and not torch.is_grad_enabled() else self.rows[i]


def forward_hook(model: Any, place: str) -> None:
    """A model whose evaluation passes raise: from the second sample on, or for all but the probe itself."""
    passes = [0]

    def before(module: Any, arguments: Any, options: Any) -> None:
        if module.training:
            return
        passes[0] += 1
        if place == "study" and passes[0] % 2:
            return
        if place == "memory":
            raise torch.OutOfMemoryError(quoting())
        if place == "panic":
            raise Panic(quoting())
        raise ValueError(quoting())

    model.register_forward_pre_hook(before, with_kwargs=True)


@contextmanager
def broken_measure(name: str) -> Iterator[None]:
    before = layer_measures[name]
    layer_measures[name] = fail
    try:
        yield
    finally:
        layer_measures[name] = before


def run(place: str, folder: Path) -> None:
    """One run of four steps; training is to end well whatever fails."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    texts = [f"plain text {i} and {i * 7}" for i in range(16)]
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    rows = [
        {"input_ids": ids, "labels": ids.clone(), "attention_mask": mask}
        for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]
    settings: dict[str, Any] = {
        "measures": ("scale", "mutual_knn"), "general_text": 4, "pictures": 0, "max_overhead": None, "neighbours": 3,
        "probe_batch": 32, "steps": (0, 1, 2, 3, 4), "drain_seconds": 60.0, "actions": ("log", "alert"),
    }  # fmt: skip
    probe: Any = list(PROMPTS)
    options: dict[str, Any] = {"sinks": [Sink(place)] if place.startswith("sink") else None}
    if place in ("forward", "memory", "panic", "study"):
        forward_hook(model, place)
    if place in ("study", "study_itself"):
        settings["studies"] = ("shuffled_tokens", "lidar", "dime")
    if place == "study_itself":
        known = studies["lidar"]
        assert isinstance(known, ProbeStudy)
        studies["lidar"] = replace(known, numbers=fail)
        known = studies["dime"]
        assert isinstance(known, ProbeStudy)
        studies["dime"] = replace(known, probes=fail)
    if place == "event":
        options["on_event"] = fail
    if place == "template":
        tokenizer.chat_template = "{{ raise_exception('refused: ' + messages[0]['content']) }}"
        probe = [{"messages": [{"role": "user", "content": text}]} for text in PROMPTS]
    if place in ("tokenizer", "no_copy"):
        kind = {"__call__": fail} if place == "tokenizer" else {"__deepcopy__": fail}
        tokenizer.__class__ = type("Broken", (type(tokenizer),), kind)
    if place == "data_set":
        probe = None
    if place == "executor":
        options["executor"] = Failing()
    if place == "measure":
        options["executor"] = ThreadPoolExecutor(1)
    if place == "worker":
        (folder / place).mkdir(parents=True)
        options["executor"] = Worker(folder / place / "worker.log", threads=1, memory_bytes=None)
    arguments = TrainingArguments(
        output_dir=str(folder / place), max_steps=4, per_device_train_batch_size=2, save_strategy="no", use_cpu=True,
        report_to=["wandb", "tensorboard"] if place in ("study", "forward") else [], disable_tqdm=True,
    )  # fmt: skip
    data = Rows(rows, broken=place == "data_set")
    callback = TopologyCallback(probe, config=TopologyConfig(**settings), processing_class=tokenizer, **options)
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[callback])
    if place == "schedule":
        trainer.create_optimizer_and_scheduler(4)
        trainer.lr_scheduler.get_last_lr = fail
    if place == "measure":
        with broken_measure("scale"):
            trainer.train()
    else:
        trainer.train()
    if arguments.report_to:
        import wandb

        wandb.finish()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for each in sys.argv[2:] or PLACES:
        try:
            run(each, Path(sys.argv[1]))
            print("trained", each, threading.active_count(), flush=True)
        except BaseException as error:  # noqa: BLE001 - the test sees that it did not train
            print("ended", each, type(error).__name__, flush=True)
