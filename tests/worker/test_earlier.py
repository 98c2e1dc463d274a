"""Which earlier samples a new one needs: the first with each part, also of the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trajectories import make_snapshots, write_trajectory

from topo_callback.records.record import write_record
from topo_callback.worker.earlier import compared_steps


@pytest.mark.parametrize(("text_from", "needed"), [(0, {0, 8}), (2, {0, 2, 8}), (8, {0, 8}), (99, {0, 8})])
def test_the_first_sample_that_read_the_general_text_is_needed(
    tmp_path: Path, text_from: int, needed: set[int]
) -> None:
    """Where step 0 could not read it, `.first` is that one from then on, not the newest."""
    steps = (0, 1, 2, 4, 8)
    folder = write_trajectory(tmp_path, steps)
    for snapshot in make_snapshots(steps):
        if snapshot.step >= text_from:
            read = replace(snapshot, by_prompt={"general_text_loss": np.ones(4)})
            write_record(folder.step_file(folder.samples, snapshot.step), *read.to_record())
    assert compared_steps(folder, steps) == needed
