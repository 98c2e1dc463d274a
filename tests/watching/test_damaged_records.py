"""Row 34 of the list of faults: what a run left is damaged, and the resumed run records beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trajectories import write_trajectory

from topo_callback.errors import ConfigurationError, FolderBusyError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.watching.resuming import open_folder, recorded_batches


@pytest.fixture
def old(tmp_path: Path) -> TrajectoryFolder:
    """A run with three samples that may be gone on with."""
    folder = write_trajectory(tmp_path, steps=(0, 1, 2))
    run = {**folder.read_run(), "probe": {"hash": "0" * 64}, "reading": {"probe_batch": 4}}
    folder.write_run(run)
    return folder


def resume(old: TrajectoryFolder, run: dict[str, Any]) -> TrajectoryFolder:
    root = old.path.parent
    folder = open_folder(root, run, 1, checkpoint=root / "checkpoint-1")
    folder.unlock()
    return folder


def changed(**fields: Any) -> Callable[[TrajectoryFolder], None]:
    def change(folder: TrajectoryFolder) -> None:
        folder.run_file.write_text(json.dumps({**folder.read_run(), **fields}))

    return change


def without(field: str) -> Callable[[TrajectoryFolder], None]:
    def change(folder: TrajectoryFolder) -> None:
        folder.run_file.write_text(json.dumps({k: v for k, v in folder.read_run().items() if k != field}))

    return change


def bytes_of(content: bytes) -> Callable[[TrajectoryFolder], None]:
    return lambda folder: folder.run_file.write_bytes(content) and None


def in_place_of(name: str, make: Callable[[Path], Any]) -> Callable[[TrajectoryFolder], None]:
    def change(folder: TrajectoryFolder) -> None:
        path = folder.path / name
        if path.exists():
            os.rename(path, f"{path}-before")
        make(path)

    return change


def link_to_before(path: Path) -> None:
    path.symlink_to(f"{path}-before")


DAMAGE = {
    "empty": bytes_of(b""),
    "binary": bytes_of(b"\xff\xfe{}"),
    "list": bytes_of(b"[]"),
    "deep": bytes_of(b"[" * 100_000),
    "other tool": changed(tool="another"),
    "no config": without("config"),
    "no probe": without("probe"),
    "no reading": without("reading"),
    "hash no text": changed(probe={"hash": 7}),
    "probe no mapping": changed(probe=["hash"]),
    "trackers no mapping": changed(trackers=[1]),
    "layers texts": changed(layers=["x"]),
    "run.json gone": lambda folder: folder.run_file.unlink(),
    "run.json a folder": in_place_of("run.json", os.mkdir),
    "run.json a pipe": in_place_of("run.json", os.mkfifo),
    "run.json a link": in_place_of("run.json", link_to_before),
    "journal a folder": in_place_of("journal.jsonl", os.mkdir),
    "journal a pipe": in_place_of("journal.jsonl", os.mkfifo),
    "journal a link": in_place_of("journal.jsonl", link_to_before),
    "steps a folder": in_place_of("steps.csv", os.mkdir),
    "steps a pipe": in_place_of("steps.csv", os.mkfifo),
    "steps a link": in_place_of("steps.csv", link_to_before),
    "steps another table": in_place_of("steps.csv", lambda path: path.write_text("step,value\n1,2\n")),
    "logged numbers a link": in_place_of("logged.csv", link_to_before),
    "logged numbers another table": in_place_of("logged.csv", lambda path: path.write_text("step,value\n1,2\n")),
    "lock a folder": in_place_of("lock", os.mkdir),
    "lock a pipe": in_place_of("lock", os.mkfifo),
    "samples a file": in_place_of("samples", Path.touch),
    "samples a link": in_place_of("samples", link_to_before),
    "spool a link": in_place_of("spool", link_to_before),
    "distances a pipe": in_place_of("distances", os.mkfifo),
    "a folder in the spool": in_place_of("spool/step-00000009.npz", os.mkdir),
    "a link in samples": in_place_of("samples/step-00000002.npz", link_to_before),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", DAMAGE)
def test_fault_34_a_damaged_record_is_left_and_another_begins_beside_it(
    damage: str, old: TrajectoryFolder, caplog: pytest.LogCaptureFixture
) -> None:
    run = old.read_run()
    kept = {path.name for path in old.samples.iterdir()}
    DAMAGE[damage](old)
    new = resume(old, run)
    assert new.path != old.path
    assert new.path.parent == old.path.parent
    assert TrajectoryFolder.find(old.path.parent).path == new.path
    (started,) = new.journal()
    assert (started["event"], started["step"]) == ("started", 1)
    assert started["beside"]
    assert len([each for each in caplog.records if "a new one begins" in each.getMessage()]) == 1
    assert "resumed" not in {entry["event"] for entry in old.journal()}
    left = old.samples if old.samples.is_dir() else Path(f"{old.samples}-before")
    assert {path.name.removesuffix("-before") for path in left.iterdir()} == kept


@pytest.mark.parametrize("latest", [os.mkdir, os.mkfifo, lambda path: path.write_bytes(b"\xff../.."), None])
def test_fault_34_a_run_without_a_readable_latest_begins_anew(latest: Any, old: TrajectoryFolder) -> None:
    run = old.read_run()
    path = old.path.parent / "latest"
    path.unlink()
    if latest is not None:
        latest(path)
    assert resume(old, run).path != old.path


def test_fault_34_a_sound_record_goes_on_and_loses_only_later_steps(old: TrajectoryFolder) -> None:
    assert resume(old, old.read_run()).path == old.path
    assert old.steps(old.samples) == [0, 1]
    assert old.journal()[-1]["dropped"] == [2]


def test_fault_34_what_is_the_users_to_see_is_still_refused(old: TrajectoryFolder) -> None:
    run = old.read_run()
    with pytest.raises(ConfigurationError, match="another probe"):
        resume(old, {**run, "probe": {"hash": "1" * 64}})
    old.lock()
    with pytest.raises(FolderBusyError):
        resume(old, run)
    old.unlock()


@pytest.mark.parametrize("batch", [None, "4", 0, -1, True, 2.0, []])
def test_fault_34_a_damaged_batch_size_is_none(batch: Any, old: TrajectoryFolder) -> None:
    changed(reading={"probe_batch": batch})(old)
    assert recorded_batches(old.path.parent, old.path.parent / "checkpoint-1") == (None, "padded")


@pytest.mark.parametrize("mark", [b"", b"[]", b'{"run_id": 3}', b'{"run_id": ".."}', b'{"run_id": "a/b"}', b"\xff"])
def test_fault_34_a_damaged_mark_of_a_checkpoint_leads_to_the_newest_run(mark: bytes, old: TrajectoryFolder) -> None:
    checkpoint = old.path.parent / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "topo_callback.json").write_bytes(mark)
    assert resume(old, old.read_run()).path == old.path


def test_fault_42_nothing_outside_is_dropped_or_written_through_links(old: TrajectoryFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    os.rename(old.samples, outside)
    old.samples.symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    target = tmp_path / "target"
    target.write_text("untouched")
    for name in (".run.json.{}.tmp", "latest"):
        (old.path / name.format(os.getpid())).symlink_to(target)
    resume(old, old.read_run())
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert target.read_text() == "untouched"


def test_fault_42_latest_and_marks_lead_to_no_link(old: TrajectoryFolder, tmp_path: Path) -> None:
    run = old.read_run()
    outside = tmp_path / "elsewhere"
    os.rename(old.path, outside)
    old.path.symlink_to(outside)
    new = resume(old, run)
    assert new.path.name != old.path.name
    assert TrajectoryFolder(outside).steps(outside / "samples") == [0, 1, 2]
