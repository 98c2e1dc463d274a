"""Offline W&B runs for tests: where they go, and reading their files back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def offline_wandb(folder: Path) -> Iterator[Path]:
    """Everything W&B writes goes under `folder`, and its service ends with the block; gives the folder of the runs."""
    import wandb

    wandb.teardown()  # what an earlier test left open would keep its own folder
    with pytest.MonkeyPatch.context() as environment:
        for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
            environment.setenv(f"WANDB_{name}", str(folder / name.lower()))
            (folder / name.lower()).mkdir()
        for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CONSOLE", "off"), ("DISABLE_GIT", "true")):
            environment.setenv(f"WANDB_{name}", value)
        try:
            yield folder / "dir" / "wandb"
        finally:
            wandb.teardown()


def read_wandb(run_folder: Path) -> list[dict[str, Any]]:
    """The records of one offline run, as W&B's own reader prints them."""
    (file,) = run_folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in printed.splitlines()]


def rows_of(records: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The history rows that have a key, in the order in which they were logged."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [item for item in items if key in item]
