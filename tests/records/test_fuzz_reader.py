"""Whatever is in a run's folder, reading it works, names what is damaged, or raises RecordError; it runs nothing.

A checksum only shows that a file is whole. Most records here have a right one and hostile contents.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_records import anything, archive_of, change_arrays, change_manifest, npy, npy_header, rebuilt, vouched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError
from topo_callback.records.record import decode_record, encode_record
from topo_callback.records.snapshot import Snapshot

# foreign .npy headers make NumPy and Python warn; a warning is no failure to read
pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = (0, 1, 2)
VICTIM = "step-00000001.npz"
SETTINGS = TopologyConfig(neighbours=3)
many = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

kinds = st.sampled_from(["flip", "cut", "repeat", "fill"])
places = st.tuples(kinds, st.floats(0, 1), st.integers(0, 255))


@cache
def original() -> Mapping[str, bytes]:
    """The files of a measured run of three samples, by their path inside its folder."""
    with tempfile.TemporaryDirectory() as root:
        folder = write_trajectory(Path(root), STEPS, layers=(1, 2, 4), points=12, config=SETTINGS)
        files = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder.path)): path.read_bytes() for path in files}


@contextmanager
def run_with(changes: Mapping[str, bytes]) -> Iterator[Path]:
    """The folder of the measured run, some of its files changed."""
    with tempfile.TemporaryDirectory() as root:
        for name, data in {**original(), **changes}.items():
            (Path(root) / name).parent.mkdir(exist_ok=True)
            (Path(root) / name).write_bytes(data)
        yield Path(root)


def contents(path: Path) -> dict[str, bytes | None]:
    return {str(each): each.read_bytes() if each.is_file() else None for each in sorted(path.rglob("*"))}


def read_all(path: Path) -> Trajectory | None:
    """Read everything there is, None when the run is refused; errors other than RecordError fail the test."""
    before = contents(path)
    try:
        trajectory = Trajectory.load(path)
    except RecordError:
        return None
    finally:
        assert contents(path) == before
    assert f"{len(trajectory.steps)} samples" in repr(trajectory)
    assert set(trajectory.frame()["step"]) | set(trajectory.missing()["step"]) <= set(trajectory.steps)
    for step in trajectory.steps:
        whole, slim = trajectory.snapshot(step), trajectory.overview(step)
        assert whole.step == slim.step == step
        assert whole.numbers == slim.numbers
        whole.to_record()
        whole.median("shape_velocity.previous")
        for layer in whole.layers:
            trajectory.neighbours(step, layer)
    assert not {f"step-{step:08d}.npz" for step in trajectory.steps} & set(trajectory.damaged)
    assert all(trajectory.damaged.values())
    assert contents(path) == before
    return trajectory


def check_sample(data: bytes) -> Trajectory:
    """The other samples are read; the changed one is read, or named."""
    with run_with({f"samples/{VICTIM}": data}) as path:
        trajectory = read_all(path)
    assert trajectory is not None
    assert {0, 2} <= set(trajectory.steps)
    assert (1 in trajectory.steps) != (VICTIM in trajectory.damaged)
    return trajectory


def parts(name: str = VICTIM) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return decode_record(original()[f"samples/{name}"], name)


def test_the_run_that_is_damaged_here_has_all_kinds_of_content() -> None:
    snapshot = Snapshot.from_record(*parts())
    assert snapshot.barcodes
    assert snapshot.gaussian_neighbours is not None
    assert snapshot.depth_zigzag is not None
    assert snapshot.missing
    trajectory = check_sample(rebuilt(*parts(), method=zipfile.ZIP_DEFLATED))
    assert (trajectory.steps, trajectory.damaged) == (STEPS, {})


@many
@given(st.lists(places, min_size=1, max_size=4), st.booleans())
def test_changed_bytes_are_noticed_and_with_a_right_checksum_do_no_harm(
    damage: list[tuple[str, float, int]], checksum: bool
) -> None:
    data = bytearray(original()[f"samples/{VICTIM}"])
    for kind, place, value in damage:
        at = int(place * (len(data) - 1))
        if kind == "flip":
            data[at] ^= value
        elif kind == "cut":
            del data[at : at + 1 + value]
        elif kind == "repeat":
            data[at:at] = data[at : at + value]
        else:
            data[at : at + 4] = bytes([value]) * 4
    changed = bytes(data) != original()[f"samples/{VICTIM}"]
    trajectory = check_sample(vouched(bytes(data)) if checksum else bytes(data))
    assert checksum or not changed or VICTIM in trajectory.damaged


@many
@given(st.data())
def test_hostile_manifests(data: st.DataObject) -> None:
    arrays, manifest = parts()
    change_manifest(manifest, data)
    check_sample(rebuilt(arrays, manifest))


@many
@given(st.data())
def test_hostile_arrays(data: st.DataObject) -> None:
    arrays, manifest = parts()
    change_arrays(arrays, parts("step-00000002.npz")[0], data)
    check_sample(rebuilt(arrays, manifest))


@pytest.mark.slow
@many
@given(st.dictionaries(st.sampled_from(["values", "neighbours", "x"]), st.integers(0, 3), max_size=2), anything)
def test_records_of_nothing_like_a_snapshot(shapes: dict[str, int], manifest: object) -> None:
    arrays = {name: np.zeros((2,) * dimensions) for name, dimensions in shapes.items()}
    check_sample(rebuilt(arrays, manifest))
    check_sample(rebuilt(arrays, {"schema": 1, "kind": "snapshot", "step": manifest}))


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("member", ["values", "manifest", "neighbours", "another"])
def test_a_pickle_is_refused_and_not_run(member: str, tmp_path: Path) -> None:
    objects = np.empty(1, dtype=object)
    objects[0] = Payload(tmp_path / "was here")
    arrays, manifest = parts()
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    members = {f"{name}.npy": npy(array) for name, array in {"manifest": text, **arrays}.items()}
    for data in (npy(objects), pickle.dumps(objects[0]), npy_header("[('f', 'O')]", (1,), bytes(8))):
        trajectory = check_sample(archive_of([*{**members, f"{member}.npy": data}.items()]))
        assert VICTIM in trajectory.damaged
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("'<f8'", (2**60,)),
        ("'<f8'", (2**33,)),
        ("'|u1'", (2**34,)),
        ("'<U1000000000'", (4,)),
        ("'|V0'", (2**60,)),
        ("'<f8'", (-1, -1)),
        ("'<f8'", "'many'"),
        ("'<f8'", "(" * 5000),
        ("'<f8'", "-" * 9000 + "1"),
        ("['f8'", ()),
    ],
)
def test_a_header_that_claims_more_than_there_is_costs_no_memory(descr: str, shape: object) -> None:
    arrays, manifest = parts()
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    members = {f"{name}.npy": npy(array) for name, array in {"manifest": text, **arrays}.items()}
    data = archive_of([*{**members, "values.npy": npy_header(descr, shape, bytes(64))}.items()])
    tracemalloc.start()
    with pytest.raises(RecordError, match="hostile"):
        decode_record(data, "hostile")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert VICTIM in check_sample(data).damaged


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_no_record_has_are_refused(method: int) -> None:
    assert "compression method" in check_sample(rebuilt(*parts(), method=method)).damaged[VICTIM]


@pytest.mark.parametrize(
    "manifest",
    [b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b"", b"[]", b"{}", b'{"schema": true}', b'{"schema": "1"}', b"NaN"],
)
def test_manifests_that_are_none_are_refused(manifest: bytes) -> None:
    data = archive_of([("manifest.npy", npy(np.frombuffer(manifest, dtype=np.uint8)))])
    assert "no record of topo_callback" in check_sample(data).damaged[VICTIM]


def test_the_sample_of_another_step_is_named() -> None:
    trajectory = check_sample(original()["samples/step-00000002.npz"])
    assert trajectory.damaged == {VICTIM: f"{VICTIM}: holds the sample of step 2"}


def test_neighbours_that_are_no_points_never_reach_a_kernel() -> None:
    arrays, manifest = parts()
    for name in ("neighbours", "gaussian_neighbours"):
        changed = arrays[name].copy()
        changed[1, 0, 0] = 12
        assert name in check_sample(rebuilt({**arrays, name: changed}, manifest)).damaged[VICTIM]


@many
@given(st.lists(anything | st.just({"event": []}) | st.just({"event": "finished"}), max_size=4), st.binary(max_size=30))
def test_hostile_journals(entries: list[object], tail: bytes) -> None:
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    with run_with({"journal.jsonl": lines + tail}) as path:
        trajectory = read_all(path)
    assert trajectory is not None
    assert trajectory.steps == STEPS
    assert all(isinstance(entry["event"], str) for entry in trajectory.journal)


@many
@given(st.data())
def test_hostile_run_files(data: st.DataObject) -> None:
    run: Any = json.loads(original()["run.json"])
    key = data.draw(st.sampled_from(sorted(run)))
    run = data.draw(st.sampled_from([{**run, key: data.draw(anything)}, data.draw(anything)]))
    with run_with({"run.json": json.dumps(run).encode()}) as path:
        trajectory = read_all(path)
    if trajectory is not None:
        assert isinstance(trajectory.config, TopologyConfig) or key == "config"
        assert "layers" not in run or isinstance(trajectory.layers, tuple)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"", b"\xff", b"9" * 5000, b"{}"])
def test_run_files_and_journals_that_are_none(text: bytes) -> None:
    with run_with({"run.json": text}) as path:
        assert read_all(path) is None
    with run_with({"journal.jsonl": text + b"\n" + original()["journal.jsonl"]}) as path:
        trajectory = read_all(path)
    assert trajectory is not None
    assert trajectory.state == "finished"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../run", b"/", b"a" * 5000, b"\xff\xfe", b"a\x00b", b"a/../run"])
def test_the_name_of_the_newest_run_leads_nowhere_else(name: bytes, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "run"):
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_bytes(original()["run.json"])
    (tmp_path / "output" / "topology").mkdir(parents=True)
    (tmp_path / "output" / "latest").write_bytes(name)
    (tmp_path / "output" / "topology" / "latest").write_bytes(name)
    with pytest.raises(RecordError, match="no trajectory"):
        Trajectory.load(tmp_path / "output")


ODD_NAMES = [
    "step-000000001.npz",  # the same number once more
    "step-٠٠٠٠٠٠٠٣.npz",
    f"step-{'9' * 60}.npz",
    "step-00000003.npz.tmp",
    ".step-00000003.npz.1.tmp",
    "step--0000003.npz",
    "step-00000003.npz\n",
    "step-1e000000.npz",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_files_of_other_names_are_no_samples(name: str) -> None:
    with run_with({f"samples/{name}": original()["samples/step-00000001.npz"]}) as path:
        trajectory = read_all(path)
    assert trajectory is not None
    assert (trajectory.steps, trajectory.damaged) == (STEPS, {})


def test_pipes_devices_links_and_folders_in_place_of_a_sample_are_named() -> None:
    def link(target: str) -> Callable[[Path], None]:
        return lambda path: path.symlink_to(target)

    with run_with({}) as path:
        victim = path / "samples" / VICTIM
        for make in (os.mkfifo, os.mkdir, link("/dev/zero"), link(VICTIM), link("nowhere"), link("..")):
            victim.unlink()
            make(victim)
            trajectory = Trajectory.load(path)
            assert trajectory.steps == (0, 2)
            assert list(trajectory.damaged) == [VICTIM]
            if victim.is_dir() and not victim.is_symlink():
                victim.rmdir()
                victim.touch()
        victim.unlink()
        victim.symlink_to("step-00000002.npz")
        assert "symbolic link, which is not followed" in Trajectory.load(path).damaged[VICTIM]
        victim.unlink()
        victim.hardlink_to(path / "samples" / "step-00000002.npz")
        assert "step 2" in Trajectory.load(path).damaged[VICTIM]


def test_a_record_that_is_refused_later_says_so() -> None:
    arrays, manifest = parts()
    with run_with({}) as path:
        trajectory = Trajectory.load(path)
        trajectory._whole.clear()  # as in a trajectory beyond a gigabyte
        (path / "samples" / VICTIM).write_bytes(encode_record(arrays, {**manifest, "layers": ["1", "2", "4"]}))
        with pytest.raises(RecordError, match="layers"):
            trajectory.snapshot(1)
        assert trajectory.overview(1).step == 1


def test_layers_of_a_zigzag_that_is_not_there_are_named() -> None:
    arrays, manifest = parts()
    kept = {name: array for name, array in arrays.items() if not name.startswith("zigzag_")}
    assert "zigzag_layers" in check_sample(rebuilt(kept, {**manifest, "zigzag": False})).damaged[VICTIM]
