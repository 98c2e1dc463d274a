"""Row 18 of the list of faults, and 27: a run that is killed and goes on from its checkpoint in a new process."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs

from topo_callback import Snapshot, Trajectory

MAX_STEPS, SAVE_STEPS, KILLED_AT = 10, 4, 7
TIMED = {"overhead", "previous_sample_seconds"}  # seconds are not the same twice
CHECKPOINT = f"checkpoint-{SAVE_STEPS}"
RUN = {"max_steps": MAX_STEPS, "save_steps": SAVE_STEPS}


@pytest.fixture(scope="module")
def server(engines_ready: None) -> Iterator[ForkServerContext]:
    with small_runs.fork_server() as context:
        yield context


@pytest.fixture(scope="module")
def start(server: ForkServerContext) -> Callable[..., ForkServerProcess]:
    """Starts a run in a new process; its console goes to a file beside its output_dir."""

    def begin(output_dir: Path, **options: Any) -> ForkServerProcess:
        output_dir.mkdir(parents=True, exist_ok=True)
        process = server.Process(
            target=small_runs.train,
            args=(str(output_dir),),
            kwargs={"console": str(output_dir / "console"), "result": str(output_dir / "result"), **RUN, **options},
        )
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def run(start: Callable[..., ForkServerProcess]) -> Callable[..., dict[str, Any]]:
    """Runs to the end, and gives the steps trained and the error."""

    def whole(output_dir: Path, **options: Any) -> dict[str, Any]:
        process = start(output_dir, **options)
        process.join(120)
        assert process.exitcode == 0, (output_dir / "console").read_text()[-3000:]
        found: dict[str, Any] = json.loads((output_dir / "result").read_text())
        return found

    return whole


@pytest.fixture(scope="module")
def uninterrupted(run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    output_dir = tmp_path_factory.mktemp("uninterrupted")
    assert run(output_dir)["error"] is None
    return Trajectory.load(output_dir)


@pytest.fixture(scope="module")
def preempted(
    start: Callable[..., ForkServerProcess],
    run: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any], str]:
    """The output_dir of a run killed at step 7, and what a second process met that resumed it before the kill."""
    output_dir = tmp_path_factory.mktemp("preempted")
    process = start(output_dir, die_at=KILLED_AT, die_when=str(output_dir / "die"))
    end = time.monotonic() + 120
    while not list(output_dir.glob(f"topology/*/samples/step-{KILLED_AT - 1:08d}.npz")):
        assert time.monotonic() < end
        assert process.is_alive(), (output_dir / "console").read_text()[-3000:]
        time.sleep(0.05)
    second = run(output_dir, resume=str(output_dir / CHECKPOINT))
    state = Trajectory.load(output_dir).state
    (output_dir / "die").touch()
    process.join(60)
    assert process.exitcode == -9
    return output_dir, second, state


@pytest.fixture
def killed(preempted: tuple[Path, dict[str, Any], str], tmp_path: Path) -> Path:
    """A copy of the preempted run, for each test to go on with."""
    return Path(shutil.copytree(preempted[0], tmp_path / "run"))


@pytest.fixture(scope="module")
def resumed(
    preempted: tuple[Path, dict[str, Any], str],
    run: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    """The preempted run gone on with, and what its process says."""
    output_dir = Path(shutil.copytree(preempted[0], tmp_path_factory.mktemp("resumed") / "run"))
    return output_dir, run(output_dir, resume=str(output_dir / CHECKPOINT))


def content(snapshot: Snapshot) -> dict[str, Any]:
    """Everything in a snapshot that does not tell the time, in values that compare."""
    zigzag = snapshot.depth_zigzag
    facts = {name: value for name, value in snapshot.provenance["facts"].items() if "seconds" not in name}
    return {
        "status": snapshot.status,
        "layers": snapshot.layers,
        "numbers": {name: by_layer for name, by_layer in snapshot.numbers.items() if name not in TIMED},
        "barcodes": {layer: bars(barcode) for layer, barcode in snapshot.barcodes.items()},
        "neighbours": snapshot.neighbours.tolist(),
        "zigzag": zigzag and bars(zigzag),
        "compared with": (snapshot.previous, snapshot.first),
        "facts": {name: value for name, value in facts.items() if name not in TIMED},
        "config": snapshot.provenance["config"],
        "probe": snapshot.provenance["probe_hash"],
    }


def bars(barcode: Any) -> list[list[float]]:
    return np.column_stack([barcode.dimension, barcode.birth, barcode.death]).tolist()


@pytest.mark.slow
def test_fault_18_a_resumed_run_equals_the_uninterrupted_one(
    uninterrupted: Trajectory, resumed: tuple[Path, dict[str, Any]]
) -> None:
    output_dir, result = resumed
    assert result == {"steps": list(range(SAVE_STEPS + 1, MAX_STEPS + 1)), "error": None}
    trajectory = Trajectory.load(output_dir)
    assert trajectory.steps == uninterrupted.steps == tuple(range(MAX_STEPS + 1))
    for step in uninterrupted.steps:
        assert content(trajectory.snapshot(step)) == content(uninterrupted.snapshot(step)), f"step {step}"
    assert trajectory.state == uninterrupted.state == "finished"
    assert trajectory.damaged == {}
    # one folder: the resumed process went on with that of the first
    assert len(list(output_dir.glob("topology/*/run.json"))) == 1


def test_fault_18_records_after_the_checkpoint_are_dropped_and_the_journal_says_so(
    preempted: tuple[Path, dict[str, Any], str], resumed: tuple[Path, dict[str, Any]]
) -> None:
    assert Trajectory.load(preempted[0]).steps == tuple(range(KILLED_AT))
    journal = Trajectory.load(resumed[0]).journal
    told = [(entry["step"], entry["dropped"]) for entry in journal if entry["event"] == "resumed"]
    assert told == [(SAVE_STEPS, list(range(SAVE_STEPS + 1, KILLED_AT)))]


def test_fault_18_a_killed_run_is_reported_as_interrupted(preempted: tuple[Path, dict[str, Any], str]) -> None:
    trajectory = Trajectory.load(preempted[0])
    assert trajectory.state == "interrupted"
    assert trajectory.damaged == {}


def test_fault_18_a_changed_probe_is_refused_with_both_hashes_before_the_first_step(
    killed: Path, run: Callable[..., dict[str, Any]]
) -> None:
    before = Trajectory.load(killed)
    result = run(killed, resume=str(killed / CHECKPOINT), texts=small_runs.OTHER_TEXTS)
    assert result["steps"] == []
    kind, message = result["error"]
    assert kind == "ConfigurationError"
    hashes = [word.strip(",;") for word in message.split() if len(word.strip(",;")) == 64]
    assert len(set(hashes)) == 2
    assert hashes[0] == before.run["probe"]["hash"]
    # and nothing was touched
    assert Trajectory.load(killed).steps == before.steps


@pytest.mark.parametrize(("name", "was", "now"), [("neighbours", 3, 4), ("metric", "'euclidean'", "cosine")])
def test_fault_18_a_changed_setting_that_decides_the_numbers_is_refused(
    name: str, was: Any, now: Any, killed: Path, run: Callable[..., dict[str, Any]]
) -> None:
    result = run(killed, resume=str(killed / CHECKPOINT), settings={name: now})
    assert result["steps"] == []
    assert result["error"][0] == "ConfigurationError"
    assert f"{name}={was}, now it is {now!r}" in result["error"][1]
    assert Trajectory.load(killed).steps == tuple(range(KILLED_AT))


@pytest.mark.slow
def test_fault_18_a_requeue_before_the_first_checkpoint_gets_a_new_folder(
    killed: Path, run: Callable[..., dict[str, Any]]
) -> None:
    old = Trajectory.load(killed)
    assert run(killed, max_steps=2, texts=small_runs.OTHER_TEXTS)["error"] is None
    new = Trajectory.load(killed)
    assert new.folder != old.folder
    assert (new.steps, new.state) == ((0, 1, 2), "finished")
    again = Trajectory.load(old.folder)
    assert (again.steps, again.state, again.damaged) == (tuple(range(KILLED_AT)), "interrupted", {})


@pytest.mark.slow
def test_fault_18_a_step_outside_the_given_ones_is_not_sampled_by_resuming(
    killed: Path, run: Callable[..., dict[str, Any]]
) -> None:
    # the checkpoint's own sample is gone, and steps=(...) does not ask for it
    folder = Trajectory.load(killed).folder
    (folder / "samples" / f"step-{SAVE_STEPS:08d}.npz").unlink()
    result = run(killed, resume=str(killed / CHECKPOINT), settings={"steps": (0, 1, 2, 3, 6)}, max_steps=7)
    assert result["error"] is None
    assert Trajectory.load(killed).steps == (0, 1, 2, 3, 6)


def test_fault_27_resuming_while_the_first_process_still_writes_is_refused(
    preempted: tuple[Path, dict[str, Any], str],
) -> None:
    output_dir, second, state = preempted
    assert second["steps"] == []
    assert second["error"][0] == "FolderBusyError"
    assert "is being written by another process" in second["error"][1]
    assert state == "running"
    # what the first process had written, and wrote, is all there
    assert Trajectory.load(output_dir).steps == tuple(range(KILLED_AT))


def test_fault_18_a_resumed_run_keeps_its_batches(killed: Path, run: Callable[..., dict[str, Any]]) -> None:
    """Another batch shape rounds differently, and the memory that was free may not be free any more."""
    (file,) = killed.glob("topology/*/run.json")
    content = json.loads(file.read_text())
    assert content["reading"]["probe_batch"] != 5
    content["reading"]["probe_batch"] = 5
    file.write_text(json.dumps(content))
    assert run(killed, resume=str(killed / CHECKPOINT))["error"] is None
    assert Trajectory.load(killed).run["reading"]["probe_batch"] == 5


@pytest.mark.slow
def test_fault_18_a_checkpoint_is_resumed_into_its_own_run_though_a_newer_one_is_there(
    killed: Path, run: Callable[..., dict[str, Any]]
) -> None:
    (own,) = killed.glob("topology/*/run.json")
    # a second run of the same experiment in the same output_dir, started anew
    assert run(killed, max_steps=2)["error"] is None
    assert Trajectory.load(killed).folder != own.parent
    assert run(killed, resume=str(killed / CHECKPOINT))["error"] is None
    assert Trajectory.load(own.parent).steps == tuple(range(MAX_STEPS + 1))
    assert Trajectory.load(killed).steps == (0, 1, 2)
