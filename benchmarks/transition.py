"""Does topology lead a transition of known time? Induction heads forming, over 20 seeds, beside 20 quiet runs.

    python benchmarks/transition.py train --output FOLDER [--seeds 20] [--quiet 20]
    python benchmarks/transition.py report --output FOLDER

`train` carries out the runs that are not in the folder yet, alternately with a transition and quiet ones; it can be
interrupted and started again, and processes that are started side by side share the work. `report` writes
RESULTS_transition.md (what is below its heading "Read with this" is kept) and its picture from the runs that are there.
"""

from __future__ import annotations

import argparse
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


def train(output: Path, seeds: int, quiet: int) -> None:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.backend import get_context
    from transition_runs import Sizes, carry_out

    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    wanted = sorted([(seed, "repeated") for seed in range(seeds)] + [(seed, "quiet") for seed in range(quiet)])
    with ProcessPoolExecutor(max_workers=1, context=get_context("loky"), env=threads) as executor:
        for seed, kind in wanted:
            started = time.monotonic()
            folder = output / "runs" / f"{kind}-seed{seed:02d}"
            with claim(folder) as ours:
                seconds = carry_out(kind, seed, folder, executor, Sizes()) if ours else None
            if seconds is not None:
                wall = time.monotonic() - started
                print(f"{folder.name}: {seconds:.1f} s of the training process, {wall:.1f} s in all", flush=True)


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether this process is the one to carry out a run; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claim").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quiet", type=int, default=20)
    given = parser.parse_args()
    if given.what == "train":
        train(given.output, given.seeds, given.quiet)
    else:
        from transition_report import write

        write(given.output, HERE / "RESULTS_transition.md")


if __name__ == "__main__":
    main()
