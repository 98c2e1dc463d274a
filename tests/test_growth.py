"""480 samples in one run leave nothing behind that grows: memory, files, threads, processes, hooks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import small_runs
from growing_run import EVERY, SAMPLES, WARM, Growth, watch

from topo_callback import Trajectory

BYTES_PER_SAMPLE = 16 << 10  # the distances of one sample alone are 58 KiB

pytestmark = pytest.mark.slow


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
