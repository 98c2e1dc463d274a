"""What surrounds a run that downloads nothing: a small model and data, an offline W&B run, optional packages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from topo_callback.demo.corpus import gather_corpus, preference_rows
from topo_callback.errors import MissingExtraError
from topo_callback.probe.data_rows import Row


def require(*packages: str) -> None:
    """Raise MissingExtraError, with the line that installs them, unless all packages are there."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(f'{", ".join(missing)} is not installed; run: pip install "topo_callback[demo]"')


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables set inside and as before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def offline_wandb(folder: Path, *, enabled: bool) -> Iterator[Path | None]:
    """An offline W&B run for the trainer to log into, all of whose files are in `folder`; no account, no network.

    Yields:
        The folder that `wandb sync` takes; None when W&B is not installed or not wanted.
    """
    if not enabled or importlib.util.find_spec("wandb") is None:
        yield None
        return
    files = folder / "wandb"
    files.mkdir(parents=True, exist_ok=True)  # wandb falls back to a temporary folder when it is missing
    where = {name: str(files / ".wandb") for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    with environment({"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true", **where}):
        import wandb

        if wandb.run is not None:  # opened by the caller, whose it stays
            yield Path(wandb.run.settings.sync_dir)
            return
        run = wandb.init(
            project="topo-callback-demo",
            name=folder.name,
            dir=str(folder),
            mode="offline",
            settings=wandb.Settings(silent=True, console="off"),
        )
        exit_code = 1
        try:
            yield Path(run.settings.sync_dir)
            exit_code = 0
        finally:
            run.finish(exit_code=exit_code)


@contextmanager
def one_thread(*, enabled: bool) -> Iterator[None]:
    """Torch computes on one thread inside.

    For matrices this small a second thread gains little, and it loses a lot when anything else runs: the two wait for
    each other after every operation. The other core is the worker's.
    """
    import torch

    before = torch.get_num_threads()
    if enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def engines_compiling() -> Iterator[Callable[[], None]]:
    """Compile the native engines in a process beside the pretraining; gives a function that waits for it.

    After the first time on a machine there is nothing to compile, and the process ends in seconds. What goes wrong in
    it goes wrong again in the worker, which says so.
    """
    process = subprocess.Popen(
        # -P: the package that runs, not a checkout of it in the working directory, whose kernels have another place
        [sys.executable, "-P", "-m", "topo_callback", "compile"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def wait() -> None:
        process.wait()

    try:
        yield wait
    finally:
        process.kill()
        process.wait()


def offline_model(folder: str | Path, *, pretraining_steps: int = 60, seed: int = 0) -> str:
    """Build a small language model, pretrain it briefly, save it with its tokenizer in `folder`; returns that path."""
    from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
    from topo_callback.demo.surroundings import one_thread

    corpus = gather_corpus()
    tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
    model = build_model(tokenizer, seed=seed)
    with one_thread(enabled=True):
        pretrain(model, token_stream(tokenizer, corpus.reference), steps=pretraining_steps, seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def offline_questions() -> list[Row]:
    """Rows of prompt and completion: questions about Python's standard library, for SFTTrainer."""
    return list(gather_corpus().training_rows)


def offline_preferences(*, seed: int = 0) -> list[Row]:
    """Rows of prompt, chosen and rejected: the right answer and the answer to another question, for DPOTrainer."""
    return list(preference_rows(gather_corpus().training_rows, seed=seed))
