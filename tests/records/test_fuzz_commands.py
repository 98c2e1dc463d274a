"""Whatever is in a record with a right checksum, every command that reads it answers, or refuses it in one line."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_records import anything, change_arrays, change_manifest, rebuilt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.config import TopologyConfig
from topo_callback.dynamics.references import References
from topo_callback.errors import RecordError, TopologyError
from topo_callback.records import record
from topo_callback.records.record import decode_record, encode_record

pytestmark = pytest.mark.filterwarnings("ignore")  # hostile numbers make NumPy warn
VICTIM = "samples/step-00000001.npz"
some = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def original() -> Mapping[str, bytes]:
    """The files of a finished run of three samples."""
    with tempfile.TemporaryDirectory() as root:
        folder = write_trajectory(
            Path(root), (0, 1, 2), layers=(1, 2, 4), points=12, config=TopologyConfig(neighbours=3, pictures=0)
        )
        files = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder.path)): path.read_bytes() for path in files}


def answers(changes: Mapping[str, bytes], *, page: bool = False) -> None:
    """Reading and the commands end with 0, or with 2 and one line."""
    with tempfile.TemporaryDirectory() as root:
        bad, good = Path(root) / "bad", Path(root) / "good"
        for folder, files in ((bad, {**original(), **changes}), (good, original())):
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        with contextlib.suppress(TopologyError):
            trajectory = Trajectory.load(bad)
            trajectory.frame()
            trajectory.missing()
            assert trajectory.layers is not None
        commands = [
            ["events", str(bad)],
            ["calibrate", str(good), str(bad), "--output", str(Path(root) / "references.npz")],
        ]
        if page:
            commands.append(["report", str(bad), "--output", str(Path(root) / "page.html")])
        for command in commands:
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                code = main(command)
            assert code in (0, 2), command
            assert code == 0 or len(said.getvalue().splitlines()) == 1


@some
@given(st.data())
def test_manifests(data: st.DataObject) -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    change_manifest(manifest, data)
    answers({VICTIM: rebuilt(arrays, manifest)})


@some
@given(st.data())
def test_arrays(data: st.DataObject) -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    change_arrays(arrays, decode_record(original()["samples/step-00000002.npz"], "other")[0], data)
    answers({VICTIM: rebuilt(arrays, manifest)})


@some
@given(st.data())
def test_run_files(data: st.DataObject) -> None:
    run = json.loads(original()["run.json"])
    change_manifest(run, data)
    answers({"run.json": json.dumps(run).encode()})


@some
@given(st.dictionaries(st.sampled_from(["epoch", "path_length", "loss", "learning_rate_sum", "seconds"]), anything))
def test_facts(facts: dict[str, object]) -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    manifest["provenance"] = {**manifest["provenance"], "facts": facts}
    answers({VICTIM: rebuilt(arrays, manifest)})


def without(run: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda run: without(run, "layers"),
        lambda run: {**run, "layers": []},
        lambda run: {**run, "probe": 0.5},
        lambda run: {**run, "model": ["a"]},
        lambda run: {**run, "training": {"max_steps": "many"}},
        lambda run: {**run, "model": {"depth": "x"}},
    ],
)
def test_parts_of_a_run_that_are_missing_or_of_another_kind(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    answers({"run.json": json.dumps(change(json.loads(original()["run.json"]))).encode()}, page=True)


@pytest.mark.parametrize(("name", "value"), [("zigzag_death", np.inf), ("zigzag_death", 99), ("zigzag_birth", 0.5)])
def test_bars_between_complexes_that_there_are_not(name: str, value: float) -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    assert arrays[name].size
    changed = arrays[name].astype(np.float64)
    changed[0] = value
    data = rebuilt({**arrays, name: changed}, manifest)
    answers({VICTIM: data}, page=True)
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "samples").mkdir()
        (Path(root) / "run.json").write_bytes(original()["run.json"])
        (Path(root) / VICTIM).write_bytes(data)
        assert name in Trajectory.load(root).damaged["step-00000001.npz"]


@some
@given(st.data())
def test_references(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        for name, content in original().items():
            (Path(root) / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / "run" / name).write_bytes(content)
        References.collect([Path(root) / "run"]).save(Path(root) / "references.npz")
        arrays, manifest = decode_record((Path(root) / "references.npz").read_bytes(), "references")
        if data.draw(st.booleans()):
            change_manifest(manifest, data)
        else:
            change_arrays(arrays, dict(arrays), data)
        (Path(root) / "references.npz").write_bytes(rebuilt(arrays, manifest))
        with contextlib.suppress(RecordError):
            References.load(Path(root) / "references.npz")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(["events", str(Path(root) / "run"), "--references", str(Path(root) / "references.npz")])
        assert code in (0, 2)


def test_a_member_is_not_inflated_beyond_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    bomb = {**arrays, "values": np.zeros((1 << 10, 1 << 14))}  # 128 MiB of nothing
    monkeypatch.setattr(record, "_is_repetition", lambda array: False)
    data = encode_record(bomb, manifest, compress=True)
    assert len(data) < 1 << 20
    with pytest.raises(RecordError, match="an array of 134217728 bytes, more than so small a file can hold"):
        decode_record(data, "bomb")


def test_large_repetitions_of_our_own_are_read_again() -> None:
    arrays, manifest = decode_record(original()[VICTIM], "victim")
    same = {**arrays, "values": np.full((1 << 10, 1 << 14), -1.0)}
    read, _ = decode_record(encode_record(same, manifest, compress=True), "same")
    assert np.array_equal(read["values"], same["values"])
