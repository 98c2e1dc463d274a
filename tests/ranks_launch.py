"""Scripts on several ranks: forked or under torchrun, ended within their time, and what each rank wrote of itself.

A script of ranks is `python SCRIPT FOLDER ARGUMENT ...`; each rank leaves `rankN.json` in the folder. The first half is
for tests, which start such scripts; the second for the scripts.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from forked_scripts import begin_script


@dataclass(frozen=True)
class Launched:
    """What became of a launch.

    Attributes:
        code: exit status of the launcher; None where it took too long and was killed, with all that it had started.
        seen: what each rank wrote, by its number; a rank that was lost wrote nothing.
        printed: by all of them.
    """

    code: int | None
    seen: dict[int, Any]
    printed: str

    def well(self) -> list[Any]:
        """What each rank wrote, in their order; the test fails where the launch did not end well."""
        how = "took too long" if self.code is None else f"exit {self.code}"
        assert self.code == 0, f"{how}:\n{self.printed[-4000:]}"
        return [self.seen[rank] for rank in sorted(self.seen)]


def launch_ranks(
    script: Path,
    folder: Path,
    *arguments: str,
    ranks: int = 2,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    torchrun: bool = False,
) -> Launched:
    """Run a script in one process, or in as many as there are ranks; end them all when they take long.

    Args:
        script: of ranks.
        folder: for the files of the ranks; made where it is missing. `output.txt` in it is what they print.
        arguments: of the script, after the folder.
        ranks: how many processes.
        seconds: after which all of them are killed.
        environment: variables beside those of this process.
        torchrun: fresh interpreters under the launcher, which takes 15 s longer; else they are forked (forked_scripts).
    """
    folder.mkdir(exist_ok=True)
    output = folder / "output.txt"
    words = [str(script), str(folder), *arguments]
    start = _under_torchrun if torchrun else _forked
    code = start(words, output, ranks, seconds, environment or {})
    files = sorted(folder.glob("rank*.json"))
    seen = {int(file.stem.removeprefix("rank")): json.loads(file.read_text()) for file in files}
    return Launched(code, seen, output.read_text(errors="replace"))


def _forked(
    words: Sequence[str], output: Path, ranks: int, seconds: float, environment: Mapping[str, str]
) -> int | None:
    """As torchrun does it: the first rank that fails ends the others."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        of_all = {**environment, "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank in range(ranks):
        of_rank = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "LOCAL_WORLD_SIZE": f"{ranks}"}
        own = {**of_all, **of_rank} if ranks > 1 else environment
        processes.append(begin_script(words, output, output, environment=own))
    try:
        end = time.monotonic() + seconds
        running = list(processes)
        while running and time.monotonic() < end:
            wait([process.sentinel for process in running], timeout=end - time.monotonic())
            running = [process for process in running if process.exitcode is None]
            if any(process.exitcode for process in processes):
                break
        codes = [process.exitcode for process in processes]
        return next(filter(None, codes), None if None in codes else 0)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _under_torchrun(
    words: Sequence[str], output: Path, ranks: int, seconds: float, environment: Mapping[str, str]
) -> int | None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *launcher, *words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def begin_rank(seconds: float) -> int:
    """Join the other ranks on the CPU; returns the number of this one.

    Args:
        seconds: after which a collective that waits in vain for another rank is an error, which ends the run.
    """
    import torch
    from accelerate import PartialState

    torch.set_num_threads(1)
    return int(PartialState(cpu=True, timeout=timedelta(seconds=seconds)).process_index)


def write_seen(folder: str | Path, rank: int, seen: Any) -> None:
    """Leave what this rank saw."""
    Path(folder, f"rank{rank}.json").write_text(json.dumps(seen))


@contextmanager
def warnings_noted() -> Iterator[list[str]]:
    """The warnings of the package while this lasts."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("topo_callback").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("topo_callback").removeHandler(handler)


def train_and_catch(trainer: Any, caught: type[BaseException] | tuple[type[BaseException], ...]) -> str | None:
    """Train; what was raised, in words, or None."""
    try:
        trainer.train()
    except caught as error:
        return f"{type(error).__name__}: {error}"
    return None


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def rows_of(tokenizer: Any, texts: Sequence[str], *, masked: bool = False) -> list[dict[str, Any]]:
    """Rows of 24 tokens for a Trainer, with their attention masks where these are asked for."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    masks = encoded["attention_mask"]
    return [{**row, "attention_mask": mask} for row, mask in zip(rows, masks, strict=True)] if masked else rows
