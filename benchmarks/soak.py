"""A long run with a sample at every step: whatever could grow with the samples, counted and drawn.

    python benchmarks/soak.py [--steps 2000]

The run of tests/growing_run.py, with as many steps and the default measures: memory, open files, threads, processes,
hooks, semaphores and waiting samples, of the training process and of the worker, every third step. Writes
RESULTS_soak.png and RESULTS_soak.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from machine import describe_machine
from matplotlib.ticker import MaxNLocator

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from growing_run import EVERY, watch
from small_runs import fork_server

from topo_callback import TopologyConfig

HERE = Path(__file__).resolve().parent
COUNTS = {
    "files": "open files, trainer",
    "worker_files": "open files, worker",
    "system_threads": "threads, trainer",
    "worker_threads": "threads, worker",
    "processes": "child processes",
    "semaphores": "named semaphores",
    "hooks": "hooks on the model",
    "spool": "samples waiting",
}


def run(steps: int) -> tuple[dict[str, np.ndarray], float]:
    """The counts by name, one every third step, and the seconds that the run took."""
    settings = {"measures": TopologyConfig().measures}
    with tempfile.TemporaryDirectory() as folder, fork_server() as server:
        result = Path(folder) / "counts.npz"
        start = time.perf_counter()
        process = server.Process(target=watch, args=(str(folder), str(result), steps, settings))
        process.start()
        process.join()
        seconds = time.perf_counter() - start
        if process.exitcode:
            raise SystemExit(f"the run ended with {process.exitcode}")
        with np.load(result) as counts:
            return {name: counts[name] for name in counts.files}, seconds


def draw(counts: dict[str, np.ndarray], target: Path) -> None:
    """Memory above, everything that can be counted below, over steps."""
    at = EVERY * np.arange(1, len(counts["memory"]) + 1)
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for name, title, colour in (("memory", "trainer", "#0072B2"), ("worker_memory", "worker", "#D55E00")):
        above.plot(at, counts[name] / 2**20, color=colour, label=title)
    above.set_ylabel("resident memory, MiB")
    above.set_ylim(bottom=0)
    above.legend(frameon=False)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(COUNTS)))
    order = sorted(COUNTS, key=lambda name: -float(np.median(counts[name])))
    for colour, name in zip(colours, order, strict=True):
        below.plot(at, counts[name], color=colour, label=COUNTS[name], linewidth=1)
    below.set_ylabel("count")
    below.set_xlabel("training step (a sample at each)")
    below.set_ylim(bottom=0)
    below.yaxis.set_major_locator(MaxNLocator(integer=True))
    below.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=150)
    plt.close(figure)


def rise(values: np.ndarray) -> float:
    """Growth for each sample in the second half of the run: the slope between its halves, by medians."""
    late = values[len(values) // 2 :].astype(float)
    half = len(late) // 2
    return float(np.median((late[half : 2 * half] - late[:half]) / half / EVERY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    counts, seconds = run(steps)
    draw(counts, HERE / "RESULTS_soak.png")
    lines = [
        "# A soak run",
        "",
        f"`python benchmarks/soak.py --steps {steps}`",
        "",
        describe_machine(),
        "",
        f"{steps:,} steps with a sample at every step, default measures, {seconds:,.0f} s. The trainer waits where "
        "more than two samples are waiting, so that the worker measures every one.",
        "",
        "![memory and counts over the steps](RESULTS_soak.png)",
        "",
        "| what | after a quarter | at the end | growth a sample, second half |",
        "|---|---|---|---|",
    ]
    for name in ("memory", "worker_memory"):
        values = counts[name]
        title = "memory of the trainer" if name == "memory" else "memory of the worker"
        lines.append(
            f"| {title} | {values[len(values) // 4] / 2**20:.0f} MiB | {values[-1] / 2**20:.0f} MiB "
            f"| {rise(values) / 2**10:.1f} KiB |"
        )
    for name, title in COUNTS.items():
        values = counts[name]
        lines.append(f"| {title} | {values[len(values) // 4]:.0f} | {values[-1]:.0f} | {rise(values):.3g} |")
    (HERE / "RESULTS_soak.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
