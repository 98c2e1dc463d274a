"""One rank of a run in which a rank is lost, slow, or told not to watch; each rank writes what it saw.

    python -m torch.distributed.run --nproc_per_node 2 rank_fault_run.py FOLDER HOW

HOW: fine | killed (rank 1 dies by SIGKILL at the end of step 3) | slow (rank 1 takes 2 s longer for each step) |
disabled-0, disabled-1, disabled-0-1 (TOPO_DISABLED is set on these ranks).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

RANK = int(os.environ["RANK"])
STEPS, DIES_AT = 5, 3
SLOW_SECONDS = 2.0


def main(folder: str, how: str) -> None:
    if how.startswith("disabled") and str(RANK) in how.split("-"):
        os.environ["TOPO_DISABLED"] = "1"

    import torch
    from ranks_launch import begin_rank, losses_of, rows_of, train_and_catch, warnings_noted, write_seen
    from small_runs import LIGHT, TEXTS
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig
    from topo_callback.distributed.ranks import Ranks

    class Fate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if RANK == 1 and how == "slow":
                time.sleep(SLOW_SECONDS)
            if RANK == 1 and how == "killed" and state.global_step == DIES_AT:
                os.kill(os.getpid(), signal.SIGKILL)

    begin_rank(60)
    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    rows = rows_of(tokenizer, TEXTS)
    config = TopologyConfig(**LIGHT, drain_seconds=60.0)
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, sinks=[])
    args = TrainingArguments(
        folder, max_steps=STEPS, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_steps=1, seed=3,
    )  # fmt: skip
    trainer = Trainer(tiny_llama(tokenizer, layers=3), args, train_dataset=rows, callbacks=[Fate(), callback])
    with warnings_noted() as lines:
        error = train_and_catch(trainer, Exception)
    seen: dict[str, Any] = {
        "error": error,
        "step": trainer.state.global_step,
        "losses": losses_of(trainer),
        "warnings": lines,
        "folder": None if callback.folder is None else str(callback.folder),
    }
    if how != "killed":
        ranks = Ranks.here(args.device)
        # a name of a file that is no UTF-8 has such letters
        seen["texts"] = ranks.texts("\udcff" * RANK)
        seen["said"] = [ranks.first_text(""), ranks.first_text("I" if RANK == 1 else ""), ranks.first_text("we")]
    write_seen(folder, RANK, seen)


if __name__ == "__main__":
    main(*sys.argv[1:])
