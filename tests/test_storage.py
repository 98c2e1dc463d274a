"""Folders in object storage: read as runs, scanned from and to; on fsspec's memory, and on a server that speaks S3."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from scan.checkpoints import save_model, write_probe
from scan.test_command import LIGHT, run_scan
from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.errors import ConfigurationError, MissingExtraError, RecordError
from topo_callback.storage import OF_RUN, Stored, is_url, written_back


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("topo_callback.storage.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[str]:
    """A place of fsspec that lasts as long as the process."""
    place = "memory://bucket"
    yield place
    files = fsspec.filesystem("memory")
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server on this machine."""
    server_of = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.config.set_conf_env(fsspec.config.conf)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    fsspec.config.conf.pop("s3", None)
    server.stop()


def upload(folder: Path, url: str) -> None:
    files, root = fsspec.core.url_to_fs(url)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = f"{root}/{path.relative_to(folder).as_posix()}"
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        files.put_file(str(path), target)


def assert_runs_are_read(place: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_trajectory(folder / "recorded", steps=(0, 10, 20)).path
    upload(run, f"{place}/run")
    (folder / "page.html").unlink(missing_ok=True)
    for words in (["summary"], ["events"], ["report", "--output", str(folder / "page.html")]):
        assert main([words[0], f"{place}/run", *words[1:]]) == 0
    assert (folder / "page.html").is_file()
    capsys.readouterr()
    assert main(["summary", "--json", f"{place}/run"]) == 0
    stored = json.loads(capsys.readouterr().out)
    assert main(["summary", "--json", str(run)]) == 0
    assert json.loads(capsys.readouterr().out) == stored
    mirror = Stored(f"{place}/run").fetch(OF_RUN)
    assert Trajectory.load(mirror).frame().equals(Trajectory.load(run).frame())
    assert not list(mirror.rglob("prompts.jsonl"))


def test_runs_are_read(memory: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_runs_are_read(memory, tmp_path, capsys)


def test_what_has_changed_is_fetched_and_what_has_not_is_not(memory: str, cache: Path, tmp_path: Path) -> None:
    run = write_trajectory(tmp_path / "recorded", steps=(0, 10)).path
    upload(run, f"{memory}/run")
    mirror = Stored(f"{memory}/run").fetch(OF_RUN)
    before = {path: path.stat().st_ino for path in mirror.rglob("*.npz")}
    files = fsspec.filesystem("memory")
    files.cp_file("/bucket/run/samples/step-00000010.npz", "/bucket/run/samples/step-00000020.npz")
    files.rm("/bucket/run/samples/step-00000000.npz")
    assert Stored(f"{memory}/run").fetch(OF_RUN) == mirror
    after = {path: path.stat().st_ino for path in mirror.rglob("*.npz")}
    assert {path.stem for path in after} - {path.stem for path in before} == {"step-00000020"}
    assert {path.stem for path in before} - {path.stem for path in after} == {"step-00000000"}
    kept = mirror / "samples" / "step-00000010.npz"
    assert before[kept] == after[kept]


def test_what_cannot_be_had_is_said(memory: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordError, match=r"memory://bucket/none: there is no such folder, or nothing in it"):
        Stored(f"{memory}/none").fetch(OF_RUN)
    with pytest.raises(ConfigurationError, match=r"fsspec has no nowhere://; accepted: s3://"):
        Stored("nowhere://bucket/run")
    upload(write_trajectory(tmp_path / "recorded", steps=(0,)).path, f"{memory}/run")
    with pytest.raises(RecordError, match=r"has \d+ bytes to be read; accepted: 10"):
        Stored(f"{memory}/run").fetch(OF_RUN, 10)

    def absent(*given: Any, **options: Any) -> Any:
        raise ImportError("planted")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=r"pip install gcsfs"):
        Stored("gs://bucket/run")


def test_a_file_that_came_short_is_not_kept(
    memory: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write_trajectory(tmp_path / "recorded", steps=(0,)).path, f"{memory}/run")
    stored = Stored(f"{memory}/run")

    def torn(remote: str, local: str) -> None:
        Path(local).write_bytes(b"torn")

    monkeypatch.setattr(stored._files, "get_file", torn)
    with pytest.raises(RecordError, match=r"came with 4 bytes, not \d+"):
        stored.fetch(OF_RUN)
    assert not [path for path in stored.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_what_is_rotated_while_it_is_fetched_is_left_to_the_next_look(
    memory: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write_trajectory(tmp_path / "recorded", steps=(0, 10)).path, f"{memory}/run")
    stored, files = Stored(f"{memory}/run"), fsspec.filesystem("memory")
    real, gone = stored._files.get_file, "/bucket/run/samples/step-00000000.npz"

    def rotated(remote: str, local: str) -> None:
        if files.exists(gone):
            files.rm(gone)
        real(remote, local)

    monkeypatch.setattr(stored._files, "get_file", rotated)
    mirror = stored.fetch_or_make(changing=True)
    assert [path.name for path in mirror.rglob("*.npz") if path.parent.name == "samples"] == ["step-00000010.npz"]


def test_two_that_write_below_one_url_leave_each_other_alone(memory: str, tmp_path: Path) -> None:
    for name in ("one", "two"):  # two machines; both begin with nothing
        Stored(f"{memory}/scans", cache=tmp_path / name).fetch_or_make()
    for name in ("one", "two"):
        stored = Stored(f"{memory}/scans", cache=tmp_path / name)
        for file in (stored.folder / name, stored.folder / f"{name}.old"):
            file.write_text(name)
        stored.push()
        (stored.folder / f"{name}.old").unlink()
        stored.push()
    assert sorted(fsspec.filesystem("memory").find("/bucket/scans")) == ["/bucket/scans/one", "/bucket/scans/two"]


def test_what_could_not_be_fetched_is_not_deleted_there(
    memory: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write_trajectory(tmp_path / "recorded", steps=(0, 10)).path, f"{memory}/scans/run")
    files = fsspec.filesystem("memory")
    before = files.find("/bucket/scans")

    def refused(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "get_file", refused)
        with pytest.raises(RecordError, match="No space left"), written_back(f"{memory}/scans"):
            pass
    assert files.find("/bucket/scans") == before


def test_names_never_lead_out_of_the_mirror(memory: str, cache: Path) -> None:
    files = fsspec.filesystem("memory")
    for name in ("/bucket/run/run.json", "/bucket/run/../../run.json", "/bucket/run/.hidden/run.json"):
        files.store[name] = files.store.get(name) or fsspec.implementations.memory.MemoryFile(files, name, b"{}")
    mirror = Stored(f"{memory}/run").fetch(OF_RUN)
    found = [path.relative_to(cache).as_posix() for path in cache.rglob("run.json")]
    assert found == [(mirror / "run.json").relative_to(cache).as_posix()]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/run", True),
        ("memory://x", True),
        ("runs/s3", False),
        ("org/name@main", False),
        ("a=s3://b/c", False),
    ],
)
def test_what_is_a_url(text: str, url: bool) -> None:
    assert is_url(text) == url


