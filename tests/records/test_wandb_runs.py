"""Runs of W&B by name: found, downloaded once, read like a folder; and what is refused. A server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison.simulated_runs import Design, write_runs
from records.wandb_server import Server, wandb_server

from topo_callback import Trajectory
from topo_callback.cli import build_parser
from topo_callback.errors import ConfigurationError, RecordError, TopologyError
from topo_callback.records.wandb_runs import run_folder
from topo_callback.sinks.wandb import _artifact

SEEDS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return write_runs(tmp_path_factory.mktemp("runs"), Design(2, SEEDS, effect=8.0), np.random.default_rng(4))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with wandb_server(tmp_path / "wandb") as server:
        yield server


@pytest.fixture
def logged(server: Server, folders: dict[str, list[Path]]) -> Server:
    """Every run with its trajectory, as WandbSink uploads it, beside an artifact of another tool."""
    import wandb

    for objective, of in folders.items():
        for number, folder in enumerate(of):
            name = f"{objective}{number}"
            server.runs[name] = f"{objective} {number}"
            other = wandb.Artifact("model", type="model")
            other.add_file(str(folder / "run.json"), name="weights")
            server.log(name, other, createdAt="2026-12-31T00:00:00")
            server.log(name, _artifact(wandb, folder))
    return server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "topo_callback" / "wandb"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_is_downloaded_once_and_equals_the_folder(
    logged: Server, folders: dict[str, list[Path]], cache: Path
) -> None:
    original = folders["helpful"][0]
    found = run_folder("wandb:team/project/helpful0")
    assert found.name == original.name
    assert files(found) == {name for name in files(original) if name.startswith(("samples/", "run.", "journal."))}
    assert all((found / name).read_bytes() == (original / name).read_bytes() for name in files(found))
    assert Trajectory.load(found).frame().equals(Trajectory.load(original).frame())
    assert Trajectory.load(found).state == "finished"
    before = list(logged.downloads)
    assert len(before) == len(files(found))
    # the second time by its display name
    assert run_folder("wandb:team/project/helpful 0") == found
    assert logged.downloads == before
    assert list(cache.rglob(".partial-*")) == []


@pytest.mark.slow
def test_the_newest_trajectory_is_taken(logged: Server, folders: dict[str, list[Path]], cache: Path) -> None:
    import wandb

    logged.log("helpful0", _artifact(wandb, folders["helpful"][1]))
    logged.log("helpful0", _artifact(wandb, folders["helpful"][2]), createdAt="2025-01-01T00:00:00")
    assert run_folder("wandb:team/project/helpful0").name == folders["helpful"][1].name


@pytest.mark.slow
def test_runs_of_both_kinds_are_compared_and_reported(
    logged: Server, folders: dict[str, list[Path]], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {objective: [f"wandb:team/project/{objective}{n}" for n in range(SEEDS)] for objective in folders}
    objectives = list(folders)
    given = [f"{objective}={','.join(names[objective])}" for objective in objectives]

    def run(*arguments: str) -> str:
        parsed = build_parser().parse_args(arguments)
        parsed.run(parsed)
        return capsys.readouterr().out

    local = [f"{objective}={','.join(map(str, folders[objective]))}" for objective in objectives]
    printed = run("compare", *given, "--output-dir", str(tmp_path / "out"))
    assert printed.replace("/out", "/local") == run("compare", *local, "--output-dir", str(tmp_path / "local"))
    mixed = run("compare", given[0], local[1], "--output-dir", str(tmp_path / "out"))
    assert mixed == printed
    page = tmp_path / "page.html"
    run("report", *given, "--output", str(page))
    assert 'id="comparison-curves"' in page.read_text()
    run("report", names[objectives[0]][0], "--output", str(page))
    assert folders[objectives[0]][0].name in page.read_text()


@pytest.mark.slow
def test_names_that_lead_outside_are_never_written(
    server: Server, folders: dict[str, list[Path]], cache: Path, tmp_path: Path
) -> None:
    import wandb

    server.runs["bad"] = "bad"
    server.log("bad", _artifact(wandb, folders["helpful"][0]))
    (contents,) = (manifest["contents"] for manifest in server.manifests.values())
    entry = contents["run.json"]
    for name in ("../outside", "samples/../../outside", "/tmp/outside", "samples/step-00000001.npz/../../../x", "lock"):
        contents[name] = entry
    found = run_folder("wandb:team/project/bad")
    assert files(found) == files(folders["helpful"][0])
    assert not [path for path in tmp_path.rglob("*") if path.name in ("outside", "x", "lock")]


def _of_another_tool(server: Server) -> None:
    (manifest,) = server.manifests.values()
    del manifest["contents"]["run.json"]


def _a_reference(server: Server) -> None:
    (manifest,) = server.manifests.values()
    manifest["contents"]["run.json"]["ref"] = "file:///etc/hostname"


def _too_large(server: Server) -> None:
    (manifest,) = server.manifests.values()
    manifest["contents"]["run.json"]["size"] = 1 << 40


def _of_another_size(server: Server) -> None:
    (manifest,) = server.manifests.values()
    manifest["contents"]["run.json"]["size"] -= 1


def _not_there(server: Server) -> None:
    server.files.clear()


def _of_another_name(server: Server) -> None:
    server.logged["bad"][0]["artifactSequence"]["name"] = "topology-..%2f..%2fetc"


def _none_logged(server: Server) -> None:
    server.logged.clear()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_of_another_tool, RecordError, "its artifact has no run.json; it is not a trajectory of topo_callback"),
        (_a_reference, RecordError, "run.json is not in its artifact but kept elsewhere"),
        (_too_large, RecordError, "1099.5 GB; accepted: at most 8.6 GB"),
        (_of_another_size, RecordError, "run.json came with .* bytes, not"),
        (_not_there, RecordError, "no usable answer from W&B .*HTTPError"),
        (_of_another_name, RecordError, "is not one that topo_callback uploads"),
        (_none_logged, RecordError, "has no artifact of type topology"),
    ],
)
def test_what_is_no_trajectory_is_refused_and_nothing_left(
    server: Server, folders: dict[str, list[Path]], cache: Path, change: Any, error: type[TopologyError], message: str
) -> None:
    import wandb

    server.runs["bad"] = "bad"
    server.log("bad", _artifact(wandb, folders["helpful"][0]))
    change(server)
    with pytest.raises(error, match=message):
        run_folder("wandb:team/project/bad")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("text", ["wandb:", "wandb:run", "wandb:project/run", "wandb:a/b/c/d", "wandb:team//run"])
def test_names_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="names no W&B run; write wandb:ENTITY/PROJECT/RUN"):
        run_folder(text)


def test_runs_that_are_not_one(server: Server, cache: Path) -> None:
    server.runs.update(a="twin", b="twin")
    with pytest.raises(ConfigurationError, match="no run of this id or name in the project team/project"):
        run_folder("wandb:team/project/nobody")
    with pytest.raises(ConfigurationError, match="several runs have this name; give an id instead: a, b"):
        run_folder("wandb:team/project/twin")


def test_a_cache_that_cannot_be_written(
    server: Server, folders: dict[str, list[Path]], cache: Path, tmp_path: Path
) -> None:
    import wandb

    server.runs["good"] = "good"
    server.log("good", _artifact(wandb, folders["helpful"][0]))
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    with pytest.raises(RecordError, match=r"cannot be kept in .*wandb \(Not a directory\)"):
        run_folder("wandb:team/project/good")


@pytest.mark.slow
def test_no_server(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topo_callback.records.wandb_runs.SECONDS", 2)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(RecordError, match="no usable answer from W&B .*check the network and `wandb login`"):
        run_folder("wandb:team/project/run")
    assert not cache.exists()


def test_without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from topo_callback.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'topo_callback\[wandb\]'"):
        run_folder("wandb:team/project/run")
