"""Rows of the list of faults that concern the worker and the spool, each by real injection."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ways_to_die
from tiers import mostly_slow
from trajectories import make_sample, write_trajectory

from topo_callback import TopologyConfig, Trajectory
from topo_callback.errors import FolderBusyError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.sinks import MemorySink
from topo_callback.watching.recorder import Recorder
from topo_callback.watching.resuming import open_folder
from topo_callback.worker import dispatcher_thread as dispatching
from topo_callback.worker import spool as spooling
from topo_callback.worker.finish import finish_folder

LIGHT = {"measures": ("scale", "mutual_knn"), "zigzag_engine": "off", "pictures": 0, "drain_seconds": 60.0}


@pytest.fixture
def open_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Recorder]]:
    """Makes recorders on a fresh folder, whose worker runs the task given; closes them."""
    opened: list[Recorder] = []

    def make(task: Callable[..., Any] | None = None, *, executor: Any = None, **settings: Any) -> Recorder:
        if task is not None:
            monkeypatch.setattr(dispatching, "measure_spooled", task)
        config = TopologyConfig(**{**LIGHT, **settings})
        folder = TrajectoryFolder.new(tmp_path / "topology")
        folder.lock()
        folder.write_run(
            {
                "tool": "topo_callback", "run_id": folder.run_id, "config": config.to_dict(),
                "probe": {"hash": "0" * 64}, "reading": {}, "layers": [1, 2, 4, 6],
            }
        )  # fmt: skip
        folder.note("started", step=0)
        recorder = Recorder(folder, config, [MemorySink()], executor, threads=1)
        opened.append(recorder)
        recorder.start()
        return recorder

    yield make
    for recorder in opened:
        recorder.close()


def sink_of(recorder: Recorder) -> MemorySink:
    sink = recorder._sinks[0]
    assert isinstance(sink, MemorySink)
    return sink


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.05)


def events(recorder: Recorder, name: str) -> list[dict[str, Any]]:
    return [entry for entry in recorder.folder.journal() if entry["event"] == name]


def test_samples_become_records_in_order(open_recorder: Callable[..., Recorder]) -> None:
    recorder = open_recorder()
    for step in (0, 1, 2):
        recorder.put(make_sample(step))
    recorder.close(finished=True)
    trajectory = Trajectory.load(recorder.folder.path)
    assert trajectory.steps == (0, 1, 2)
    assert trajectory.state == "finished"
    assert trajectory.snapshot(2).previous == 1
    assert trajectory.snapshot(2).first == 0
    assert [snapshot.step for snapshot in sink_of(recorder).snapshots] == [0, 1, 2]
    assert recorder.folder.steps(recorder.folder.spool) == []
    # distances stay for the first and the newest sample only
    assert recorder.folder.steps(recorder.folder.distances) == [0, 2]


def test_fault_1_a_killed_worker_loses_its_sample_with_the_cause_and_is_restarted(
    open_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = open_recorder(ways_to_die.killed_at_odd_steps)
    for step in (0, 1, 2, 3, 4):
        recorder.put(make_sample(step))
    recorder.close(finished=True)
    assert Trajectory.load(recorder.folder.path).steps == (0, 2, 4)
    lost = events(recorder, "lost")
    assert [entry["step"] for entry in lost] == [1, 3]
    assert all("TerminatedWorkerError" in entry["cause"] for entry in lost)
    warnings = [record for record in caplog.records if "was lost" in record.message]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "way",
    mostly_slow(["killed", "segfault", "exits", "raises", "unpicklable", "returns_nonsense"], "segfault"),
    ids=lambda way: f"fault_2_{way}",
)
def test_fault_2_after_three_deaths_in_a_row_monitoring_stops_with_one_warning(
    way: str, open_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = open_recorder(getattr(ways_to_die, way))
    for step in range(5):
        recorder.put(make_sample(step))
    wait_for(lambda: recorder.stopped is not None)
    assert [entry["step"] for entry in events(recorder, "lost")] == [0, 1, 2]
    recorder.close()
    assert len([record for record in caplog.records if "monitoring stopped" in record.message]) == 1
    # nothing is thrown away: the samples can still be measured
    assert finish_folder(recorder.folder.path).measured == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_fault_3_a_worker_that_eats_memory_meets_its_limit(open_recorder: Callable[..., Recorder]) -> None:
    if sys.platform != "linux":
        pytest.skip("macOS does not enforce RLIMIT_AS")
    recorder = open_recorder(ways_to_die.eats_memory, worker_bytes=4 << 30)
    before = psutil.Process().memory_info().rss
    recorder.put(make_sample(0))
    wait_for(lambda: events(recorder, "lost"))
    assert "MemoryError" in events(recorder, "lost")[0]["cause"]
    assert psutil.Process().memory_info().rss - before < 200 << 20


@pytest.mark.slow
def test_fault_4_a_task_that_never_returns_is_killed_at_its_deadline(open_recorder: Callable[..., Recorder]) -> None:
    recorder = open_recorder(ways_to_die.endless_at_step_one, deadline_seconds=15.0)
    for step in (0, 1, 2):
        recorder.put(make_sample(step))
    recorder.close(finished=True)
    assert Trajectory.load(recorder.folder.path).steps == (0, 2)
    assert "no result within 15 s" in events(recorder, "lost")[0]["cause"]


@pytest.mark.slow
def test_fault_5_samples_faster_than_results_are_spooled_and_never_wait(
    open_recorder: Callable[..., Recorder],
) -> None:
    one = len(make_sample(0).encode())
    recorder = open_recorder(ways_to_die.slow, spool_bytes=max(1 << 20, 20 * one), drain_seconds=1.0)
    samples = [make_sample(step) for step in range(100)]
    started = time.perf_counter()
    for sample in samples:
        recorder.put(sample)
    assert time.perf_counter() - started < 0.5
    recorder.close(finished=True)
    folder = recorder.folder
    thinned = [entry["step"] for entry in events(recorder, "thinned")]
    spooled = sum(path.stat().st_size for path in folder.spool.iterdir())
    assert spooled <= max(1 << 20, 20 * one)
    # early samples are never the ones that go; what is left is measured later
    assert thinned
    assert min(thinned) > 10
    kept = set(range(100)) - set(thinned)
    assert set(folder.steps(folder.samples)) | set(folder.steps(folder.spool)) == kept
    finish_folder(folder.path)
    assert set(Trajectory.load(folder.path).steps) == kept


def test_finish_refuses_a_run_that_is_going_on(open_recorder: Callable[..., Recorder]) -> None:
    recorder = open_recorder()
    with pytest.raises(FolderBusyError):
        finish_folder(recorder.folder.path)


@pytest.mark.slow
def test_fault_9_a_full_disk_keeps_recent_samples_in_memory_and_retries(
    open_recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatching, "_RETRY_SECONDS", 0.2)
    recorder = open_recorder()
    # the worker starts before the limit, which it would inherit
    wait_for(lambda: recorder._dispatcher._warm and recorder._dispatcher._running is None)
    resource = pytest.importorskip("resource")
    import signal

    # a real refusal by the kernel: no file of this process may grow beyond its first bytes
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        recorder.put(make_sample(0))
        recorder.put(make_sample(1))
        wait_for(lambda: any("cannot write" in record.message for record in caplog.records))
        assert recorder.folder.steps(recorder.folder.spool) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    recorder.close(finished=True)
    assert Trajectory.load(recorder.folder.path).steps == (0, 1)
    assert len([record for record in caplog.records if "cannot write" in record.message]) == 1


def test_fault_9_what_a_full_disk_cost_is_said_at_the_end(
    open_recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    recorder = open_recorder(drain_seconds=0.2)
    monkeypatch.setattr(spooling, "write_whole", full)
    recorder.put(make_sample(7))
    recorder.close(finished=True)
    assert any("sample of step 7 was lost" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_fault_10_a_deleted_folder_is_made_again(
    open_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = open_recorder()
    recorder.put(make_sample(0))
    chain = recorder.folder.path / "chain.jsonl"  # the last that is written of a sample
    wait_for(lambda: chain.exists() and '"samples/step-00000000.npz"' in chain.read_text())
    before = recorder.folder.read_run()
    shutil.rmtree(recorder.folder.path)
    for step in (1, 2, 3):
        recorder.put(make_sample(step))
    recorder.close(finished=True)
    trajectory = Trajectory.load(recorder.folder.path.parent)
    assert (trajectory.steps, trajectory.state, trajectory.run) == ((1, 2, 3), "finished", before)
    assert len([record for record in caplog.records if "had been deleted and is made again" in record.message]) == 1
    (remade,) = events(recorder, "remade")
    assert set(remade["missing"]) == {"samples", "distances", "spool", "pictures", "run.json"}


@pytest.mark.parametrize("part", mostly_slow(["samples", "spool", "distances", "pictures", "run.json"], "spool"))
@pytest.mark.slow
def test_fault_10_a_part_that_is_deleted_is_made_again(part: str, open_recorder: Callable[..., Recorder]) -> None:
    recorder = open_recorder()
    recorder.put(make_sample(0))
    wait_for(lambda: recorder._dispatcher._pending == 0)
    path = recorder.folder.path / part
    path.unlink() if path.is_file() else shutil.rmtree(path)
    recorder.put(make_sample(1))
    recorder.close(finished=True)
    assert recorder.stopped is None
    assert 1 in Trajectory.load(recorder.folder.path).steps
    assert [entry["missing"] for entry in events(recorder, "remade")] == [[part]]


@pytest.mark.slow
def test_fault_12_a_sink_that_raises_is_silenced_and_the_others_go_on(
    open_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemorySink):
        calls = 0

        def log(self, snapshot: Any) -> None:
            Failing.calls += 1
            raise ConnectionResetError("the tracker is gone")

    recorder = open_recorder()
    recorder._sinks.insert(0, Failing())
    for step in (0, 1):
        recorder.put(make_sample(step))
    recorder.close(finished=True)
    assert Failing.calls == 1
    assert [snapshot.step for snapshot in sink_of(recorder).snapshots] == [0, 1]
    assert [entry["sink"] for entry in events(recorder, "sink_dead")] == ["Failing"]
    assert len([record for record in caplog.records if "ConnectionResetError in log" in record.getMessage()]) == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.slow
def test_fault_12_an_interrupt_inside_a_sink_reaches_the_trainer(
    interrupt: type[BaseException], open_recorder: Callable[..., Recorder]
) -> None:
    class Interrupting(MemorySink):
        def log(self, snapshot: Any) -> None:
            raise interrupt

    recorder = open_recorder()
    recorder._sinks[0] = Interrupting()
    recorder.put(make_sample(0))
    wait_for(lambda: recorder.folder.steps(recorder.folder.samples) == [0])
    with pytest.raises(interrupt):
        wait_for(recorder.poll, seconds=20)
    recorder._sinks.clear()


def test_fault_16_a_wrong_engine_measures_nothing_and_the_reason_is_recorded(
    open_recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "warm_up", ways_to_die.with_a_broken_engine)
    recorder = open_recorder()
    recorder.put(make_sample(0))
    wait_for(lambda: recorder.stopped is not None)
    assert "regular 12-gon" in str(recorder.stopped)
    assert recorder.folder.steps(recorder.folder.samples) == []
    assert recorder.folder.steps(recorder.folder.spool) == [0]


def test_any_executor_of_the_standard_library_will_do(open_recorder: Callable[..., Recorder]) -> None:
    with ThreadPoolExecutor(1) as threads:
        recorder = open_recorder(executor=threads)
        for step in (0, 1):
            recorder.put(make_sample(step))
        recorder.close(finished=True)
    assert Trajectory.load(recorder.folder.path).steps == (0, 1)


FAULT_28 = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import ways_to_die
from trajectories import make_sample
from topo_callback.config import TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.watching.recorder import Recorder
from topo_callback.worker import dispatcher_thread
dispatcher_thread.measure_spooled = ways_to_die.{task}
config = TopologyConfig(measures=("scale",), pictures=0, drain_seconds=3.0)
folder = TrajectoryFolder.new(Path({root!r}))
folder.lock()
folder.write_run(dict(tool="topo_callback", config=config.to_dict(), probe=dict(hash="0"), layers=[1, 2, 4, 6]))
recorder = Recorder(folder, config, [], None, threads=1)
recorder.start()
for step in range(5):
    recorder.put(make_sample(step))
while len(folder.steps(folder.spool)) < 5 or not folder.worker_log.exists():
    time.sleep(0.05)
print("ready", flush=True)
{then}
"""