def assert_scanned_from_and_to(place: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_model(folder / "run" / f"checkpoint-{step}", layers=2, seed=step)
    upload(folder / "run", f"{place}/trained")
    probe = write_probe(folder)
    common = ("--prompts", probe, *LIGHT, "--topo-page", "false")
    assert run_scan(f"{place}/trained", "--output-url", f"{place}/scans", *common[:2], *LIGHT) == ""
    assert run_scan(folder / "run", "--output-dir", folder / "here", *common[:2], *LIGHT) == ""
    stored = Trajectory.load(Stored(f"{place}/scans/trained").fetch(OF_RUN))
    assert stored.frame().equals(Trajectory.load(folder / "here").frame())
    save_model(folder / "run" / "checkpoint-3", layers=2, seed=3)
    upload(folder / "run" / "checkpoint-3", f"{place}/trained/checkpoint-3")
    patch.setattr("topo_callback.storage.cache_folder", lambda: folder / "elsewhere")  # another machine goes on
    watching = ("--watch", f"{place}/trained", "--output-url", f"{place}/scans", "--every", "0.05", "--until", "3")
    assert run_scan(*watching, *common) == ""
    stored = Trajectory.load(Stored(f"{place}/scans/trained").fetch(OF_RUN))
    assert stored.steps == (1, 2, 3)
    assert run_scan(folder / "run", "--output-dir", folder / "here", *common[:2], *LIGHT) == ""
    assert stored.frame().equals(Trajectory.load(folder / "here").frame())


@pytest.mark.slow
def test_a_scan_goes_from_and_to_object_storage(
    memory: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_scanned_from_and_to(memory, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the server and its client
def test_a_server_that_speaks_s3(
    s3: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
    assert_runs_are_read(s3, tmp_path, capsys)
    assert_scanned_from_and_to(s3, tmp_path, monkeypatch)
    second = tmp_path / "recorded"
    shutil.rmtree(second)
    upload(write_trajectory(second, steps=(0, 10, 20)).path, f"{s3}/other")
    assert main(["compare", f"one={s3}/run", f"two={s3}/other", "--output-dir", str(tmp_path / "compared")]) == 0
    with pytest.raises(RecordError, match="there is no such folder, or nothing in it"):
        Stored("s3://no-such-bucket/run").fetch(OF_RUN)
