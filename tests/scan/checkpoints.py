"""Checkpoints for the tests of scan: runs of a tiny Llama with the callback attached, and plain saved models."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from small_runs import LIGHT, TEXTS, train
from tiny import tiny_llama, tiny_tokenizer

from topo_callback.config import TopologyConfig
from topo_callback.scan import Manner, Prompts, Scanned, find_series, scan

# what a callback of `small_runs` reads with, one batch shape for both
SETTINGS: dict[str, Any] = {**LIGHT, "measures": ("scale", "mutual_knn", "wasserstein", "cka"), "probe_batch": 8}


def write_probe(folder: Path) -> Path:
    """The probe of `small_runs` as a file with one prompt per line."""
    file = folder / "probe.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    return file


def save_model(folder: Path, *, layers: int = 3, width: int = 32, seed: int = 0, **options: Any) -> Path:
    """A model with its tokenizer, as `save_pretrained` leaves them."""
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=layers, width=width, seed=seed).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def trained(folder: Path, settings: dict[str, Any] = SETTINGS, **options: Any) -> Path:
    """The output_dir of three steps, all saved and all sampled, and the model before them in `base`."""
    save_model(folder / "base")
    result = str(folder / "result.json")
    with ThreadPoolExecutor(1) as executor:
        train(
            str(folder / "run"), max_steps=3, save_steps=1, settings=settings, result=result, executor=executor,
            **options,
        )  # fmt: skip
    return folder / "run"


def scan_run(run: str, output: str, **options: Any) -> Scanned:
    config = TopologyConfig(**{**SETTINGS, **options.pop("settings", {})})
    prompts = Prompts(file=Path(run).parent / "probe.txt")
    (result,) = scan(find_series([run]), prompts, Path(output), config, manner=Manner(**options))
    return result


def slow_scan(run: str, output: str) -> None:
    """A scan that takes its time after every unit, in a process that is killed."""
    from topo_callback.scan import unit

    write = unit.write_whole

    def slowly(path: Path, data: bytes) -> None:
        write(path, data)
        time.sleep(0.3)

    unit.write_whole = slowly
    scan_run(run, output)
