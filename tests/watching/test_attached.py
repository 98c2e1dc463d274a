"""A callback that a framework drops says so when its process ends; one that was called says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked_scripts import run_script

SCRIPT = """
import copy, multiprocessing, pickle, sys
from concurrent.futures import ThreadPoolExecutor
import topo_callback
from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments
from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.integrations import run_script

tokenizer = tiny_tokenizer()
rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(list(TEXTS))["input_ids"]]
config = TopologyConfig(**LIGHT, drain_seconds=200.0, engine="gudhi", zigzag_engine="off", steps=(0,))

def train(*callbacks):
    args = TrainingArguments(
        "out", max_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no",
    )
    Trainer(tiny_llama(tokenizer, layers=2), args, train_dataset=rows, callbacks=list(callbacks)).train()

def callback():
    return TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer)

def train_caught(callback):
    class Fails(Trainer):
        def training_step(self, *given, **options):
            raise MemoryError
    try:
        args = TrainingArguments("out", max_steps=1, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no")
        Fails(tiny_llama(tokenizer, layers=2), args, train_dataset=rows, callbacks=[callback]).train()
    except MemoryError:
        pass

def forked(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()

def stepped(callback):
    callback._attached.stepped = True

def not_trained():
    Trainer(tiny_llama(tokenizer, layers=2), TrainingArguments("out", use_cpu=True, report_to=[], disable_tqdm=True))

def refused():
    try:
        TopologyCallback([])
    except ValueError:
        return
    raise AssertionError

def watched(steps, **given):
    return topo_callback.watch(
        tiny_llama(tokenizer, layers=2), TEXTS, folder="out", total_steps=steps, config=config,
        processing_class=tokenizer, sinks=[], executor=ThreadPoolExecutor(1), **given,
    )

def broken_off():
    try:
        with watched(2):
            raise MemoryError
    except MemoryError:
        pass

class Deaf(TrainerCallback):  # hands on the beginning only
    def __init__(self, inner):
        self.inner = inner
    def on_train_begin(self, *given, **context):
        self.inner.on_train_begin(*given, **context)
"""
DROPPED = "never called, and nothing was watched: no trainer began training with it in its `callbacks`"
NO_STEP = "was told that training begins, but of no optimizer step; nothing was watched after the first sample"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("watch = callback(); train()", DROPPED),
        ("train(Deaf(callback()))", NO_STEP),
        ("train(callback())", ""),
        pytest.param("train(copy.deepcopy(callback()))", "", marks=pytest.mark.slow),
        ("watch = callback(); [stepped(callback()) for _ in range(3)]", DROPPED),
        ("refused()", ""),
        ("run_script.Attachment(config).attach(); not_trained()", ""),
        pytest.param("train_caught(callback())", "", marks=pytest.mark.slow),
        ("watched(2).finish()", "was told of no optimizer step; call its `step` after each one. Nothing was watched"),
        pytest.param("watched(2, start_step=2).finish()", "", marks=pytest.mark.slow),
        pytest.param("broken_off()", "", marks=pytest.mark.slow),
        ("pickle.dumps(callback()._attached)", ""),
        pytest.param("watch = callback(); forked(train, watch)", "", marks=pytest.mark.slow),
        ("watch = callback(); forked(id, watch)", DROPPED),
        ("sys.last_value = ValueError(); callback()", ""),  # as the interpreter leaves it behind an uncaught error
    ],
)
def test_what_is_dropped_is_said_at_the_end(
    lines: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + lines + "\n")
    ended = run_script(script)
    about = [line for line in ended.stderr.splitlines() if " made at " in line]
    assert (about != []) == (said != ""), ended.stderr
    assert all(said in line for line in about)
    assert len(about) <= 1
