"""Pairs of ranks that say something to each other and end at once; prints how each ended.

    python ending_ranks_run.py FOLDER PAIRS WHAT

WHAT: texts | worst | late (worst, and 20 ms of work in which no other thread gets the GIL).
One interpreter is forked for all, so that a pair takes a fraction of a second. It must be forked before it has threads.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from topo_callback.distributed.ranks import Ranks


def end(rank: int, store: str, what: str) -> None:
    """What a rank does."""
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    ranks = Ranks.here(torch.device("cpu"))
    # other threads get their turn late: one core for a rank, and a main thread that keeps the GIL as long as it can
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    sys.setswitchinterval(60)
    if what == "texts":
        ranks.texts(f"rank {rank}")
    else:
        ranks.worst(rank)
    if what == "late":
        end_of_work = time.monotonic() + 0.02
        while time.monotonic() < end_of_work:
            pass


def main(folder: str, pairs: str, what: str) -> None:
    torch.set_num_threads(1)
    for pair in range(int(pairs)):
        children = []
        for rank in (0, 1):
            child = os.fork()
            if child == 0:
                end(rank, f"{folder}/store{pair}", what)
                return  # the interpreter ends as any other does
            children.append(child)
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
