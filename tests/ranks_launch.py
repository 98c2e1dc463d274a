"""Scripts on several ranks: started under torchrun, ended within their time, and what each rank wrote of itself.

A script of ranks is `python SCRIPT FOLDER ARGUMENT ...`; each rank leaves `rankN.json` in the folder. The first half is
for tests, which start such scripts; the second for the scripts.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any


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
) -> Launched:
    """Run a script in one process, or under torchrun in as many as there are ranks; end them all when they take long.

    Args:
        script: of ranks.
        folder: for the files of the ranks; made where it is missing. `output.txt` in it is what they print.
        arguments: of the script, after the folder.
        ranks: how many processes.
        seconds: after which all of them are killed.
        environment: variables beside those of this process.
    """
    folder.mkdir(exist_ok=True)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(script), str(folder), *arguments]
    output = folder / "output.txt"
    with output.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        code = None
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    files = sorted(folder.glob("rank*.json"))
    seen = {int(file.stem.removeprefix("rank")): json.loads(file.read_text()) for file in files}
    return Launched(code, seen, output.read_text(errors="replace"))


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
