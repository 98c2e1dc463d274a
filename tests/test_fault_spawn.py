"""Row 23 of the list of faults: a script without a main guard, and a process that must not be forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from topo_callback import Trajectory
from topo_callback.records.folder import TrajectoryFolder

SCRIPT = """
import multiprocessing, os
with open("imported.txt", "a") as log:
    log.write("once more\\n")
# as it is after CUDA has been used: a fork of this process would be of no use
multiprocessing.set_start_method("fork")
os.register_at_fork(before=lambda: open("forked.txt", "a").write("forked\\n"))

from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments
from topo_callback import TopologyCallback, TopologyConfig

tokenizer = tiny_tokenizer()
rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(list(TEXTS))["input_ids"]]
args = TrainingArguments(
    "out", max_steps=2, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no"
)
config = TopologyConfig(**LIGHT, drain_seconds=200.0)
callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer)
Trainer(tiny_llama(tokenizer, layers=3), args, train_dataset=rows, callbacks=[callback]).train()
print("trained")
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "standard input", "command"])
def test_fault_23_a_script_without_a_main_guard_is_run_once_and_watched(way: str, tmp_path: Path) -> None:
    words = {"file": ["script.py"], "standard input": ["-"], "command": ["-c", SCRIPT]}[way]
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    ended = subprocess.run(
        [sys.executable, *words],
        input=SCRIPT if way == "standard input" else "",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("trained") == 1
    # neither the worker nor what it starts has run the script, and nothing is a fork of the trainer
    assert (tmp_path / "imported.txt").read_text() == "once more\n"
    assert not (tmp_path / "forked.txt").exists()
    trajectory = Trajectory.load(tmp_path / "out")
    assert trajectory.steps == (0, 1, 2)
    assert trajectory.state == "finished"
    assert [entry["event"] for entry in trajectory.journal] == ["started", "finished"]
    log = TrajectoryFolder.find(tmp_path / "out").worker_log.read_text()
    assert "Traceback" not in log
