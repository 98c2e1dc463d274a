"""Three hundred samples in one run leave nothing behind that grows: memory, files, threads, processes, hooks."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import small_runs

from topo_callback import Trajectory

SAMPLES = 300
EVERY = 3  # steps between counts
WARM = 120 // EVERY  # counts until allocators and caches have what they need
TEXTS = tuple(f"prompt {i} asks for {i * i % 97}" for i in range(100))
BYTES_PER_SAMPLE = 16 << 10  # the distances of one sample alone are 58 KiB

pytestmark = pytest.mark.slow


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


def watch(output_dir: str, result: str) -> None:
    """Train with a sample at every step and count at every third; writes the counts as an .npz file."""
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
        max_steps=SAMPLES,
        texts=TEXTS,
        settings={"samples": SAMPLES, "measures": ("scale", "mutual_knn", "barcode_features")},
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


@pytest.fixture(scope="module")
def counted(engines_ready: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Growth, Path]:
    """The counts of a run in a process of its own, and its output_dir."""
    output_dir = tmp_path_factory.mktemp("growth")
    result = output_dir / "counts.npz"
    with small_runs.fork_server() as server:
        process = server.Process(target=watch, args=(str(output_dir), str(result)))
        process.start()
        process.join(280)
    assert process.exitcode == 0
    with np.load(result) as counts:
        return Growth({name: counts[name].tolist() for name in counts.files}), output_dir


def test_every_step_was_sampled_and_measured(counted: tuple[Growth, Path]) -> None:
    assert Trajectory.load(counted[1]).steps == tuple(range(SAMPLES + 1))


@pytest.mark.parametrize("name", ["files", "threads", "processes", "hooks", "semaphores", "worker_files"])
def test_nothing_that_can_be_counted_grows_with_the_samples(name: str, counted: tuple[Growth, Path]) -> None:
    values = counted[0].counts[name]
    assert counted[0].rise(name) == 0
    # and at the end there is no more of it than the jitter of one task at work
    assert max(values[-20:]) - max(values[WARM : WARM + 20]) <= 2, values[WARM:]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("name", ["memory", "worker_memory"])
def test_memory_does_not_grow_with_the_samples(name: str, counted: tuple[Growth, Path]) -> None:
    assert counted[0].counts[name][-1] > 0
    assert counted[0].rise(name) < BYTES_PER_SAMPLE


def test_the_spool_empties_and_no_hook_is_left(counted: tuple[Growth, Path]) -> None:
    growth, output_dir = counted
    assert list(output_dir.glob("topology/*/spool/*")) == []
    assert set(growth.counts["hooks"]) == {0}


def test_a_slope_is_found_under_jitter() -> None:
    growth, jitter = Growth(), np.random.default_rng(0).integers(0, 2, SAMPLES)
    for number in range(0, SAMPLES, EVERY):
        growth.at(rising=number + jitter[number], level=jitter[number])
    assert growth.rise("rising") == pytest.approx(1, abs=0.05)
    assert growth.rise("level") == 0
