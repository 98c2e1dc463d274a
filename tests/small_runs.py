"""A small training run in a process of its own, which may be killed on the way; to be forked from a warm server.

`fork_server` imports torch and transformers once; every run is then forked from it in milliseconds. A forked run is
a new process in every respect that matters here: it has never seen a model, a worker or a trajectory folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

TEXTS = tuple(f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24))
OTHER_TEXTS = (*TEXTS[:-1], "another text")
LIGHT = {
    "measures": ("scale", "mutual_knn"), "general_text": 4, "pictures": 0, "page": False, "max_overhead": None,
    "neighbours": 3,
}  # fmt: skip


@contextmanager
def fork_server() -> Iterator[ForkServerContext]:
    """The context whose processes are forked from a server that has imported everything a run needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["__main__", "torch", "transformers", "transformers.trainer", "topo_callback.callback", "small_runs", "warm"]
    )
    before = os.environ.get("PYTHONPATH")
    # the server imports from the path it starts with
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        context.Process(target=_nothing).start()
        yield context
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _nothing() -> None:
    pass


def train(output_dir: str, **options: Any) -> None:
    """The whole life of one run; writes how it ended to `result`, unless it is killed.

    Args:
        output_dir: the trainer's.
        options: those of `_train`, and
            console: a file or named pipe that becomes standard output and standard error.
            result: a JSON file with `steps` (trained in this process) and `error` (class and message, or None).
    """
    console, result = options.pop("console", None), options.pop("result", None)
    if console is not None:
        descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    steps: list[int] = []
    error = None
    try:
        _train(output_dir, steps, **options)
    except Exception as caught:  # noqa: BLE001 - handed to the test
        error = [type(caught).__name__, str(caught)]
    if result is not None:
        Path(result).write_text(json.dumps({"steps": steps, "error": error}))


def _train(
    output_dir: str,
    steps: list[int],
    *,
    max_steps: int,
    save_steps: int = 0,
    save_total_limit: int | None = None,
    resume: str | None = None,
    die_at: int | None = None,
    die_when: str | None = None,
    settings: Mapping[str, Any] | None = None,
    texts: tuple[Any, ...] | None = TEXTS,
    data: tuple[str, ...] = TEXTS,
    report_to: tuple[str, ...] = (),
    handed_over: str | None = None,
    step_seconds: float = 0.0,
    witnesses: Sequence[Any] = (),
    executor: Any = None,
) -> None:
    """Train a Llama of three blocks with the callback attached.

    Args:
        output_dir: the trainer's.
        steps: receives the steps trained here.
        max_steps: optimizer steps of the whole run.
        save_steps: a checkpoint after every so many; 0: none.
        save_total_limit: of these, how many are kept.
        resume: checkpoint to go on from.
        die_at: SIGKILL at the end of this step, once the samples of all steps before it are recorded ...
        die_when: ... and this file exists.
        settings: of the TopologyConfig, beside LIGHT.
        texts: the probe, texts or rows; None: sampled from the training data.
        data: what is trained on.
        report_to: trackers of the trainer.
        handed_over: a file that gets a line for every step whose sample is about to be handed to the recorder.
        step_seconds: added to every step.
        witnesses: more callbacks, called before ours.
        executor: measures samples in the place of a worker.
    """
    import torch
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig
    from topo_callback.watching.recorder import Recorder

    class Fate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            steps.append(state.global_step)
            time.sleep(step_seconds)
            if state.global_step == die_at:
                assert callback.folder is not None
                while not _recorded(callback.folder, die_at - 1) or (die_when and not Path(die_when).exists()):
                    time.sleep(0.02)
                os.kill(os.getpid(), signal.SIGKILL)

    if handed_over is not None:
        log = os.open(handed_over, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        put = Recorder.put

        def counted(self: Recorder, sample: Any) -> None:
            os.write(log, f"{sample.step}\n".encode())
            put(self, sample)

        Recorder.put = counted  # type: ignore[method-assign]

    torch.set_num_threads(1)
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=3)
    encoded = tokenizer(list(data), padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        output_dir=output_dir,
        max_steps=max_steps,
        per_device_train_batch_size=4,
        logging_steps=2,
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=save_total_limit,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=list(report_to),
        disable_tqdm=True,
        seed=3,
    )
    config = TopologyConfig(**{**LIGHT, **(settings or {})})
    callback = TopologyCallback(texts and list(texts), config=config, processing_class=tokenizer, executor=executor)
    # before ours in the list: at the step of its death no sample of that step is taken
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[Fate(), *witnesses, callback])
    trainer.train(resume_from_checkpoint=resume)


def _recorded(folder: Path, step: int) -> bool:
    return (folder / "samples" / f"step-{step:08d}.npz").exists()
