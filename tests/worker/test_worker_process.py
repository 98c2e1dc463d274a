"""The worker's process: it ends with the trainer, whatever ends that, and needs nothing that a machine may lack."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tiers import mostly_slow

from topo_callback import Trajectory
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.worker.executor import TerminatedWorkerError, WorkerExecutor
from topo_callback.worker.finish import finish_folder

TESTS = Path(__file__).parents[1]
NAMESPACE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
GONE_SECONDS = 2.0  # what the executor states

# a recorder with samples and a worker that measures them; {before} runs first, {then} when samples are in the spool
SCRIPT = """
import os, sys, time
{before}
sys.path.insert(0, {tests!r})
from pathlib import Path
import ways_to_die
from trajectories import make_sample
from topo_callback.config import TopologyConfig
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.watching.recorder import Recorder
from topo_callback.worker import dispatcher_thread
dispatcher_thread.measure_spooled = getattr(ways_to_die, {task!r}, dispatcher_thread.measure_spooled)
config = TopologyConfig(measures=("scale",), pictures=0, drain_seconds=100.0)
folder = TrajectoryFolder.new(Path({root!r}))
folder.lock()
folder.write_run(dict(tool="topo_callback", config=config.to_dict(), probe=dict(hash="0"), layers=[1, 2, 4, 6]))
recorder = Recorder(folder, config, [], None, threads=1)
recorder.start()
for step in range(3):
    recorder.put(make_sample(step))
while not folder.steps(folder.spool) or not folder.worker_log.exists() or not folder.worker_log.stat().st_size:
    time.sleep(0.05)
{then}
"""


def script(root: Path, *, before: str = "", task: str = "", then: str = "") -> str:
    return SCRIPT.format(tests=str(TESTS), root=str(root), before=before, task=task, then=then)


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[WorkerExecutor]:
    made = WorkerExecutor(tmp_path / "worker.log", threads=1, memory_bytes=None)
    yield made
    made.shutdown()


def test_a_worker_needs_no_semaphore_and_no_helper(executor: WorkerExecutor) -> None:
    others = {child.pid for child in psutil.Process().children()}  # of tests before this one
    worker = executor.submit(os.getpid).result(60)
    assert {child.pid for child in psutil.Process().children()} - others == {worker}
    if os.path.isdir("/dev/shm"):
        assert [name for name in os.listdir("/dev/shm") if str(worker) in name] == []


def test_fault_41_an_interrupt_of_the_terminal_passes_a_worker_by(executor: WorkerExecutor) -> None:
    others = {child.pid for child in psutil.Process().children()}  # of tests before this one
    worker = executor.submit(os.getpid)  # also while it starts
    process = None
    while process is None:
        process = next((child for child in psutil.Process().children() if child.pid not in others), None)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert worker.result(60) == process.pid


def test_a_task_after_a_killed_one_is_done_by_a_new_worker(executor: WorkerExecutor) -> None:
    first = executor.submit(os.getpid).result(60)
    waiting = executor.submit(time.sleep, 1000)
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(TerminatedWorkerError, match="SIGKILL"):
        waiting.result(10)
    executor.kill()
    assert executor.submit(os.getpid).result(60) != first


def test_fault_1_a_stopped_worker_can_be_killed(executor: WorkerExecutor) -> None:
    worker = executor.submit(os.getpid).result(60)
    waiting = executor.submit(os.getpid)
    os.kill(worker, signal.SIGSTOP)
    executor.kill()
    assert isinstance(waiting.exception(5), TerminatedWorkerError) or waiting.result() == worker
    assert not psutil.pid_exists(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process ends with its parent on Linux only")
@pytest.mark.parametrize("stopped", mostly_slow([False, True], True))
@pytest.mark.parametrize("group", mostly_slow([False, True], True))
def test_fault_40_nothing_outlives_a_killed_trainer(stopped: bool, group: bool, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", script(tmp_path, task="endless", then="print('ready', flush=True)\ntime.sleep(100)")],
        stdout=subprocess.PIPE,
        start_new_session=group,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    if stopped:
        for child in children:
            child.suspend()
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=GONE_SECONDS)
    process.stdout.close()
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert [name for name in os.listdir("/dev/shm") if str(process.pid) in name] == []


CLOSED = """
for stream in (0, 1, 2):
    os.close(stream)
sys.stdin = sys.stdout = sys.stderr = None
"""


@pytest.mark.slow
def test_fault_39_a_daemon_without_standard_streams_takes_samples(tmp_path: Path) -> None:
    then = "recorder.close(finished=True)\nos._exit(7)"
    ended = subprocess.run([sys.executable, "-c", script(tmp_path, before=CLOSED, then=then)], timeout=200)
    assert ended.returncode == 7
    trajectory = Trajectory.load(tmp_path)
    assert (trajectory.steps, trajectory.damaged, trajectory.state) == ((0, 1, 2), {}, "finished")
    assert "Traceback" not in (trajectory.folder / "worker.log").read_text()


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace (Linux, and the right to have one)")
@pytest.mark.parametrize("shared", ["size=8k", pytest.param("ro,size=8k", marks=pytest.mark.slow)])
def test_fault_39_a_tiny_or_read_only_dev_shm_costs_nothing(shared: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(script(tmp_path / "out", then="recorder.close(finished=True)"))
    shell = f'mount -t tmpfs -o {shared} none /dev/shm && exec "{sys.executable}" "{tmp_path / "script.py"}"'
    ended = subprocess.run([*NAMESPACE, "sh", "-c", shell], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert Trajectory.load(tmp_path / "out").steps == (0, 1, 2)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_fault_33_a_worker_log_that_is_no_file_is_done_without(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "worker.log")
    executor = WorkerExecutor(tmp_path / "worker.log", threads=1, memory_bytes=None)
    try:
        assert executor.submit(os.getpid).result(30) > 0
    finally:
        executor.shutdown()


HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
# where a run is interrupted: while samples wait, in the drain, at the end of the interpreter
PLACES = {
    "waiting": "print('ready', flush=True)\ntime.sleep(100)",
    "drain": "print('ready', flush=True)\nrecorder.close(finished=True)",
    "caught": (
        "try:\n    print('ready', flush=True)\n    recorder.close(finished=True)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)"
    ),
}


@pytest.mark.parametrize(
    ("place", "interrupts"),
    [("drain", 20), *(pytest.param(place, 1, marks=pytest.mark.slow) for place in ("waiting", "drain", "caught"))],
)
def test_fault_41_an_interrupt_ends_the_process_at_once(place: str, interrupts: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        # the shell that started the tests may have told them to ignore interrupts
        [sys.executable, "-c", HEEDING + script(tmp_path, task="endless", then=PLACES[place])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    started = time.monotonic()
    for _ in range(interrupts):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 10  # of 100 that the drain is allowed, on a busy machine
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert "topo-callback finish" in errors
    folder = TrajectoryFolder.find(tmp_path)
    assert folder.steps(folder.spool) == [0, 1, 2]
    assert finish_folder(tmp_path).measured == (0, 1, 2)
