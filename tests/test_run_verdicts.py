"""What the end of a real run says: one verdict for sinks, record and page, and never at the trainer's cost."""

from __future__ import annotations

import io
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import MemorySink, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.sinks import ConsoleSink
from topo_callback.worker.finish import finish_folder

TEXTS = [f"what is {i} and {i * 7 % 23}, secretly" for i in range(36)]
LIGHT: dict[str, Any] = {"measures": ("scale", "mutual_knn"), "pictures": 0, "max_overhead": None, "general_text": 0}


class Raises(TrainerCallback):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def train(
    folder: Path, sinks: list[Any], *callbacks: Any, steps: int = 3, executor: Any = None, **settings: Any
) -> Any:
    """The callback of a real run, over or interrupted."""
    tokenizer = tiny_tokenizer()
    encoded = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    config = TopologyConfig(**{**LIGHT, **settings})
    with ThreadPoolExecutor(1) as thread:
        callback = TopologyCallback(
            TEXTS, config=config, processing_class=tokenizer, sinks=sinks, executor=executor or thread
        )
        torch.manual_seed(0)
        trainer = Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=[*callbacks, callback])
        try:
            trainer.train()
        except KeyboardInterrupt:
            callback._monitor.abandon()
    assert callback.folder is not None
    return callback


def test_the_end_of_a_run_says_the_same_everywhere(tmp_path: Path) -> None:
    memory, stream = MemorySink(), io.StringIO()
    folder = train(tmp_path, [ConsoleSink(stream), memory]).folder
    verdict = Trajectory.load(tmp_path).summary()
    assert memory.verdict == verdict
    assert (verdict.state, verdict.samples, verdict.answers_clear) == ("finished", 4, True)
    said = [line.removeprefix("topology | ") for line in stream.getvalue().splitlines()]
    page = folder / "report.html"
    assert said[-6:-2] == verdict.lines()
    assert said[-2:] == [f"record  {folder}", f"page    {page}, or again: topo-callback report {folder}"]
    written = page.read_text()
    assert "secretly" not in written
    assert "finished" in written
    assert verdict.figures[0].value.replace(" ", "\xa0") in written


def test_a_run_that_is_to_have_no_page_has_none(tmp_path: Path) -> None:
    memory = MemorySink()
    folder = train(tmp_path, [memory], steps=1, page=False).folder
    assert not (folder / "report.html").exists()
    assert memory.verdict is not None
    assert memory.verdict.samples == 2


def test_a_page_that_cannot_be_written_is_named_in_the_journal(tmp_path: Path) -> None:
    class Told(MemorySink):
        def start(self, run: Any, folder: Path) -> Any:
            (folder / "report.html").mkdir()
            return super().start(run, folder)

    memory = Told()
    folder = train(tmp_path, [memory], steps=1).folder
    journal = TrajectoryFolder(folder).journal()
    assert [entry["event"] for entry in journal][-2:] == ["no_page", "finished"]
    assert memory.verdict is not None


class Deaf(Executor):
    """Takes tasks, and does none after the first few."""

    def __init__(self, tasks: int) -> None:
        self.left = tasks

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.left -= 1
        if self.left >= 0:
            future.set_result(function(*arguments, **options))
        return future


def test_a_worker_that_is_late_costs_what_waits_and_not_the_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemorySink()
    train(tmp_path, [memory], executor=Deaf(3), drain_seconds=0.3)  # warm-up and two samples
    assert memory.verdict is not None
    assert memory.verdict.waiting == 2
    assert memory.verdict.sentence.startswith("Measured up to step 1 of 3; 2 samples wait. The answers moved")
    assert "2 samples still wait to be measured; `topo-callback finish" in caplog.text


def test_an_interrupted_run_is_summed_up_as_far_as_it_came(tmp_path: Path) -> None:
    memory = MemorySink()
    train(tmp_path, [memory], Raises(3), steps=8)
    assert memory.verdict is None
    end = time.monotonic() + 30
    while Trajectory.load(tmp_path).state == "running" and time.monotonic() < end:  # its thread gives the folder free
        time.sleep(0.05)
    finished = finish_folder(tmp_path)
    verdict = Trajectory.load(tmp_path).summary()
    assert (verdict.state, verdict.samples, verdict.over) == ("interrupted", 3, None)
    assert verdict.sentence.startswith("The record ends at step 2 of 8. The answers moved")
    assert (finished.folder / "report.html").is_file()
