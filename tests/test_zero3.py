"""DeepSpeed's ZeRO-3 on two ranks: read as the whole model is, and trained as without the callback."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ranks_launch import launch_ranks
from small_runs import TEXTS
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig, Trajectory
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader.reader import Reader
from topo_callback.records.record import read_record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]
SCRIPT = Path(__file__).with_name("zero3_run.py")


def test_fault_22_a_model_sharded_by_zero3_is_read_and_not_disturbed(tmp_path: Path) -> None:
    # DeepSpeed compiles an extension the first time
    environment = {"DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}
    first, second = launch_ranks(SCRIPT, tmp_path, seconds=800, environment=environment, torchrun=True).well()
    for rank in (first, second):
        assert rank["watched"]["sharded"]
        for name in ("weights", "losses"):
            assert rank["watched"][name] == rank["unwatched"][name]
    assert second["watched"]["folder"] is None
    trajectory = Trajectory.load(tmp_path / "watched")
    assert trajectory.steps == (0, 1, 2, 3)
    assert trajectory.state == "finished"
    assert trajectory.run["training"]["world_size"] == 2

    tokenizer = tiny_tokenizer()
    whole = tiny_llama(tokenizer, layers=3)
    config = TopologyConfig(layers="all", neighbours=3, probe_batch=8, measures=("scale",))
    reader = Reader(whole, Probe.from_rows(list(TEXTS), tokenizer), config, Ranks())
    reader.agree(model)
    sample = reader.read(whole, 0, {})
    assert sample is not None
    recorded = read_record(trajectory.folder / "distances" / "step-00000000.npz")[0]["distances"]
    np.testing.assert_allclose(recorded, sample.distances, rtol=1e-6)
