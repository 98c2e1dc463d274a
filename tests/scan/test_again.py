"""Interrupt and rerun at will: what is done stays, the numbers are those of one scan; shards; other settings."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from scan.checkpoints import save_model, scan_run, slow_scan, write_probe
from small_runs import fork_server
from tiers import slow_case

from topo_callback import Trajectory
from topo_callback.errors import ConfigurationError, RecordError

STEPS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for step in STEPS:
        save_model(folder / "run" / f"checkpoint-{step}", layers=2, seed=step)
    write_probe(folder)
    return folder / "run"


def table(output: Path) -> Any:
    return Trajectory.load(output).frame()


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("whole")
    assert scan_run(str(run), str(output)).read == list(STEPS)
    return table(output)


@pytest.mark.slow
def test_killed_in_the_middle(run: Path, whole: Any, tmp_path: Path) -> None:
    output = tmp_path / "scan"
    units = output / "run" / "units"
    with fork_server() as context:
        process = context.Process(target=slow_scan, args=(str(run), str(output)))
        process.start()
        while len(list(units.glob("step-*.npz"))) < 2:
            assert process.is_alive()
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    there = {path.name: path.stat().st_mtime_ns for path in units.glob("step-*.npz")}
    assert 2 <= len(there) < len(STEPS)
    assert Trajectory.load(output).state == "interrupted"
    (units / f".step-00000004.npz.{process.pid}.tmp").write_bytes(b"torn")
    result = scan_run(str(run), str(output))
    assert result.read == list(STEPS)[len(there) :]
    assert result.measured == list(STEPS)
    assert table(output).equals(whole)
    assert list(units.iterdir()) == []
    again = scan_run(str(run), str(output))
    assert (again.read, again.measured) == ([], [])
    assert Trajectory.load(output).state == "finished"


@pytest.mark.slow
def test_killed_while_measuring(run: Path, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from topo_callback.scan import measuring

    real = measuring.measure_spooled

    def interrupted(path: str, step: int, threads: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return real(path, step, threads)

    monkeypatch.setattr(measuring, "measure_spooled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan_run(str(run), str(tmp_path))
    assert Trajectory.load(tmp_path).steps == (1, 2)
    monkeypatch.undo()
    result = scan_run(str(run), str(tmp_path))
    assert (result.read, result.measured) == ([], [3, 4])
    assert table(tmp_path).equals(whole)


@pytest.mark.slow
def test_a_run_that_has_gone_on_is_extended(run: Path, whole: Any, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(run.parent / "probe.txt", tmp_path)
    shutil.move(tmp_path / "run" / "checkpoint-4", tmp_path / "later")
    assert scan_run(str(tmp_path / "run"), str(tmp_path / "scan")).measured == [1, 2, 3]
    shutil.move(tmp_path / "later", tmp_path / "run" / "checkpoint-4")
    assert scan_run(str(tmp_path / "run"), str(tmp_path / "scan")).read == [4]
    assert table(tmp_path / "scan").equals(whole)
    assert [entry["event"] for entry in Trajectory.load(tmp_path / "scan").journal] == [
        "started", "finished", "resumed", "finished",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_checkpoint_that_becomes_whole_later_is_put_in_its_place(run: Path, whole: Any, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(run.parent / "probe.txt", tmp_path)
    shutil.move(tmp_path / "run" / "checkpoint-2" / "config.json", tmp_path / "config.json")
    result = scan_run(str(tmp_path / "run"), str(tmp_path / "scan"))
    assert result.skipped == {2: ("checkpoint-2", "no config.json")}
    shutil.move(tmp_path / "config.json", tmp_path / "run" / "checkpoint-2" / "config.json")
    result = scan_run(str(tmp_path / "run"), str(tmp_path / "scan"))
    assert result.skipped == {}
    assert result.measured == list(STEPS)
    assert table(tmp_path / "scan").equals(whole)


@pytest.mark.slow
def test_a_damaged_unit_is_read_again(run: Path, whole: Any, tmp_path: Path) -> None:
    scan_run(str(run), str(tmp_path), shard=(1, 2))
    unit = tmp_path / "run" / "units" / "step-00000003.npz"
    unit.write_bytes(unit.read_bytes()[:-9])
    with pytest.raises(RecordError, match="the sample of step 3 is damaged .*; run again"):
        scan_run(str(run), str(tmp_path))
    assert scan_run(str(run), str(tmp_path)).read == [3]
    assert table(tmp_path).equals(whole)


@pytest.mark.slow
def test_shards_in_any_order(run: Path, whole: Any, tmp_path: Path) -> None:
    first = scan_run(str(run), str(tmp_path), shard=(2, 2))
    assert (first.read, first.measured, first.waiting) == ([2, 4], [], (1, 3))
    last = scan_run(str(run), str(tmp_path), shard=(1, 2))
    assert (last.read, last.measured, last.waiting) == ([1, 3], list(STEPS), ())
    assert table(tmp_path).equals(whole)
    assert scan_run(str(run), str(tmp_path), shard=(2, 2)).measured == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": 4}, "another setting neighbours: 3 there, 4 now"),
        slow_case({"probe_batch": 4}, "another probe_batch: 8 there, 4 now"),
        slow_case({"max_tokens": 12}, "another probe: [0-9a-f]{57}... there, [0-9a-f]{57}... now"),
    ],
)
def test_other_settings_are_refused_with_both_values(
    run: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    scan_run(str(run), str(tmp_path), shard=(1, 4))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match=message):
        scan_run(str(run), str(tmp_path), settings=settings)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_folder_of_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    from trajectories import write_trajectory

    os.rename(write_trajectory(tmp_path / "recorded", steps=(0,)).path, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="is the folder of a training run"):
        scan_run(str(run), str(tmp_path))
    (tmp_path / "other" / "run").mkdir(parents=True)
    with pytest.raises(RecordError, match="run.json"):
        scan_run(str(run), str(tmp_path / "other"))


@pytest.mark.parametrize(
    "backend",
    ["loky", pytest.param("dask", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)],
)
# both clusters leave sockets to the garbage collector when they close
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_processes(run: Path, whole: Any, tmp_path: Path, backend: str) -> None:
    pytest.importorskip("joblib")
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    with pytest.MonkeyPatch.context() as patch:
        # what those processes import, they find where this one does
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        result = scan_run(str(run), str(tmp_path), jobs=2, backend=backend)
    assert sorted(result.read) == list(STEPS)
    assert len(result.processes - {os.getpid()}) == 2
    # another number of threads may round otherwise
    trajectory = table(tmp_path)
    assert trajectory[["step", "layer", "measure"]].equals(whole[["step", "layer", "measure"]])
    assert trajectory["value"].to_numpy() == pytest.approx(whole["value"].to_numpy(), rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def sixteen(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run of 16 checkpoints, and the table of a scan of it in one process."""
    folder = tmp_path_factory.mktemp("sixteen")
    for step in range(1, 17):
        shutil.copytree(run / f"checkpoint-{step % 4 + 1}", folder / "run" / f"checkpoint-{step}")
    shutil.copy(run.parent / "probe.txt", folder)
    scan_run(str(folder / "run"), str(folder / "alone"))
    return folder / "run", table(folder / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:joblib")  # of loky, about the process that is gone
def test_a_process_of_the_cluster_that_dies(sixteen: tuple[Path, Any], tmp_path: Path, backend: str) -> None:
    psutil = pytest.importorskip("psutil")
    pytest.importorskip({"dask": "distributed", "loky": "joblib"}.get(backend, backend))
    run, alone = sixteen
    units, killed = tmp_path / "scan" / "run" / "units", []

    def kill() -> None:
        """Once something was read, end the processes that read."""
        began = time.monotonic()
        while not list(units.glob("step-*.npz")) and time.monotonic() - began < 200:
            time.sleep(0.002)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # one that has ended, of another test
                words = " ".join(process.cmdline())
                if any(each in words for each in ("ray::", "loky", "spawn_main")) and "resource_tracker" not in words:
                    process.kill()
                    killed.append(len(list(units.glob("step-*.npz"))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        killer = threading.Thread(target=kill)
        killer.start()
        said = ""
        try:
            scan_run(str(run), str(tmp_path / "scan"), jobs=2, backend=backend)
        except RecordError as error:
            said = str(error)
        killer.join()
    # a cluster may also do the work of the lost one again by itself
    assert said == "" or re.fullmatch(r"a process of the scan failed .*what is done stays: run again to go on.*", said)
    assert killed
    assert min(killed) < 16
    scan_run(str(run), str(tmp_path / "scan"))
    trajectory = Trajectory.load(tmp_path / "scan")
    assert (trajectory.steps, trajectory.state, trajectory.damaged) == (tuple(range(1, 17)), "finished", {})
    found = trajectory.frame()
    assert found[["step", "layer", "measure"]].equals(alone[["step", "layer", "measure"]])
    assert found["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), rel=1e-4, abs=1e-4)
