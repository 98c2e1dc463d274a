"""A run of its own process that counts, while it trains, whatever could grow with the samples."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import small_runs

SAMPLES = 480
EVERY = 3  # steps between counts
# counts until allocators and caches have what they need: the window of the time zigzag is full after 128 samples, and
# Python's table of interned names (pathlib's) grows once, by 2 MiB, at some 210
WARM = 270 // EVERY
TEXTS = tuple(f"prompt {i} asks for {i * i % 97}" for i in range(100))


@dataclass
class Growth:
    """What was counted while training, by name."""

    counts: dict[str, list[float]] = field(default_factory=dict)

    def at(self, **counts: float) -> None:
        for name, count in counts.items():
            self.counts.setdefault(name, []).append(count)

    def rise(self, name: str) -> float:
        """Growth for each sample after the warm-up: the median slope between early and late ones, which no single
        jump of an allocator moves."""
        values = np.asarray(self.counts[name][WARM:], dtype=float)
        half = len(values) // 2
        return float(np.median((values[half : 2 * half] - values[:half]) / half / EVERY))


def watch(output_dir: str, result: str, samples: int = SAMPLES, settings: dict[str, Any] | None = None) -> None:
    """Train with a sample at every step and count at every third; writes the counts as an .npz file.

    Args:
        output_dir: the trainer's.
        result: the file.
        samples: steps, and samples.
        settings: of the TopologyConfig, in place of few measures.
    """
    chosen = {"samples": samples, "measures": ("scale", "mutual_knn", "barcode_features"), **(settings or {})}
    from transformers import TrainerCallback

    growth = Growth()
    process = psutil.Process()
    found: dict[str, psutil.Process] = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **context: Any) -> None:
            # the worker keeps pace, so that it measures as many samples as are taken
            while (spooled := sum(1 for _ in Path(output_dir).glob("topology/*/spool/*"))) > 2:
                time.sleep(0.01)
            if state.global_step % EVERY:
                return
            children = process.children(recursive=True)
            worker = found.get("worker") or _worker(children)
            if worker is not None:
                found["worker"] = worker
            growth.at(
                memory=process.memory_info().rss,
                files=process.num_fds(),
                threads=threading.active_count(),
                system_threads=process.num_threads(),
                processes=len(children),
                hooks=_hooks(model),
                spool=spooled,
                semaphores=_semaphores(process.pid),
                worker_memory=worker.memory_info().rss if worker else 0,
                worker_files=worker.num_fds() if worker else 0,
                worker_threads=worker.num_threads() if worker else 0,
            )

    small_runs.train(
        output_dir,
        max_steps=samples,
        texts=TEXTS,
        settings=chosen,
        console=os.devnull,
        result=f"{result}.json",
        witnesses=[Watch()],
    )
    np.savez(result, **{name: np.asarray(values) for name, values in growth.counts.items()})


def _worker(children: list[psutil.Process]) -> psutil.Process | None:
    """The process that measures: the child that is not the tracker of semaphores."""
    for child in children:
        if "resource_tracker" not in " ".join(child.cmdline()) and child.cmdline():
            return child
    return None


def _hooks(model: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def _semaphores(pid: int) -> int:
    """loky's named semaphores of one process."""
    folder = Path("/dev/shm")
    return sum(f"loky-{pid}-" in name for name in os.listdir(folder)) if folder.is_dir() else 0
