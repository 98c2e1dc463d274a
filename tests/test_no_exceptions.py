"""Row 35 of the list of faults: what is raised and is no Exception goes no further than monitoring.

pyo3 makes a BaseException of a panic in Rust (tokenizers, safetensors); asyncio and trio cancel with one. What is meant
to end the process, a KeyboardInterrupt or SystemExit, does pass.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.sinks import MemorySink
from topo_callback.watching.actions import Actions

STEPS = 3


class Panic(BaseException):
    """What pyo3 makes of a panic in Rust."""


NO_EXCEPTIONS = [Panic, asyncio.CancelledError, GeneratorExit]


def train(folder: Path, where: str, error: type[BaseException]) -> int:
    """Train with something of the user's that raises whenever it is called; the steps done."""
    tokenizer = tiny_tokenizer()
    encoded = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error("injected")

    class Pool(Executor):
        def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
            if where == "submit":
                fail()
            future: Future[Any] = Future()
            if where == "result":
                future.set_exception(error("injected"))
            elif where == "cancelled":
                future.cancel()
            return future

    class Sink(MemorySink):
        pass

    if where in ("start", "finish"):
        setattr(Sink, where, fail)
    model = tiny_llama(tokenizer, layers=3)

    def inside(module: torch.nn.Module, arguments: Any) -> None:
        if where == "forward" and not torch.is_grad_enabled():
            fail()

    model.model.layers[1].register_forward_pre_hook(inside)
    if where == "tokenizer":
        tokenizer.__class__ = type("Broken", (type(tokenizer),), {"__call__": fail})
    config = TopologyConfig(neighbours=3, general_text=4, drain_seconds=1.0, pictures=0, max_overhead=None)
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, executor=Pool(), sinks=[Sink()])
    args = TrainingArguments(
        str(folder), max_steps=STEPS, save_strategy="no", use_cpu=True, report_to=[], disable_tqdm=True,
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[callback])
    trainer.train()
    assert all(module.training for module in model.modules())
    return int(trainer.state.global_step)


PLACES = ("forward", "start", "finish", "tokenizer", "submit", "result", "cancelled")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        pytest.param(place, NO_EXCEPTIONS[number % 3], marks=[pytest.mark.slow] if number % 2 else [])
        for number, place in enumerate(PLACES)
    ],
)
def test_fault_35_an_error_that_is_no_exception_reaches_no_trainer(
    where: str, error: type[BaseException], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(tmp_path, where, error) == STEPS
    assert caplog.messages  # it is said


@pytest.mark.parametrize(
    ("where", "error"), [("forward", KeyboardInterrupt), ("start", SystemExit), ("tokenizer", KeyboardInterrupt)]
)
def test_what_is_meant_to_end_the_process_does(where: str, error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error):
        train(tmp_path, where, error)


@pytest.mark.parametrize("error", NO_EXCEPTIONS)
def test_fault_35_a_function_of_events_that_raises_is_warned_about_and_called_again(
    error: type[BaseException],
) -> None:
    calls: list[Event] = []

    def function(event: Event) -> None:
        calls.append(event)
        raise error("injected")

    notes: list[str] = []
    actions = Actions(
        TopologyConfig(),
        on_event=[function],
        note=lambda event, **details: notes.append(event),
        tell=lambda _: None,
        alert=lambda _: None,
    )
    found = {
        "level": "observed", "last_step": 2, "known_at": 2, "layers": [1], "factor": None, "p_value": None,
        "explanation": "said",
    }  # fmt: skip
    for step in (1, 2):
        actions.take([{**found, "kind": "invalid_layers", "first_step": step}])
    assert len(calls) == 2
    assert notes.count("action_failed") == 2