def marked(mark: str) -> list[int]:
    """The processes that live with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TOPO_TEST_MARK") == mark:
                found.append(process.pid)
    return found


@pytest.mark.parametrize(("then", "code"), [("pass", 0), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1)])
def test_fault_28_exit_with_work_pending_leaves_no_process_and_no_pipe_open(
    then: str, code: int, tmp_path: Path
) -> None:
    script = FAULT_28.format(tests=str(Path(__file__).parents[1]), root=str(tmp_path), task="endless", then=then)
    # every process that the trainer starts carries the mark, whoever becomes its parent
    environment = {**os.environ, "TOPO_TEST_MARK": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    started = time.monotonic()
    process.wait(timeout=30)
    # drained for at most the 3 s of the configuration, then killed
    assert time.monotonic() - started < 15
    assert process.returncode == code
    ended = time.monotonic()
    process.communicate(timeout=10)  # returns only when no process holds the pipes any more
    assert time.monotonic() - ended < 5
    while marked(str(tmp_path)) and time.monotonic() - ended < 5:  # the signal of its parent's death is on its way
        time.sleep(0.05)
    assert marked(str(tmp_path)) == []
    folder = TrajectoryFolder.find(tmp_path)
    assert folder.steps(folder.spool) == [0, 1, 2, 3, 4]
    assert finish_folder(tmp_path).measured == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_fault_28_what_is_recorded_when_the_time_runs_out_reaches_the_sinks(
    open_recorder: Callable[..., Recorder],
) -> None:
    recorder = open_recorder(ways_to_die.recorded_but_never_reported, drain_seconds=0.5)
    for step in (0, 1, 2):
        recorder.put(make_sample(step))
    wait_for(lambda: recorder.folder.steps(recorder.folder.samples) == [0, 1])
    recorder.close(finished=True)
    assert recorder.folder.steps(recorder.folder.spool) == [2]
    assert sink_of(recorder).steps == [0, 1]
    (finished,) = events(recorder, "finished")
    assert finished["waiting"] == 1
    last = sink_of(recorder).snapshots[-1]
    assert dict(last.numbers) == dict(Trajectory.load(recorder.folder.path).snapshot(1).numbers)


def test_a_step_measured_before_a_kill_is_not_measured_again(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path, steps=(0, 1))
    run = folder.read_run()
    folder.write_run({**run, "probe": {"hash": "0"}})
    record = folder.step_file(folder.samples, 1).read_bytes()
    # the kill came after the record was written and before the sample left the spool
    folder.step_file(folder.spool, 1).write_bytes(make_sample(1).encode())
    assert finish_folder(tmp_path).measured == (1,)
    assert folder.step_file(folder.samples, 1).read_bytes() == record
    assert folder.steps(folder.spool) == []
    assert os.path.exists(folder.step_file(folder.distances, 1))


def test_warnings_go_to_the_log_not_to_the_warnings_module(recwarn: pytest.WarningsRecorder) -> None:
    logging.getLogger("topo_callback").warning("a line")
    assert len(recwarn) == 0


@pytest.mark.slow
def test_a_stopped_dispatcher_holds_nothing_and_rests(
    open_recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "warm_up", ways_to_die.with_a_broken_engine)
    recorder = open_recorder()
    wait_for(lambda: recorder.stopped is not None)
    recorder.put(make_sample(1))
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.3
    assert not recorder._dispatcher._spool.held


@pytest.mark.slow
def test_fault_2_an_error_of_the_system_that_is_not_the_disks_is_a_death(
    open_recorder: Callable[..., Recorder],
) -> None:
    recorder = open_recorder(ways_to_die.out_of_maps)
    recorder.put(make_sample(0))
    wait_for(lambda: events(recorder, "lost"))
    assert "Cannot allocate memory" in events(recorder, "lost")[0]["cause"]


def test_a_run_left_open_by_an_exception_can_be_resumed_in_the_same_process(
    open_recorder: Callable[..., Recorder],
) -> None:
    left = open_recorder()
    left.put(make_sample(0))
    wait_for(lambda: left.folder.steps(left.folder.samples) == [0])
    run = left.folder.read_run()
    root = left.folder.path.parent
    folder = open_folder(root, run, 5, checkpoint=root / "checkpoint-5")
    assert folder.path == left.folder.path
    assert folder.steps(folder.samples) == [0]
    folder.unlock()


def test_a_limit_that_the_system_refuses_is_said_and_the_worker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """macOS refuses every limit of the address space in just this way."""
    import resource

    from topo_callback.worker import process

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    process._limit_memory(4 << 30)
    assert "no limit of memory: ValueError in refuse" in capsys.readouterr().err
