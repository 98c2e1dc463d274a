"""A worker that starts before its run: one at most, taken by the first run, and gone without one."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from topo_callback.config import TopologyConfig
from topo_callback.worker import early
from topo_callback.worker.early import end_early, start_early, take_early
from topo_callback.worker.executor import TerminatedWorkerError, WorkerExecutor

CONFIG = TopologyConfig(threads=1)


class Owner:
    """What a worker is started for."""


@pytest.fixture(autouse=True)
def _none_is_left(engines_ready: None) -> Iterator[None]:
    yield
    end_early()


def workers() -> set[int]:
    """The processes of ours that run."""
    found = set()
    for process in psutil.Process().children():
        try:
            if "topo_callback.worker.process" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def settled(count: int) -> set[int]:
    """The workers, once there are so many of them."""
    end = time.monotonic() + 30
    while len(found := workers()) != count and time.monotonic() < end:
        time.sleep(0.02)
    assert len(found) == count
    return found


def test_the_first_run_takes_the_one_worker_that_waits(tmp_path: Path) -> None:
    owner, other = Owner(), Owner()
    start_early(owner, CONFIG)
    start_early(other, CONFIG)
    (process,) = settled(1)
    log = tmp_path / "worker.log"
    executor = take_early(log, threads=1, memory_bytes=None)
    try:
        assert executor.submit(int, "7").result(timeout=120) == 7
        assert workers() == {process}
        assert f"worker {process} started" in log.read_text()
        del owner, other
        gc.collect()
        assert workers() == {process}, "the run has it now"
        late = take_early(log, threads=1, memory_bytes=None)
        assert late is not executor
    finally:
        executor.shutdown()
    settled(0)


def test_the_limit_of_memory_holds_where_there_can_be_no_log(tmp_path: Path) -> None:
    import resource

    owner = Owner()
    start_early(owner, CONFIG)
    settled(1)
    executor = take_early(tmp_path, threads=1, memory_bytes=24 << 30)  # a folder
    try:
        limit, _ = executor.submit(resource.getrlimit, resource.RLIMIT_AS).result(timeout=120)
        assert limit == 24 << 30
    finally:
        executor.shutdown()


def test_without_a_run_it_ends_with_the_callback() -> None:
    owner = Owner()
    start_early(owner, CONFIG)
    settled(1)
    del owner
    gc.collect()
    settled(0)


def test_it_waits_for_the_last_of_those_who_asked() -> None:
    """Lightning makes a callback anew when training starts, and drops the one that was made before."""
    owner = Owner()
    start_early(owner, CONFIG)
    process = settled(1)
    other = Owner()
    start_early(other, CONFIG)
    del owner
    gc.collect()
    assert workers() == process
    del other
    gc.collect()
    settled(0)


def test_garbage_that_is_collected_while_one_starts_ends_nothing_and_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner()
    start_early(owner, CONFIG)
    settled(1)
    end_early()
    settled(0)
    other, circle = Owner(), [owner]
    circle.append(circle)
    del owner, circle

    def collecting(ranks_here: int, workers: int) -> int:
        gc.collect()
        return 1

    monkeypatch.setattr(early, "default_threads", collecting)
    done = threading.Thread(target=start_early, args=(other, TopologyConfig()), daemon=True)
    done.start()
    done.join(timeout=60)
    assert not done.is_alive()
    settled(1)


def test_it_goes_where_the_trainer_is_when_the_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()
    start_early(owner, CONFIG)
    settled(1)
    monkeypatch.chdir(tmp_path)
    executor = take_early(Path("worker.log"), threads=1, memory_bytes=None)
    try:
        assert executor.submit(os.getcwd).result(timeout=120) == str(tmp_path)
        assert "started" in (tmp_path / "worker.log").read_text()
    finally:
        executor.shutdown()


def kill(process: int) -> None:
    """Kill a worker and wait until it is dead, though nobody may have asked how it ended."""
    killed = psutil.Process(process)
    killed.kill()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if killed.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    pytest.fail("it does not die")


def test_a_worker_that_died_while_it_waited_is_replaced(tmp_path: Path) -> None:
    owner = Owner()
    start_early(owner, CONFIG)
    (process,) = settled(1)
    kill(process)
    executor = take_early(tmp_path / "worker.log", threads=1, memory_bytes=None)
    try:
        assert executor.submit(int, "7").result(timeout=60) == 7
        assert "started" in (tmp_path / "worker.log").read_text()
    finally:
        executor.shutdown()


def test_one_that_dies_idle_costs_a_task_and_no_wait(tmp_path: Path) -> None:
    owner = Owner()
    start_early(owner, CONFIG)
    (process,) = settled(1)
    executor = take_early(tmp_path / "worker.log", threads=1, memory_bytes=None)
    try:
        assert executor.submit(int, "7").result(timeout=120) == 7
        kill(process)
        for _ in range(2):
            with pytest.raises(TerminatedWorkerError):
                executor.submit(int, "7").result(timeout=60)
        executor.kill()  # as the dispatcher does when a task has failed
        assert executor.submit(int, "7").result(timeout=60) == 7
        assert (tmp_path / "worker.log").read_text().count("started") == 2
    finally:
        executor.shutdown()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_only_the_rank_that_records_starts_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    owner = Owner()
    start_early(owner, CONFIG)
    assert early._waiting.executor is None
    assert isinstance(take_early(Path("unused.log"), threads=1, memory_bytes=None), WorkerExecutor)


def test_a_callback_starts_one_unless_it_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from topo_callback import TopologyCallback

    started: list[object] = []
    monkeypatch.setattr(early, "start_early", lambda owner, config: started.append(owner))
    callback = TopologyCallback(["a text", "another"] * 20)
    assert started == [callback]
    with ThreadPoolExecutor(1) as executor:
        TopologyCallback(executor=executor)
    monkeypatch.setenv("TOPO_DISABLED", "1")
    TopologyCallback()
    assert started == [callback]
