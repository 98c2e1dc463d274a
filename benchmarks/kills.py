"""Kill a small training run at random moments, and count what each kill cost.

    python benchmarks/kills.py [--kills 200] [--seed 6] [--together 2]

Every run is a Trainer on a tiny Llama with the callback attached, forked from a server that has imported everything
and killed with SIGKILL at a moment drawn between its start and its end. A sample counts as lost when the trainer had
begun to hand it over and it is neither recorded nor in the spool. The same as tests/test_kills.py, with more kills.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killed_runs import EARLIEST, LATEST, MAX_STEPS, MEASURING, KilledRun, kill_runs
from small_runs import fork_server


def summary(runs: list[KilledRun]) -> str:
    """A Markdown table of what was promised and what was counted."""
    killed = [run for run in runs if not run.ended]
    handed_over = sum(len(run.handed_over) for run in killed)
    rows = {
        "runs killed": f"{len(killed)} of {len(runs)} (the others had ended)",
        "moment of the kill": f"drawn uniformly, half of them {EARLIEST} s to {LATEST} s after the fork, half at most "
        f"{MEASURING} s after the first record",
        "... before there was a folder": sum(run.state is None for run in killed),
        "... with a folder, before the first record": sum(run.state is not None and not run.recorded for run in killed),
        "... while records were written": sum(bool(run.recorded) for run in killed),
        "samples handed over": f"{handed_over} (at most {MAX_STEPS + 1} a run)",
        "most samples lost in one kill": max((len(run.lost) for run in killed), default=0),
        "kills that lost a sample": sum(bool(run.lost) for run in killed),
        "samples lost that were not the last": sum(bool(set(run.lost) - set(run.handed_over[-1:])) for run in killed),
        "files that cannot be read": sum(len(run.unreadable) for run in killed),
        "runs completed by finish, but for the lost sample": sum(
            set(run.completed) == set(run.handed_over) - set(run.lost) for run in killed
        ),
        "files left over after finish": sum(len(run.left_over) for run in killed),
        "runs reported as": ", ".join(
            f"{state or 'no trajectory yet'} {sum(run.state == state for run in killed)}"
            for state in sorted({run.state for run in killed}, key=str)
        ),
        "child processes at the kill": sum(run.children for run in killed),
        "until no child lived and no pipe was held": "median "
        f"{statistics.median(run.orphan_seconds for run in killed):.2f} s, "
        f"most {max(run.orphan_seconds for run in killed):.2f} s",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| what | counted |", "|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 200), ("seed", 6), ("together", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    started = time.perf_counter()
    with fork_server() as context, tempfile.TemporaryDirectory() as folder:
        runs = kill_runs(context, Path(folder), options.kills, seed=options.seed, together=options.together)
    print(f"- seed {options.seed}, {options.together} runs at a time, {time.perf_counter() - started:.0f} s\n")
    print(summary(runs))


if __name__ == "__main__":
    main()
