"""A trajectory reads back what was written, skips and names what is damaged, and knows how its run ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig, kind_of
from topo_callback.errors import FolderBusyError, RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import decode_record, encode_record
from topo_callback.records.snapshot import Snapshot


def assert_same(found: Snapshot, expected: Snapshot) -> None:
    assert found.step == expected.step
    assert found.layers == expected.layers
    assert dict(found.status) == dict(expected.status)
    assert {name: dict(by_layer) for name, by_layer in found.numbers.items()} == expected.numbers
    assert dict(found.barcodes) == dict(expected.barcodes)
    np.testing.assert_array_equal(found.neighbours, expected.neighbours)
    assert dict(found.missing) == expected.missing
    assert found.depth_zigzag == expected.depth_zigzag
    assert (found.zigzag_layers, found.previous, found.first) == (
        expected.zigzag_layers, expected.previous, expected.first,
    )  # fmt: skip


@pytest.mark.parametrize("invalid", [{}, {2: {4: "1 of 40 points are not finite"}}, {2: dict.fromkeys(LAYERS, "all")}])
def test_a_snapshot_survives_its_record(invalid: dict[int, dict[int, str]]) -> None:
    for snapshot in make_snapshots(invalid=invalid):
        data = encode_record(*snapshot.to_record(), compress=True)
        assert_same(Snapshot.from_record(*decode_record(data, "snapshot")), snapshot)


def test_a_trajectory_is_found_from_its_output_dir_its_root_and_its_folder(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "topology", steps=(0,))
    newest = write_trajectory(tmp_path / "topology", steps=(0, 1))
    for path in (tmp_path, tmp_path / "topology", newest.path, str(tmp_path)):
        trajectory = Trajectory.load(path)
        assert trajectory.folder == newest.path
        assert trajectory.steps == (0, 1)


def test_no_trajectory_is_said_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no trajectory at .*: expected a folder with run.json"):
        Trajectory.load(tmp_path)


def test_latest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "elsewhere", steps=(0,))
    target = next(path for path in (tmp_path / "elsewhere").iterdir() if path.is_dir())
    (tmp_path / "topology").mkdir()
    (tmp_path / "topology" / "latest").write_text(f"../elsewhere/{target.name}\n")
    with pytest.raises(RecordError, match="no trajectory"):
        Trajectory.load(tmp_path)


def test_a_folder_of_another_tool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"tool": "another"}')
    with pytest.raises(RecordError, match="not a run of topo_callback"):
        Trajectory.load(tmp_path)


@pytest.mark.parametrize("value", [10**400, {"a": 1}, [["euclidean"]], None, True])
def test_a_setting_that_was_never_one_is_refused_by_its_name(tmp_path: Path, value: object) -> None:
    kinds = {each.name: kind_of(each.name) for each in dataclasses.fields(TopologyConfig)}
    path = write_trajectory(tmp_path, (0,)).path / "run.json"
    run = json.loads(path.read_text())
    for name, kind in kinds.items():
        if not (kind.optional if value is None else kind.plain == (bool,) if value is True else False):
            path.write_text(json.dumps({**run, "config": {**run["config"], name: value}}))
            whole = type(value) is int and int in kind.plain
            with contextlib.nullcontext() if whole else pytest.raises(RecordError, match=rf"damaged: config\.{name} "):
                Trajectory.load(path.parent)


def test_the_frame_is_long_and_holds_every_number(tmp_path: Path) -> None:
    write_trajectory(tmp_path)
    trajectory = Trajectory.load(tmp_path)
    frame = trajectory.frame()
    assert list(frame.columns) == ["step", "layer", "measure", "value"]
    count = sum(len(by_layer) for snapshot in make_snapshots() for by_layer in snapshot.numbers.values())
    assert len(frame) == count
    assert not frame["value"].isna().any()
    whole = frame[frame["layer"].isna()]
    assert set(whole["measure"]) == {"depth_correlation_length_h1", "invalid_layers", "overhead"}
    row = frame[(frame.step == 4) & (frame.layer == 2) & (frame.measure == "h1_bars")]
    assert row["value"].item() == len(trajectory.barcodes(4, 2).of(1))


def test_an_array_holds_the_numbers_of_the_frame_and_nan_elsewhere(tmp_path: Path) -> None:
    trajectory = Trajectory(write_trajectory(tmp_path, invalid={STEPS[1]: {2: "gone"}}))
    frame = trajectory.frame()
    for measure in ("h1_bars", "wasserstein_h1.previous", "overlap_below", "overhead"):
        array = trajectory.array(measure, [*trajectory.layers, None])
        assert array.dtype == np.float64
        columns = [*trajectory.layers, None]
        rows = frame[frame["measure"] == measure]
        expected = np.full((len(STEPS), len(columns)), np.nan)
        for step, layer, value in rows[["step", "layer", "value"]].to_numpy(dtype=object, na_value=None).tolist():
            expected[STEPS.index(step), columns.index(layer)] = value
        assert 0 < np.isfinite(expected).sum() == len(rows)
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(trajectory.array(measure), expected[:, :-1])
    assert np.isnan(trajectory.array("no such measure")).all()
    assert trajectory.thinned(2).array("h1_bars").shape == (2, len(LAYERS))


def test_the_reasons_of_what_is_missing_are_a_table(tmp_path: Path) -> None:
    trajectory = Trajectory(write_trajectory(tmp_path, invalid={STEPS[1]: {2: "gone"}}))
    table = trajectory.missing()
    assert list(table.columns) == ["step", "layer", "measure", "reason"]
    assert table["layer"].dtype == "Int64"
    gone = table[table["measure"] == "*"]
    assert gone[["step", "layer", "reason"]].to_numpy().tolist() == [[STEPS[1], 2, "invalid: gone"]]
    below = table[(table["measure"] == "overlap_below") & (table["step"] == STEPS[0])]
    assert below[["layer", "reason"]].to_numpy().tolist() == [[LAYERS[0], "no layer below it is read"]]
    both = table.merge(trajectory.frame(), on=["step", "layer", "measure"])
    assert both.empty


def test_barcodes_and_neighbours_by_step_and_layer(tmp_path: Path) -> None:
    write_trajectory(tmp_path, invalid={2: {4: "3 of 40 points are not finite"}})
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.barcodes(0, 6) == make_snapshots()[0].barcodes[6]
    assert trajectory.neighbours(0, 6).shape == (40, 5)
    with pytest.raises(KeyError, match="3 of 40 points are not finite"):
        trajectory.barcodes(2, 4)
    with pytest.raises(KeyError, match=r"no sample at step 3; sampled steps: \[0, 1, 2"):
        trajectory.barcodes(3, 4)
    with pytest.raises(KeyError, match="not among the layers"):
        trajectory.barcodes(2, 99)


def test_fault_8_a_damaged_sample_is_skipped_and_named_and_the_rest_read(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    torn = folder.step_file(folder.samples, 2)
    torn.write_bytes(torn.read_bytes()[:-5])
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == tuple(step for step in STEPS if step != 2)
    assert list(trajectory.damaged) == ["step-00000002.npz"]
    assert "step-00000002.npz" in trajectory.damaged["step-00000002.npz"]


@settings(max_examples=50, deadline=None)
@given(offset=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_fault_8_any_flipped_bit_of_a_real_snapshot_is_noticed(offset: int, bit: int) -> None:
    data = bytearray(encode_record(*make_snapshots()[1].to_record(), compress=True))
    data[offset % len(data)] ^= 1 << bit
    with pytest.raises(RecordError, match="step-1"):
        decode_record(bytes(data), "step-1")


def test_a_torn_last_line_of_the_journal_is_skipped(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    with open(folder.journal_file, "a") as journal:
        journal.write('{"event": "lost", "st')
    assert [entry["event"] for entry in folder.journal()] == ["started", "finished"]


def test_the_state_says_how_the_run_ended(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    assert Trajectory.load(tmp_path).state == "finished"
    folder.note("resumed", step=4)
    assert Trajectory.load(tmp_path).state == "interrupted"
    folder.lock()
    assert Trajectory.load(tmp_path).state == "running"
    folder.unlock()
    assert Trajectory.load(tmp_path).state == "interrupted"


def test_fault_27_a_second_writer_is_refused_in_this_process_and_in_another(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path, steps=(0,))
    folder.lock()
    with pytest.raises(FolderBusyError, match="already being written by this process"):
        TrajectoryFolder(folder.path).lock()
    code = (
        "import sys, pathlib; from topo_callback.records.folder import TrajectoryFolder; "
        "TrajectoryFolder(pathlib.Path(sys.argv[1])).lock()"
    )
    for refused in (True, False):
        other = subprocess.run([sys.executable, "-c", code, folder.path], capture_output=True, text=True, check=False)
        assert ("is being written by another process" in other.stderr) == refused
        assert (other.returncode != 0) == refused
        folder.unlock()


def test_dropping_later_samples_keeps_the_earlier_ones(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    folder.step_file(folder.spool, 16).write_bytes(b"")
    assert folder.drop_after(4) == [8, 16]
    assert folder.steps(folder.samples) == [0, 1, 2, 4]
    assert folder.steps(folder.spool) == []


def test_a_new_folder_draws_no_random_number(tmp_path: Path) -> None:
    import random

    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    first, second = TrajectoryFolder.new(tmp_path), TrajectoryFolder.new(tmp_path)
    assert first.run_id != second.run_id
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002


def test_what_does_not_fit_in_memory_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_trajectory(tmp_path)
    whole = Trajectory(folder)
    monkeypatch.setattr("topo_callback.records.trajectory.MOST_BYTES", 2 * whole.snapshot(STEPS[0]).nbytes + 1)
    part = Trajectory(folder)
    assert len(part._whole) <= 2
    for step in (*STEPS, *STEPS[::-1]):
        assert_same(part.snapshot(step), whole.snapshot(step))
        assert dict(part.overview(step).numbers) == whole.snapshot(step).numbers
        assert part.overview(step).nbytes == 0
        assert len(part._whole) <= 2
    assert part.frame().equals(whole.frame())
    assert part.time_zigzag(6, window=3) == whole.time_zigzag(6, window=3)
    damaged = folder.step_file(folder.samples, STEPS[1])
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(RecordError):
        part.snapshot(STEPS[1])
    with pytest.raises(KeyError, match="no sample at step 77"):
        part.overview(77)


def test_a_folder_of_output_dirs_names_them(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "runs" / "first" / "topology")
    with pytest.raises(RecordError, match=r"no trajectory at .*runs: .*, such as .*/runs/first$"):
        Trajectory.load(tmp_path / "runs")
