"""Is the verdict's sentence right on runs with a planted event: kind, layers, steps?

    python benchmarks/verdicts.py --work FOLDER [--seeds N]

Runs of watched_runs.py of 128 steps on questions and answers; behind step 64 something happens, as in events_runs.py:

- quiet: nothing.
- lrjump: the rate that the optimizer uses is four times the planned one.
- lostopt: the state of the optimizer is lost.
- reinit: the matrices of the fourth block are drawn anew; what it gives is layer 4.
- constant: all answers become one refusal.
- far: the rows become reversed text.

Runs that FOLDER has are not carried out again. Prints what the verdict says of each.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from events_runs import EVENT, ROWS, STEPS
from events_texts import Texts
from machine import describe_machine
from transformers import TrainerCallback
from watched_runs import carry_out, drawn, probe_and_pairs, rows_of

from topo_callback import Trajectory
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.worker.finish import finish_folder

KINDS = ("quiet", "lrjump", "lostopt", "reinit", "constant", "far")
BEHIND = {"constant": "refusal", "far": "reversed"}  # what is trained on then
MEASURES = ("scale", "mutual_knn", "cka", "distance_change", "wasserstein", "rtd")


class Planted(TrainerCallback):
    """What happens behind a step, to a trainer whose rows do not change."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.generator = torch.Generator().manual_seed(2000 + seed)

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step != EVENT:
            return
        if self.kind == "lostopt":
            optimizer = given["optimizer"]
            getattr(optimizer, "optimizer", optimizer).state.clear()
        elif self.kind == "reinit":
            with torch.no_grad():
                for weights in given["model"].model.layers[3].parameters():
                    if weights.dim() == 2:
                        weights.normal_(0, 0.05, generator=self.generator)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.kind == "lrjump" and state.global_step >= EVENT:
            for group in given["optimizer"].param_groups:
                group["lr"] *= 4  # the scheduler sets it anew at every step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    texts = Texts(arguments.work)
    _, pairs = probe_and_pairs(texts)
    print(describe_machine())
    for kind in KINDS:
        for seed in range(arguments.seeds):
            folder = arguments.work / "verdicts" / f"{kind}-{seed}"
            if not (folder / "topology" / "latest").exists():
                started = time.perf_counter()
                chance = random.Random(100 + seed)
                rows = drawn(rows_of(texts, "answers", pairs, chance), STEPS * ROWS, chance)
                if kind in BEHIND:
                    others = rows_of(texts, BEHIND[kind], pairs, chance)
                    rows[EVENT * ROWS :] = drawn(others, (STEPS - EVENT) * ROWS, chance)
                planted = [Planted(kind, seed)]
                carry_out(texts, rows, folder, seed, callbacks=planted, measures=MEASURES, layers="all")
                print(f"{folder.name}: {time.perf_counter() - started:.0f} s", flush=True)
            run = TrajectoryFolder.find(folder)
            if run.waiting():
                finish_folder(folder)
            print(f"\n{kind}, seed {seed}\n{Trajectory.load(folder).summary()}", flush=True)


if __name__ == "__main__":
    main()
